"""The part of the harness that imports torch: data, draws, training, attacks and judging."""

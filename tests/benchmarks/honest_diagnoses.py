"""How often a diagnosis marks an honest model: small networks of five kinds; each seed has its own images and streams.

`python tests/benchmarks/honest_diagnoses.py [SEEDS] [IMAGES] [FIRST]`, with `tests` on PYTHONPATH. Not a test: 12 seeds
take an hour of one core. A line a diagnosis, then how many had a mark.
"""

from __future__ import annotations

import functools
import sys
import time

import torch
from oracles import streams, test_images, trained

from bench.lab.compute.passes import Compute
from bench.lab.examine import surrogates
from bench.lab.examine.diagnose import diagnose
from bench.models.noise import ColoredNoise, Noisy
from bench.models.smoothing import Smoothed

CPU = torch.device("cpu")


def models():
    undefended, robust = trained(False), trained(True)
    return {
        "undefended": (undefended, "float32"),
        "adversarially trained": (robust, "float32"),
        "CNI": (Noisy(robust.net, ColoredNoise(robust.net, generator=torch.Generator().manual_seed(0)), 10), "float32"),
        "smoothed": (Smoothed(robust, 0.06), "float32"),
        "bfloat16": (robust, "bfloat16"),
    }


def main(seeds: int = 12, n: int = 32, first: int = 0) -> None:
    crafted = surrogates.through
    # The shipped network's examples are the same for all kinds: made once for each seed.
    kept = functools.cache(lambda seed: crafted(*asked[seed]))
    marked = runs = 0
    for seed in range(first, first + seeds):
        images, labels = test_images(n, n * seed)
        asked = {}

        def through(case, model, declared, steps=6, seed=seed, asked=asked):
            asked.setdefault(seed, (case, model, declared))
            return kept(seed)

        surrogates.through = through
        for kind, (model, precision) in models().items():
            start, compute = time.perf_counter(), Compute(CPU, precision=precision)
            found = list(diagnose(model.eval(), images, labels, streams(seed), compute, queries=100))
            marks = [f"{one.check} (p = {one.p}): {one.figure}" for one in found if one.verdict == "suspicious"]
            least = min((one.p, one.check) for one in found if one.p is not None)
            runs, marked = runs + 1, marked + bool(marks)
            print(f"{seed} {kind}: {time.perf_counter() - start:.0f} s, least p {least}, marks {marks}", flush=True)
    print(f"{marked} of {runs} diagnoses have a mark")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

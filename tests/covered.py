"""How often intervals cover what simulated judgements are drawn from."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from bench.votes.intervals import (
    expected,
)

Shape = tuple[float, float]


def judgement(
    n: int, draws: int, shape: Shape, rng: np.random.Generator, shards: int = 0, sharing: float = 0.1
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Right answers (n,), shard ids, right answers per shared draw; images' probabilities are Beta(shape).

    With shards the draws of a shard share a normal factor (a Gaussian copula): each image's own
    probability stays what it is, but its answers agree with its neighbours'.
    """
    p = rng.beta(*shape, n)
    if not shards:
        return rng.binomial(draws, p), np.zeros(n, dtype=int), None
    ids = np.arange(n) % shards
    factor = rng.standard_normal((shards, draws))[ids]
    threshold = ndtri(np.clip(p, 1e-300, 1 - 1e-16))[:, None]
    right = rng.random((n, draws)) < ndtr((threshold - np.sqrt(sharing) * factor) / np.sqrt(1 - sharing))
    return right.sum(1), ids, np.stack([right[ids == s].sum(0) for s in range(shards)])


def coverage(n: int, draws: int, shape: Shape, repeats: int, seed: int, shards: int = 0, sharing: float = 0.1) -> float:
    """Share of simulated benchmarks whose 95 % interval holds the population's expected accuracy."""
    rng = np.random.default_rng(seed)
    truth, hits = shape[0] / (shape[0] + shape[1]), 0
    for _ in range(repeats):
        correct, ids, table = judgement(n, draws, shape, rng, shards, sharing)
        interval = expected(correct, draws, ids, table)
        hits += interval.low <= truth <= interval.high
    return hits / repeats

"""Which rows an audit makes again, and what it would see of a forgery placed where it is seen least."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.recipes import PGD, Clean, Outcomes

POINTS = (1, 2, 5, 10)


class Sample(NamedTuple):
    """`rows` (ascending) of the `images` of a record; from `chosen` of its `shards`, or from all of them (None)."""

    rows: NDArray[np.int64]
    images: int
    shard: int
    chosen: int | None

    @property
    def shards(self) -> int:
        return -(-self.images // self.shard)


def sample(outcomes: Outcomes, images: int, wanted: int | None, seed: int) -> Sample:
    """`wanted` of a record's rows at random, all if None.

    From all shards, where an image can be made again by itself. Where noise is drawn for a whole shard, from a
    shard for every 16 images and at least two; an attack that needs the whole shard is run on two.
    """
    size = outcomes.examples.shard
    if wanted is None or wanted >= images:
        return Sample(np.arange(images, dtype=np.int64), images, size, None)
    rng = np.random.default_rng([seed, int(outcomes.key[:15], 16)])
    attack, source = outcomes.examples.attack, outcomes.examples.source
    alone = isinstance(attack, Clean | PGD)
    if alone and not outcomes.target.stochastic and not (source is not None and source.stochastic):
        return Sample(np.sort(rng.choice(images, wanted, replace=False)).astype(np.int64), images, size, None)
    total = -(-images // size)
    most = min(total, max(2, wanted // 16) if alone else 2)
    shards = rng.choice(total, most, replace=False)
    rows: list[int] = []
    left = wanted
    for k, shard in enumerate(sorted(shards, key=lambda s: min(size, images - s * size))):  # a short one first
        there = np.arange(shard * size, min((shard + 1) * size, images))
        take = min(len(there), -(-left // (most - k)))
        rows += rng.choice(there, take, replace=False).tolist()
        left -= take
    return Sample(np.sort(np.array(rows, np.int64)), images, size, most)


def caught(plan: Sample, changed: int, least: int = 1) -> float:
    """P(at least `least` of `changed` images are in the sample), over the sample, for the worst placement of them.

    Whoever changes a record does not know the sample. Over all shards no placement is better than another; in
    some of them, the changes are best put into few shards or spread evenly: the least of these is returned.
    """
    n = len(plan.rows)
    if plan.chosen is None:
        return _tail(_hypergeometric(plan.images, changed, n), least)
    size, total = min(plan.shard, plan.images), plan.shards
    each = n // plan.chosen
    least_seen = 1.0
    for full in range(-(-changed // size), min(total, changed) + 1):
        inside = _hypergeometric(size, changed // full, each)
        law, seen = np.ones(1), 0.0
        for hit, p in enumerate(_hypergeometric(total, full, plan.chosen)):
            seen += p * _tail(law, least) if hit else 0.0
            law = np.convolve(law, inside)
        least_seen = min(least_seen, float(seen))
    return least_seen


def _hypergeometric(total: int, marked: int, drawn: int) -> NDArray[np.float64]:
    """P(x of `drawn` are marked), x = 0, 1, ..., drawn."""

    def log(a: int, b: int) -> float:
        return math.lgamma(a + 1) - math.lgamma(b + 1) - math.lgamma(a - b + 1) if 0 <= b <= a else -math.inf

    whole = log(total, drawn)
    return np.exp([log(marked, x) + log(total - marked, drawn - x) - whole for x in range(drawn + 1)])


def _tail(law: NDArray[np.float64], least: int) -> float:
    return float(min(1.0, law[least:].sum()))

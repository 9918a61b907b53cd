"""Records of randomised models whose images share their draws by a Gaussian copula, with the truth of every number.

An image's draw is right where z = t + sqrt(c) f + sqrt(1 - c) e > 0: t is the image's, f one number for the draw and
the shard, e the image's and the draw's own. So each image is right with probability Phi(t) whatever the correlation c
is, and c is how much images of a shard err together. The image's probability of its label in that draw is Phi(2 z),
whose mean over draws the soft rule asks of the first model. Models of the same images and draws share f.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr, ndtri
from scipy.stats import binom

from bench.votes.votes import Votes

Floats = NDArray[np.float64]
LEVELS = 64  # images of a population are of so many kinds, equally frequent
KNOWN = 16  # draws whose winners are recorded
SHARP = 2.0
GRID = np.linspace(-8, 8, 1601)
FACTORS = np.linspace(-6, 6, 241)


def population(a: float, b: float) -> Floats:
    """Thresholds t of images whose probability of being right in a draw is Beta(a, b)."""
    return np.asarray(ndtri(betaincinv(a, b, (np.arange(LEVELS) + 0.5) / LEVELS)))


def records(
    rng: np.random.Generator, models: list[Floats], n: int, *, shards: int, draws: int, correlation: float
) -> list[Votes]:
    """The votes of each model (its thresholds) on the same n random images in equal shards."""
    level, shard = rng.integers(0, LEVELS, n), (np.arange(n) * shards // n).astype(np.int32)
    factor = rng.standard_normal((shards, draws), dtype=np.float32)
    own, common = np.float32(np.sqrt(1 - correlation)), np.float32(np.sqrt(correlation))
    known = min(draws, KNOWN)
    labels, rows = (np.arange(n) % 2).astype(np.uint16), np.arange(n)
    made = []
    for thresholds in models:
        z = own * rng.standard_normal((n, known), dtype=np.float32) + common * factor[:, :known][shard]
        z += thresholds.astype(np.float32)[level][:, None]
        hit = z > 0
        asked = draws > 1 and thresholds is models[0]
        right, belief = hit.sum(1), (ndtr(np.float32(SHARP) * z) if asked else hit).sum(1, dtype=np.float64)
        prefix = _counts(right, known, labels)
        if draws > known:
            more, belief_more = _rest(rng, thresholds, level, shard, factor[:, known:], correlation)
            right, belief = right + more, belief + belief_more
        probs = np.full((n, 2), 0.5, np.float16)
        winners = np.where(hit, labels[:, None], 1 - labels[:, None]).astype(np.uint16)
        table = np.add.reduceat(hit, np.flatnonzero(np.diff(shard, prepend=-1)), axis=0, dtype=np.int32)
        made.append(
            Votes(
                index=rows, labels=labels, counts=_counts(right, draws, labels), probs=probs,
                soft=np.where(belief > draws / 2, labels, 1 - labels).astype(np.uint16), prefix=prefix,
                settled=np.full(n, draws, np.uint16), linf=np.zeros(n, np.float32), claimed=np.full(n, -1, np.int8),
                shard=shard, draw_right=table, winners=winners,
            )
        )  # fmt: skip
    return made


def _counts(right: NDArray[np.int64], draws: int, labels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    counts = np.empty((len(right), 2), np.uint16)
    rows = np.arange(len(right))
    counts[rows, labels], counts[rows, 1 - labels] = right, draws - right
    return counts


def _rest(
    rng: np.random.Generator, thresholds: Floats, level: NDArray[np.int64], shard: NDArray[np.int32],
    factor: NDArray[np.float32], correlation: float,
) -> tuple[NDArray[np.int64], Floats]:  # fmt: skip
    """Right answers and beliefs of hundreds of draws, by the normal law of their sums given the shard's factors."""
    shards, draws = factor.shape
    hit, belief, spread = _tables(thresholds.tobytes(), correlation)
    place = np.clip(np.rint((factor + 6) / 0.05), 0, len(FACTORS) - 1).astype(int)
    place += len(FACTORS) * np.arange(shards)[:, None]
    often = np.bincount(place.ravel(), minlength=shards * len(FACTORS)).reshape(shards, -1)
    at = (shard, level)
    first, second = rng.standard_normal((2, len(level)))
    second = 0.9 * first + np.sqrt(1 - 0.81) * second  # a draw that is right is one of high belief
    right = (often @ hit)[at] + np.sqrt((often @ (hit * (1 - hit)))[at]) * first
    return np.clip(np.rint(right), 0, draws).astype(int), (often @ belief)[at] + np.sqrt((often @ spread)[at]) * second


@cache
def _tables(thresholds: bytes, correlation: float) -> tuple[Floats, Floats, Floats]:
    """By factor and level: P(right), and the mean and variance of the belief."""
    reached = np.frombuffer(thresholds)[None, :] + np.sqrt(correlation) * FACTORS[:, None]
    mean, variance = belief_moments(correlation)
    return ndtr(reached / np.sqrt(1 - correlation)), np.interp(reached, GRID, mean), np.interp(reached, GRID, variance)


@cache
def belief_moments(correlation: float) -> tuple[Floats, Floats]:
    """Mean and variance of the belief over e, on GRID."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    each = ndtr(SHARP * (GRID[:, None] + np.sqrt(1 - correlation) * nodes))
    mean = each @ (weights / weights.sum())
    return mean, each**2 @ (weights / weights.sum()) - mean**2


# -- the truth ---------------------------------------------------------------------------------


class Truth(NamedTuple):
    """Expected accuracy, that of a vote and of a soft vote of the draws, and the mean of p^2 and p^8."""

    expected: float
    vote: float
    soft: float
    twice: float
    eight: float


@cache
def _truth(thresholds: bytes, draws: int) -> Truth:
    t = np.frombuffer(thresholds)
    p, half = ndtr(t), draws / 2
    vote = binom.sf(np.floor(half), draws, p) + (0.5 * binom.pmf(half, draws, p) if draws % 2 == 0 else 0)
    if draws == 1:
        soft = p
    elif draws >= 64:
        mean, variance = (np.interp(t, GRID, moment) for moment in belief_moments(0.0))
        soft = ndtr((mean - 0.5) * np.sqrt(draws / variance))
    else:
        rng = np.random.default_rng(0)
        soft = np.array([
            (ndtr(SHARP * (one + rng.standard_normal((50_000, draws)))).sum(1) > half).mean() for one in t
        ])  # fmt: skip
    return Truth(*(float(each.mean()) for each in (p, vote, soft, p**2, p**8)))


def truth(thresholds: Floats, draws: int) -> Truth:
    """The truth of one model's numbers; half of the images win a tie."""
    return _truth(thresholds.tobytes(), draws)


@cache
def _given(attacked: bytes, clean: bytes, draws: int, correlation: float) -> tuple[float, float]:
    a, c = np.frombuffer(attacked), np.frombuffer(clean)
    p, q = ndtr(a), ndtr(c)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    both = ndtr((a[:, None] + np.sqrt(correlation) * nodes) / np.sqrt(1 - correlation))
    both = (both * ndtr((c[:, None] + np.sqrt(correlation) * nodes) / np.sqrt(1 - correlation))) @ (
        weights / weights.sum()
    )
    rng, right, total = np.random.default_rng(1), 0.0, 0.0
    for pa, pc, pp in zip(p, q, both, strict=True):
        often = rng.multinomial(draws, np.clip([pp, pa - pp, pc - pp, 1 - pa - pc + pp], 0, 1), 40_000)
        first, second = 2 * (often[:, 0] + often[:, 1]) - draws, 2 * (often[:, 0] + often[:, 2]) - draws
        for wins in (0, 1):  # labels that lose a tie, and that win it
            total += (second + wins > 0).sum()
            right += ((second + wins > 0) & (first + wins > 0)).sum()
    return float((p * q).sum() / q.sum()), right / total


def given(attacked: Floats, clean: Floats, draws: int, correlation: float) -> tuple[float, float]:
    """Accuracy given clean: expected, and of the vote."""
    return _given(attacked.tobytes(), clean.tobytes(), draws, correlation)

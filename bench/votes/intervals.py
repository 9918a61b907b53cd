"""Intervals and tests for accuracies: each formula with its source.

Shares are in [0, 1]; `level` is the two-sided confidence. Images are a sample from a population,
and so are the noise draws of a randomised model: intervals are for the population's accuracy.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import scipy  # scipy.special is loaded when it is first needed
from numpy.typing import NDArray

from bench.votes.sharing import Estimate, shared_draws
from bench.votes.two_sample import drift as drift
from bench.votes.two_sample import drift_by_draw as drift_by_draw
from bench.votes.two_sample import homogeneity as homogeneity

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]


class Interval(NamedTuple):
    """A share with its interval, low <= value <= high, all in [0, 1]."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A difference of shares (a - b) with its interval in [-1, 1], and the two-sided p of no difference."""

    value: float
    low: float
    high: float
    p: float


class PairedTest(NamedTuple):
    """only_a, only_b: images that one of the two alone gets right; difference = (only_a - only_b) / n and its p."""

    only_a: int
    only_b: int
    difference: Difference


def share(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval (1927) of a binomial share, for labels of a deterministic model.

    Not Clopper-Pearson: that one never covers less than `level` but is a quarter too wide at small n;
    Wilson's covers `level` on average (Brown, Cai & DasGupta 2001) and never leaves [0, 1].
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} of {n}")
    return _score(successes / n, n, _two_sided(level))


def expected(
    correct: Ints, draws: int, shards: Ints, per_shard_draws: Ints | None = None, level: float = 0.95
) -> Interval:
    """Expected accuracy of one draw: the mean over images of the share of `draws` fresh draws that are right.

    correct (n,): right answers of each image, 0..draws; shards (n,): the shard of each image;
    per_shard_draws (shards, draws), rows in the order of the sorted shard ids: right answers of each
    draw over its shard, where one draw of noise serves all images of a shard. None: every image has
    draws of its own.

    The variance of the mean is Var(image means) / n, which holds the spread of the images and the
    independent part of the draws (images are the clusters; n * draws are not independent), plus that
    of `shared_draws`: clustering in two ways, by image and by (shard, draw) (Cameron, Gelbach &
    Miller 2011). Degrees of freedom by Satterthwaite (1946). The interval is `of_share`, because
    accuracies near 0 or 1 are skewed and it must stay in [0, 1].

    With one draw a shard its noise cannot be told from its images: the interval is then from the
    spread between shards (Student's t, shards - 1 degrees of freedom: wide for few of them). With one
    draw and one shard there is nothing to estimate it from, and the interval is [0, 1]. Two draws of
    a single shard leave one degree of freedom, and 95 % covers only about 90 % if sharing is strong.
    """
    correct, shards = np.asarray(correct), np.asarray(shards)
    n = len(correct)
    _check_counts(correct, draws, shards, per_shard_draws)
    means = correct / draws
    value = float(means.mean())
    variance = float(means.var(ddof=1)) / n if n > 1 else 0.25
    freedom = float(max(n - 1, 1))
    if per_shard_draws is not None:
        if draws == 1 and len(per_shard_draws) == 1:
            return Interval(value, 0.0, 1.0)
        shared = shared_draws(correct, draws, shards, per_shard_draws)
        if draws == 1:
            # no least variance either: an estimate of few degrees of freedom has a wide quantile as it may be too small
            found = Estimate(value, shared.variance, float(shared.df), n)
            return of_share(found, n if shared.variance == 0 else n * n, level)
        noise = variance**2 / freedom + shared.scale**2 / shared.df
        variance += shared.variance
        freedom = variance**2 / noise if noise > 0 else freedom
    return of_share(Estimate(value, variance, freedom, n), n * draws, level)


def of_share(found: Estimate, most: int, level: float = 0.95) -> Interval:
    """Wilson's interval of a mean in [0, 1] at its effective sample size, with Student's quantile; [0, 1] if unknown.

    The size is mean (1 - mean) / variance (as for clustered surveys, Korn & Graubard 1998), at most `most`: so many
    independent answers are there. Where every answer is the same it is n.
    """
    value, variance, freedom, n = found
    if variance is None:
        return Interval(value, 0.0, 1.0)
    spread = value * (1 - value)
    size = float(n) if spread <= 0 else min(float(most), spread / variance) if variance > 0 else float(most)
    return _score(value, size, float(scipy.special.stdtrit(freedom, 0.5 + _level(level) / 2)))


def of_difference(found: Estimate, level: float = 0.95) -> Difference:
    """Student's t interval of a mean in [-1, 1], and its two-sided p against 0; [-1, 1] and 1 if nothing is known."""
    value, variance, freedom, _ = found
    if variance is None:
        return Difference(value, -1.0, 1.0, 1.0)
    error = float(np.sqrt(variance))
    reach = float(scipy.special.stdtrit(freedom, 0.5 + _level(level) / 2)) * error
    p = float(2 * scipy.special.stdtr(freedom, -abs(value) / error)) if error > 0 else 0.0
    return Difference(value, max(-1.0, value - reach), min(1.0, value + reach), p)


def mcnemar(a: NDArray[Any], b: NDArray[Any], level: float = 0.95) -> PairedTest:
    """Exact McNemar test (1947) of two models' labels on the same images: a, b (n,) right or wrong.

    p is the exact binomial one of the images that only one of the two gets right; the interval of
    the difference adds a pseudo-image to either side (Bonett & Price 2012).
    """
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    n = _paired(a, b)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p, q = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    reach = _two_sided(level) * np.sqrt((p + q - (p - q) ** 2) / (n + 2))
    low, high = max(-1.0, p - q - reach), min(1.0, p - q + reach)
    test = binomial_p(only_a, only_a + only_b, 0.5) if only_a + only_b else 1.0
    return PairedTest(only_a, only_b, Difference((only_a - only_b) / n, float(low), float(high), test))


def paired_difference(a: Floats, b: Floats, level: float = 0.95) -> Difference:
    """Difference of two accuracies on the same images: a, b (n,) probabilities of being right.

    Student's paired t over images (n - 1 degrees of freedom), which holds the draws of each image if none are shared
    (`bench.votes.paired.difference` knows of shards). Where no image differs at all, the interval is
    Clopper-Pearson's for the share that would (0 of n): p is 1.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    n = _paired(a, b)
    if n < 2:
        raise ValueError("a paired difference needs two images or more")
    gap = a - b
    if not gap.any():
        most = 1 - ((1 - _level(level)) / 2) ** (1 / n)
        return Difference(0.0, -most, most, 1.0)
    return of_difference(Estimate(float(gap.mean()), float(gap.var(ddof=1)) / n, float(n - 1), n), level)


def holm(pvalues: Floats | list[float]) -> NDArray[np.float64]:
    """p-values adjusted for all being read together (Holm 1979): reject where <= alpha; in the order given."""
    p = np.asarray(pvalues, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def images_to_decide(a: Floats, b: Floats, level: float = 0.95, power: float = 0.8) -> int | None:
    """How many more images would decide a paired difference as large as the one seen; None: there is none.

    n = ((z_{1-(1-level)/2} + z_power) sd / difference)^2, the normal approximation for a paired t
    (Cohen 1988), less the images already there; 0 if they are enough.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    n = _paired(a, b)
    gap = a - b
    if n < 2 or gap.mean() == 0:
        return None
    z = _two_sided(level) + NormalDist().inv_cdf(power)
    return max(0, int(np.ceil((z * gap.std(ddof=1) / gap.mean()) ** 2)) - n)


def binomial_p(k: int, n: int, p: float) -> float:
    """Two-sided exact p of k successes in n at rate p: twice the smaller tail (as in Clopper & Pearson 1934)."""
    if not 0 <= k <= n or not 0 <= p <= 1:
        raise ValueError(f"{k} of {n} at rate {p}")
    if n == 0:
        return 1.0
    below, above = scipy.special.bdtr(k, n, p), scipy.special.bdtrc(k - 1, n, p) if k > 0 else 1.0
    return float(min(1.0, 2 * min(below, above)))


def _score(value: float, size: float, quantile: float) -> Interval:
    """Wilson's interval: the shares p with |value - p| <= quantile sqrt(p (1 - p) / size)."""
    z2 = quantile**2
    centre = (value + z2 / (2 * size)) / (1 + z2 / size)
    reach = quantile / (1 + z2 / size) * np.sqrt(value * (1 - value) / size + z2 / (4 * size**2))
    # rounding must not push an end past the value, which is 0 or 1 exactly at the extremes
    return Interval(value, float(min(value, max(0.0, centre - reach))), float(max(value, min(1.0, centre + reach))))


def _paired(a: NDArray[Any], b: NDArray[Any]) -> int:
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(f"a pair must be two arrays (n,) over the same images, not {a.shape} and {b.shape}")
    return len(a)


def _two_sided(level: float) -> float:
    """How many standard errors a normal interval of this level reaches to either side."""
    return NormalDist().inv_cdf(0.5 + _level(level) / 2)


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), not {level}")
    return level


def _check_counts(correct: Ints, draws: int, shards: Ints, per_shard_draws: Ints | None) -> None:
    if correct.ndim != 1 or not len(correct) or shards.shape != correct.shape:
        raise ValueError(f"correct and shards must be (n,), not {correct.shape} and {shards.shape}")
    if draws < 1 or correct.min() < 0 or correct.max() > draws:
        raise ValueError(f"right answers must be within 0 and the {draws} draws")
    if per_shard_draws is not None:
        count = len(np.unique(shards))
        if np.shape(per_shard_draws) != (count, draws):
            raise ValueError(f"per_shard_draws must be {(count, draws)}, not {np.shape(per_shard_draws)}")
        if int(np.sum(per_shard_draws)) != int(correct.sum()):
            raise ValueError("per_shard_draws and correct differ in how many answers were right")

"""Intervals and tests for accuracies: each formula with its source.

Shares are in [0, 1]; `level` is the two-sided confidence. Images are a sample from a population,
and so are the noise draws of a randomised model: intervals are for the population's accuracy.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, bdtrc, gammaln, ndtri, stdtr, stdtrit

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


class SharedDraws(NamedTuple):
    """variance: of the mean accuracy, from draws that images share; scale: see `shared_draws`; df: its freedom."""

    variance: float
    scale: float
    df: int


def share(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval (1927) of a binomial share, for labels of a deterministic model.

    Not Clopper-Pearson: that one never covers less than `level` but is a quarter too wide at small n;
    Wilson's covers `level` on average (Brown, Cai & DasGupta 2001) and never leaves [0, 1].
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} of {n}")
    return _score(successes / n, n, float(ndtri(0.5 + _level(level) / 2)))


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
    Miller 2011). Degrees of freedom by Satterthwaite (1946). The interval is Wilson's at the
    effective sample size mean (1 - mean) / variance and Student's quantile (as for clustered surveys,
    Korn & Graubard 1998), because accuracies near 0 or 1 are skewed and the interval must stay in
    [0, 1]. The effective size is at most n * draws (n where every answer is the same).

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
    images = float(means.var(ddof=1)) / n if n > 1 else 0.25
    freedom = float(max(n - 1, 1))
    shared = None
    if per_shard_draws is not None:
        if draws == 1 and len(per_shard_draws) == 1:
            return Interval(value, 0.0, 1.0)
        shared = shared_draws(correct, draws, shards, per_shard_draws)
    if shared is not None and draws == 1:
        variance, freedom = shared.variance, float(shared.df)
    elif shared is not None:
        variance = images + shared.variance
        noise = images**2 / freedom + shared.scale**2 / shared.df
        freedom = variance**2 / noise if noise > 0 else freedom
    else:
        variance = images
    quantile = float(stdtrit(freedom, 0.5 + _level(level) / 2))
    spread = value * (1 - value)
    if spread == 0:
        size = float(n)
    elif variance == 0:
        size = float(n * draws)
    else:
        size = spread / variance
        # the variance of n * draws independent answers is the least there can be; not imposed on an
        # estimate of few degrees of freedom, whose quantile is wide because it may come out too small
        size = size if draws == 1 else min(size, float(n * draws))
    return _score(value, size, quantile)


def shared_draws(correct: Ints, draws: int, shards: Ints, per_shard_draws: Ints) -> SharedDraws:
    """What sharing each draw over a shard adds to the variance of the mean accuracy; arguments as in `expected`.

    Per shard the variance over draws of its accuracy is c + (w - c) / size, with w the mean variance
    over draws of one image's answers and c the mean covariance of two images': so c is found from
    both, pooled over shards, and adds c * sum((size / n)^2) / draws. Never below 0. `scale` is the
    same without the correction by w, whose sampling noise is that of the estimate. With one draw it
    is the whole variance of the mean, from the spread of the shards' accuracies around it.
    """
    correct, table = np.asarray(correct), np.asarray(per_shard_draws, dtype=np.float64)
    _, which, sizes = np.unique(np.asarray(shards), return_inverse=True, return_counts=True)
    n, count = len(correct), len(sizes)
    weights = sizes / n
    accuracy = table / sizes[:, None]
    if draws == 1:
        if count < 2:
            raise ValueError("one draw of one shard says nothing about draws")
        around = accuracy[:, 0] - (accuracy[:, 0] * weights).sum()
        variance = float((weights**2 * around**2 / (1 - weights)).sum())
        # the ratio estimator's variance, each squared deviation corrected for the part of the mean it moves itself
        return SharedDraws(variance, variance, count - 1)
    means = correct / draws
    single = np.bincount(which, means * (1 - means)) / sizes * draws / (draws - 1)
    between = accuracy.var(axis=1, ddof=1)
    covariance = np.where(sizes > 1, (between - single / sizes) / np.maximum(1 - 1 / sizes, 0.5), 0.0)
    factor = weights**2 / draws
    return SharedDraws(max(0.0, float(factor @ covariance)), float(factor @ between), count * (draws - 1))


def mcnemar(a: NDArray[Any], b: NDArray[Any], level: float = 0.95) -> PairedTest:
    """Exact McNemar test (1947) of two models' labels on the same images: a, b (n,) right or wrong.

    p is the exact binomial one of the images that only one of the two gets right; the interval of
    the difference adds a pseudo-image to either side (Bonett & Price 2012).
    """
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    n = _paired(a, b)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p, q = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    reach = float(ndtri(0.5 + _level(level) / 2)) * np.sqrt((p + q - (p - q) ** 2) / (n + 2))
    low, high = max(-1.0, p - q - reach), min(1.0, p - q + reach)
    test = binomial_p(only_a, only_a + only_b, 0.5) if only_a + only_b else 1.0
    return PairedTest(only_a, only_b, Difference((only_a - only_b) / n, float(low), float(high), test))


def paired_difference(a: Floats, b: Floats, level: float = 0.95, draw_variance: float = 0.0) -> Difference:
    """Difference of two models' expected accuracies on the same images: a, b (n,) probabilities of being right.

    Student's paired t over images (n - 1 degrees of freedom). Independent draws are inside the
    per-image values; where shards share their draws, `draw_variance` is the sum of both models'
    `shared_draws(...).variance`. Where no image differs at all, the interval is Clopper-Pearson's
    for the share that would (0 of n): p is 1.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    n = _paired(a, b)
    if n < 2:
        raise ValueError("a paired difference needs two images or more")
    gap = a - b
    value = float(gap.mean())
    if not gap.any() and draw_variance == 0:
        most = 1 - ((1 - _level(level)) / 2) ** (1 / n)
        return Difference(0.0, -most, most, 1.0)
    error = float(np.sqrt(gap.var(ddof=1) / n + draw_variance))
    reach = float(stdtrit(n - 1, 0.5 + _level(level) / 2)) * error
    p = float(2 * stdtr(n - 1, -abs(value) / error)) if error > 0 else 0.0
    return Difference(value, max(-1.0, value - reach), min(1.0, value + reach), p)


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
    z = float(ndtri(0.5 + _level(level) / 2) + ndtri(power))
    return max(0, int(np.ceil((z * gap.std(ddof=1) / gap.mean()) ** 2)) - n)


def binomial_p(k: int, n: int, p: float) -> float:
    """Two-sided exact p of k successes in n at rate p: twice the smaller tail (as in Clopper & Pearson 1934)."""
    if not 0 <= k <= n or not 0 <= p <= 1:
        raise ValueError(f"{k} of {n} at rate {p}")
    if n == 0:
        return 1.0
    return float(min(1.0, 2 * min(bdtr(k, n, p), bdtrc(k - 1, n, p) if k > 0 else 1.0)))


def drift(right_a: Ints, draws_a: Ints | int, right_b: Ints, draws_b: Ints | int) -> float:
    """Has accuracy moved between two judgements of the same images? Exact two-sided p.

    right_* (n,) right answers of draws_* (n,) or int draws, independent from image to image. If both
    come from one distribution, right_a of each image given the total is hypergeometric (Fisher 1935),
    so the sum over images has a known law whatever the images' probabilities: the convolution of
    these, computed by FFT. Twice the smaller tail. For draws that a shard shares: `drift_by_draw`.
    """
    right_a, total, drawn = _totals(right_a, draws_a, right_b, draws_b)
    unique, images = np.unique(np.stack([total, *drawn]), axis=1, return_counts=True)
    statistic, mean, variance = int(right_a.sum()), 0.0, 0.0
    laws = []
    for (t, m, rest), count in zip(unique.T, images, strict=True):
        low = max(0, t - rest)
        law = _hypergeometric(int(t), int(m), int(rest))
        support = low + np.arange(len(law))
        centre = float(support @ law)
        mean, variance = mean + count * centre, variance + count * float((support - centre) ** 2 @ law)
        laws.append((low, law, int(count)))
    widest = max(len(law) for _, law, _ in laws)
    # wide enough that what wraps around is below 1e-20 (Bernstein), or that nothing can wrap
    reach = 12 * np.sqrt(variance) + 40 * widest
    everything = 1 + sum((len(law) - 1) * count for _, law, count in laws)
    length = 1 << int(np.ceil(np.log2(max(2, min(everything, 2 * reach)))))
    transform = np.ones(length // 2 + 1, dtype=np.complex128)
    for _, law, count in laws:
        transform *= np.fft.rfft(law, length) ** count
    start = sum(low * count for low, _, count in laws)
    pmf = np.maximum(np.fft.irfft(transform, length), 0.0)
    first = start if everything <= length else int(np.floor(mean)) - length // 2
    values = first + np.arange(length)
    pmf = pmf[(values - start) % length]
    return float(min(1.0, 2 * min(pmf[values <= statistic].sum(), pmf[values >= statistic].sum())))


def drift_by_draw(per_shard_a: Ints, per_shard_b: Ints, resamples: int = 1999, seed: int = 0) -> float:
    """`drift` for draws that a shard shares: per_shard_* (shards, draws_*) right answers of each draw.

    The draws of a shard are exchangeable between the two judgements if nothing has changed: a
    permutation test of the summed difference of means, two-sided. The p counts the data as one of
    its own resamples (Phipson & Smyth 2010), so it is valid at any `resamples`, and at least
    1 / (resamples + 1).
    """
    a, b = np.asarray(per_shard_a, dtype=np.float64), np.asarray(per_shard_b, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise ValueError(f"the two must be (shards, draws) of the same shards, not {a.shape} and {b.shape}")
    rng = np.random.default_rng(seed)
    both = np.concatenate([a, b], axis=1)
    split = a.shape[1]

    def gap(table: NDArray[np.float64]) -> float:
        return float(abs((table[:, :split].mean(1) - table[:, split:].mean(1)).sum()))

    seen = gap(both) - 1e-9
    return (1 + sum(gap(rng.permuted(both, axis=1)) >= seen for _ in range(resamples))) / (resamples + 1)


def homogeneity(counts_a: Ints, counts_b: Ints, resamples: int = 999, seed: int = 0) -> float:
    """Do two judgements of the same images come from one distribution of classes? Monte Carlo exact p.

    counts_* (n, classes): class counts of each image, draws independent from image to image. The
    statistic is Pearson's X^2 of each image's 2 x classes table summed over images, so it also sees
    images that moved in opposite directions, which `drift` does not. Its null law, given the margins
    of each table, is sampled (multivariate hypergeometric); p as in `drift_by_draw`.
    """
    a, b = np.asarray(counts_a, dtype=np.int64), np.asarray(counts_b, dtype=np.int64)
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"the two must be (images, classes) of the same images, not {a.shape} and {b.shape}")
    total, drawn = a + b, a.sum(1)
    open_ = ((total > 0).sum(1) > 1) & (drawn > 0) & (drawn < total.sum(1))
    if not open_.any():
        return 1.0
    a, total, drawn = a[open_], total[open_], drawn[open_]
    # the most frequent classes first: later ones are mostly empty and cost nothing
    order = np.argsort(-total, axis=1)
    a, total = np.take_along_axis(a, order, 1), np.take_along_axis(total, order, 1)
    used = int((total.sum(0) > 0).sum())
    a, total = a[:, :used], total[:, :used]
    rate = (drawn / total.sum(1))[:, None]
    weight = 1 / np.maximum(total * rate * (1 - rate), 1e-300) * (total > 0)
    rng = np.random.default_rng(seed)

    def distance(table: Ints) -> float:
        return float(((table - total * rate) ** 2 * weight).sum())

    def resampled() -> Ints:
        table = np.zeros_like(total)
        left, others = drawn.copy(), total.sum(1)
        for k in range(used - 1):
            others = others - total[:, k]
            table[:, k] = rng.hypergeometric(total[:, k], others, left)
            left = left - table[:, k]
        table[:, -1] = left
        return table

    seen = distance(a) * (1 - 1e-12)
    return (1 + sum(distance(resampled()) >= seen for _ in range(resamples))) / (resamples + 1)


def _score(value: float, size: float, quantile: float) -> Interval:
    """Wilson's interval: the shares p with |value - p| <= quantile sqrt(p (1 - p) / size)."""
    z2 = quantile**2
    centre = (value + z2 / (2 * size)) / (1 + z2 / size)
    reach = quantile / (1 + z2 / size) * np.sqrt(value * (1 - value) / size + z2 / (4 * size**2))
    # rounding must not push an end past the value, which is 0 or 1 exactly at the extremes
    return Interval(value, float(min(value, max(0.0, centre - reach))), float(max(value, min(1.0, centre + reach))))


def _hypergeometric(successes: int, drawn: int, rest: int) -> NDArray[np.float64]:
    """P(x of `drawn` are successes), of drawn + rest with `successes` among them, for x from its least value up."""
    x = np.arange(max(0, successes - rest), min(successes, drawn) + 1)
    log = _log_choose(drawn, x) + _log_choose(rest, successes - x) - _log_choose(drawn + rest, np.array(successes))
    law = np.exp(log)
    return np.asarray(law / law.sum(), dtype=np.float64)


def _log_choose(n: int, k: Ints) -> NDArray[np.float64]:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1), dtype=np.float64)


def _totals(
    right_a: Ints, draws_a: Ints | int, right_b: Ints, draws_b: Ints | int
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    a, b = np.asarray(right_a, dtype=np.int64), np.asarray(right_b, dtype=np.int64)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(f"the two must be counts (n,) of the same images, not {a.shape} and {b.shape}")
    of_a = np.broadcast_to(np.asarray(draws_a, dtype=np.int64), a.shape)
    of_b = np.broadcast_to(np.asarray(draws_b, dtype=np.int64), b.shape)
    if (a < 0).any() or (b < 0).any() or (a > of_a).any() or (b > of_b).any():
        raise ValueError("more right answers than draws")
    return a, a + b, (of_a, of_b)


def _paired(a: NDArray[Any], b: NDArray[Any]) -> int:
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(f"a pair must be two arrays (n,) over the same images, not {a.shape} and {b.shape}")
    return len(a)


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

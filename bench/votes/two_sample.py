"""Have two judgements of the same images come from one distribution? Exact two-sample tests, for audits."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy  # scipy.special is loaded when it is first needed
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]


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


def _hypergeometric(successes: int, drawn: int, rest: int) -> NDArray[np.float64]:
    """P(x of `drawn` are successes), of drawn + rest with `successes` among them, for x from its least value up."""
    x = np.arange(max(0, successes - rest), min(successes, drawn) + 1)
    log = _log_choose(drawn, x) + _log_choose(rest, successes - x) - _log_choose(drawn + rest, np.array(successes))
    law = np.exp(log)
    return np.asarray(law / law.sum(), dtype=np.float64)


def _log_choose(n: int, k: Ints) -> NDArray[np.float64]:
    gammaln = scipy.special.gammaln
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

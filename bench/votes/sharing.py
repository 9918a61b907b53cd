"""Draws that images share: what they add to the variance of a number, beside the images themselves.

One draw of noise serves all images of a shard, so their answers err together, and a mean over n images is known less
well than n independent ones would make it. Which images err together is seen in the winners of the first draws
(`Votes.winners`). Every number is a mean of values (n,), and every draw moves each value a little; the covariance of
two images' moves over the draws, averaged over the pairs of a shard, is what sharing adds. `docs/coverage.md` has the
measured coverage of the intervals made from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Moves = NDArray[np.float32 | np.float64]

LEAST = 0.75
"""Of the images' own variance: how far an estimate of sharing may go below none. Cut off at none its noise would only
ever add; without a limit it could take away what is surely there."""


class Values(NamedTuple):
    """One number's images: the number is the mean of `each` (n,), in [0, 1].

    draws: how many are behind each value, 0 for a deterministic model. moves (n, w): how far each of w >= 2 draws
    moved each value, up to a constant of the image, scaled so that the covariance of two images' moves over the w
    draws is that of their values; None where no two draws are known. shard (n,): which images shared their draws.
    """

    each: Floats
    draws: int
    moves: Moves | None
    shard: Ints

    def at(self, rows: Ints) -> Values:
        """The chosen rows, in that order."""
        if np.array_equal(rows, np.arange(len(self.each))):
            return self
        moves = None if self.moves is None else self.moves[rows]
        return Values(self.each[rows], self.draws, moves, self.shard[rows])


class Estimate(NamedTuple):
    """A mean over n images with its variance over images and draws; None where nothing tells how draws were shared."""

    value: float
    variance: float | None
    freedom: float
    n: int


class SharedDraws(NamedTuple):
    """variance: of a mean, from draws that images share; scale: what its sampling noise is relative to; df: freedom."""

    variance: float
    scale: float
    df: int


# -- what a draw moves -------------------------------------------------------------------------


def of_expected(right: Bools, draws: int) -> Moves:
    """Moves of the share of `draws` draws that are right: (n, w), from right (n, w) of the first w draws."""
    return np.asarray(right * np.float32(1 / np.sqrt(draws)), np.float32)


def of_vote(counts: Ints, labels: Ints, winners: Ints) -> Moves:
    """Moves of a majority vote being right: (n, w), from counts (n, classes) of m draws and winners (n, w).

    m draws move a vote as far as one of them would that counted sqrt(m) times more: the infinitesimal jackknife
    (Efron 2014) with the step that m draws take, because a vote has no derivative. The step is whole, as votes are. An
    image that stopped early takes the same, for as much of the m draws as it had. m / (m + 1) takes back the
    jackknife's bias, which is upwards and of order 1/m (Efron & Stein 1981).
    """
    rows, drawn = np.arange(len(labels)), counts.sum(1)
    m = int(drawn.max())
    step = max(1, round(np.sqrt(m)))
    lower = np.arange(counts.shape[1]) < labels[:, None]  # these win a tie: half a vote more, of whole ones
    rivals = counts + 0.5 * lower
    own = counts[rows, labels] + 0.0
    rivals[rows, labels] = -1
    best = rivals.max(1)
    stays = (rivals + step <= own[:, None]) & (own >= best)[:, None]  # (n, classes): if a step of draws says so
    stays[rows, labels] = own + step >= best
    scale = (np.sqrt(m / (m + 1) * m) / step * drawn / m).astype(np.float32)
    return np.asarray(stays[rows[:, None], winners] * scale[:, None], np.float32)


def of_resubmission(right: Ints, draws: int, times: int, each_right: Bools) -> Moves:
    """Moves of C(right, times) / C(draws, times): (n, w), from right (n,) of `draws` and each_right (n, w) of w draws.

    The first term of the statistic's projection (Hoeffding 1948): a wrong draw takes away what the others alone
    would have given `times` - 1 draws, `times` / draws of it.
    """
    steps = np.arange(times - 1)
    others = np.prod(np.maximum(right[:, None] - steps, 0) / (draws - 1 - steps), axis=1)
    lost = (-times / np.sqrt(draws) * others).astype(np.float32)
    return np.asarray(~each_right * lost[:, None], np.float32)


# -- what the moves of a shard have in common --------------------------------------------------


def shared(moves: Moves, shards: Ints) -> SharedDraws:
    """What sharing adds to the variance of the mean value: moves (n, w) as in `Values`, shards (n,).

    Per shard the variance over draws of the mean move is c + (s - c) / size, with s the mean variance of one image's
    moves and c the mean covariance of two images': so c is found from both, pooled over shards, and adds
    c * sum((size / n)^2). An estimate, which may be below 0. `scale` is without the correction by s.
    """
    if (shards[1:] < shards[:-1]).any():
        order = np.argsort(shards, kind="stable")
        moves, shards = moves[order], shards[order]
    starts = np.flatnonzero(np.diff(shards, prepend=shards[0] - 1))
    sizes = np.diff(starts, append=len(shards))
    around = moves - moves.mean(axis=1, keepdims=True)
    parts = [around[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    means = np.stack([np.ones(len(part), part.dtype) @ part for part in parts]).astype(np.float64) / sizes[:, None]
    single = np.array([np.vdot(part, part) for part in parts], np.float64) / sizes / (moves.shape[1] - 1)
    return _pooled(means, single, sizes, 1)


def shared_draws(correct: Ints, draws: int, shards: Ints, per_shard_draws: Ints) -> SharedDraws:
    """`shared` for the mean accuracy over all draws, from sums alone; arguments as in `intervals.expected`.

    The variance is never below 0. With one draw it is the whole variance of the mean, from the spread of the shards'
    accuracies around it.
    """
    correct, table = np.asarray(correct), np.asarray(per_shard_draws, dtype=np.float64)
    _, which, sizes = np.unique(np.asarray(shards), return_inverse=True, return_counts=True)
    if draws == 1:
        found = between(correct.astype(np.float64), shards)
        if found is None:
            raise ValueError("one draw of one shard says nothing about draws")
        return found
    means = correct / draws
    single = np.bincount(which, means * (1 - means)) / sizes * draws / (draws - 1)
    variance, scale, df = _pooled(table / sizes[:, None], single, sizes, draws)
    return SharedDraws(max(0.0, variance), scale, df)


def _pooled(means: Floats, single: Floats, sizes: Ints, draws: int) -> SharedDraws:
    """From the shards' mean moves (shards, w): see `shared`; `draws` of them make the value."""
    spread = means.var(axis=1, ddof=1)
    covariance = np.where(sizes > 1, (spread - single / sizes) / np.maximum(1 - 1 / sizes, 0.5), 0.0)
    factor = (sizes / sizes.sum()) ** 2 / draws
    return SharedDraws(float(factor @ covariance), float(factor @ spread), len(sizes) * (means.shape[1] - 1))


def between(each: Floats, shards: Ints) -> SharedDraws | None:
    """The whole variance of the mean of `each` (n,), from the spread of the shards' means; None for one shard.

    The ratio estimator's variance, each squared deviation corrected for the part of the mean that it moves itself.
    """
    _, which, sizes = np.unique(np.asarray(shards), return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        return None
    weights = sizes / len(each)
    around = np.bincount(which, each) / sizes - each.mean()
    variance = float((weights**2 * around**2 / (1 - weights)).sum())
    return SharedDraws(variance, variance, len(sizes) - 1)


# -- a number, or a sum of several -------------------------------------------------------------


def estimate(each: Floats, parts: Sequence[tuple[float | Floats, Values]]) -> Estimate:
    """The mean of `each` (n,) with its variance; parts: what it is made of, with its derivative by each part's values.

    The variance is Var(each) / n, which holds the spread of the images and what each image's draws do to it alone,
    plus what they do to all of a shard: clustering in two ways (Cameron, Gelbach & Miller 2011), degrees of freedom by
    Satterthwaite (1946). Draw j of a shard is one noise for all parts, so their moves are added draw by draw; where
    the parts' shards differ the most that it could be is taken. Where some part has no moves, the spread between
    shards is all there is, and with one shard there is nothing.
    """
    n, value = len(each), float(each.mean())
    random = [(slope, part) for slope, part in parts if part.draws]
    if n < 2:
        return Estimate(value, None, 1.0, n)
    images = float(each.var(ddof=1)) / n
    if not random:
        return Estimate(value, images, float(n - 1), n)
    alike = all((part.shard == random[0][1].shard).all() for _, part in random)
    if any(part.moves is None for _, part in random):
        found = between(each, random[0][1].shard) if alike else None
        return Estimate(value, found and found.variance, float(found.df) if found else 1.0, n)
    if alike:
        found = _together(random)
    else:
        alone = [_together([one]) for one in random]
        most = [sum(np.sqrt(max(0.0, one[i])) for one in alone) ** 2 for i in (0, 1)]
        found = SharedDraws(float(most[0]), float(most[1]), min(one.df for one in alone))
    variance = max(LEAST * images, images + found.variance)
    noise = images**2 / (n - 1) + found.scale**2 / found.df
    return Estimate(value, variance, variance**2 / noise if noise > 0 else float(n - 1), n)


def _together(parts: Sequence[tuple[float | Floats, Values]]) -> SharedDraws:
    """What parts that share their draws have in common, from draw to draw; a part of fewer draws ends before."""
    found, since = SharedDraws(0.0, 0.0, 1), 0
    for until in sorted({part.draws for _, part in parts}):
        open_ = [(slope, part) for slope, part in parts if part.draws >= until]
        known = min(part.moves.shape[1] for _, part in open_ if part.moves is not None)
        moves: Any = None
        for slope, part in open_:
            assert part.moves is not None
            weight = np.asarray(slope * np.sqrt((until - since) / part.draws), np.float32)
            moved = part.moves[:, :known] * np.reshape(weight, (-1, 1))
            moves = moved if moves is None else moves + moved
        now = shared(moves, open_[0][1].shard)
        df = min(found.df, now.df) if since else now.df
        found, since = SharedDraws(found.variance + now.variance, found.scale + now.scale, df), until
    return found


def with_two_more(found: Estimate, gaps: Floats) -> Estimate:
    """`found` of differences of right and wrong (n,), each -1, 0 or 1, with two more images: half a one in each cell.

    So (Agresti & Min 2005) an interval covers although few images differ; the draws' part stays as it is. A whole one
    to either side (Bonett & Price 2012) covers up to 98 % where a handful differ.
    """
    if found.variance is None:
        return found
    n = found.n
    mean = float(gaps.sum()) / (n + 2)
    images = ((float((gaps**2).sum()) + 1) / (n + 2) - mean**2) / (n + 2)
    return found._replace(value=mean, variance=found.variance + max(0.0, images - float(gaps.var(ddof=1)) / n))

"""Votes to numbers: every figure the project prints is one of these folds over aligned votes.

Five quantities of a randomised classifier, never confused. With p_c(x) the probability that one
draw says class c and y the label: expected accuracy, the mean of p_y; M-vote accuracy, how often
the winner of M draws is y; infinite-vote accuracy, how often y is the most likely class, known
only up to the images that M draws leave undecided; resubmission accuracy, the mean of p_y^n; and
what the attack itself believed. Ties belong to the lowest class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.votes import intervals, sharing
from bench.votes.matching import rows as rows
from bench.votes.sharing import Estimate, Values, estimate
from bench.votes.stopping import ppr
from bench.votes.votes import Votes

Kind = Literal["accuracy", "expected", "vote", "soft", "claimed"]
Floats = NDArray[np.float64]
LEVEL = 0.95
SETTLED = 0.1  # of the images, below which the vote of infinitely many draws is not known well enough to be a number


class Number(NamedTuple):
    """A share in [0, 1] with its confidence interval, the images it is of, and the records behind it."""

    value: float
    low: float
    high: float
    n: int
    kind: str
    keys: tuple[str, ...] = ()

    @property
    def half(self) -> float:
        """The longer arm of the interval: what stands after the plus-minus sign."""
        return max(self.value - self.low, self.high - self.value)


class Missing(NamedTuple):
    """A number that is not there, and why. It prints as a dash, never as 0."""

    reason: str


class Bounds(NamedTuple):
    """Infinite-vote accuracy: `sure` of the n images are right, `undecided` may be.

    Accuracy is in [sure, sure + undecided] for these images; [low, high] adds the sampling of images.
    """

    sure: float
    undecided: float
    low: float
    high: float
    n: int


def fold(votes: Votes, kind: str, keys: tuple[str, ...] = (), level: float = LEVEL) -> Number | Missing:
    """The number of this kind with its `level` interval.

    accuracy: of a deterministic model. expected: mean over images of the share of the prefix draws
    that are right. vote, soft: of the class with most draws, or the largest mean softmax. claimed:
    the share of images that the attack did not believe it had fooled. Intervals are score intervals;
    those of expected, vote and soft count the draws that a shard's images share, and are [0, 1] where
    one draw of one shard tells nothing of draws. ValueError for an unknown kind.
    """
    if kind in ("vote", "soft") and votes.rule not in ("", kind) and (votes.drawn < votes.drawn.max()).any():
        return Missing(f"its draws ended once the {votes.rule} rule was settled, which does not settle the {kind} rule")
    if kind == "expected":
        often = _right(votes.prefix, votes)
        interval = intervals.expected(often, votes.prefix_draws, votes.shard, votes.draw_right, level)
        return Number(*interval[:3], len(votes.labels), kind, keys)
    if kind == "claimed" and (votes.claimed < 0).any():
        return Missing("no attack made these images" if (votes.claimed < 0).all() else "not claimed for every image")
    if kind == "accuracy" and votes.drawn.max() > 1:
        return Missing(f"judged over {votes.drawn.max()} draws: ask for expected, vote or soft")
    if kind in ("vote", "soft"):
        found = values(votes, kind)
        return _share(estimate(found.each, [(1.0, found)]), kind, keys=keys, level=level)
    right = correct(votes, kind)
    interval = intervals.share(int(right.sum()), len(right), level)
    return Number(*interval[:3], len(right), kind, keys)


def correct(votes: Votes, kind: str) -> Floats:
    """How right each image is (n,): 0 or 1, or for "expected" the share of its prefix draws in [0, 1]."""
    match kind:
        case "expected":
            return np.asarray(_right(votes.prefix, votes) / votes.prefix_draws, np.float64)
        case "accuracy" | "vote" | "soft":
            return np.asarray(predicted(votes, kind) == votes.labels, np.float64)
        case "claimed":
            return np.asarray(votes.claimed == 0, np.float64)
    raise ValueError(f"no number of kind {kind!r}")


def values(votes: Votes, kind: str) -> Values:
    """The images of a number of this kind with what its draws did to them; `claimed` as if nothing were shared."""
    each, labels, winners = correct(votes, kind), votes.labels, votes.winners
    draws = {"expected": votes.prefix_draws, "accuracy": 0, "claimed": 0}.get(kind, int(votes.drawn.max()))
    moves = None
    if winners is not None and draws > 1:
        if kind == "expected":
            moves = sharing.of_expected(winners == labels[:, None], draws)
        else:  # the soft vote crosses its boundary where the vote does, if draws shift both alike
            moves = sharing.of_vote(votes.counts, labels, winners)
    return Values(each, draws, moves, votes.shard)


def predicted(votes: Votes, kind: str) -> NDArray[np.int64]:
    """The class of each image (n,): of the largest mean softmax for "soft", else of most draws."""
    return np.asarray(votes.soft if kind == "soft" else votes.counts.argmax(1), np.int64)


def agreement(votes: Votes, winner: NDArray[np.integer[Any]]) -> Floats:
    """The share (n,) of draws that say `winner` (n,), of the prefix: draws that end where they agree agree too well."""
    return np.asarray(votes.prefix[np.arange(len(winner)), winner] / votes.prefix_draws, np.float64)


def tied(votes: Votes) -> int:
    """Images whose vote is a tie, given to the lowest class."""
    top = np.sort(votes.counts, axis=1)
    return int((top[:, -1] == top[:, -2]).sum())


def infinite(votes: Votes, alpha: float = 1e-3, level: float = LEVEL) -> Bounds | Missing:
    """The accuracy of a randomised model's vote of infinitely many draws, as far as these draws tell.

    PPR-1v1 (Jain et al. 2022) settles each image with error at most `alpha`; what is open is undecided and not guessed.
    The outer interval is the score interval of either end. Missing where fewer than SETTLED of the images are settled.
    """
    n = len(votes.labels)
    decided, winner, *_ = ppr(votes.counts, alpha)
    if decided.mean() < SETTLED:
        which = f"only {100 * decided.mean():.0f} % of the images'" if decided.any() else "no image's"
        early = "" if not votes.rule else f", because the {votes.rule} rule ended them: infinite = true goes on"
        return Missing(f"{votes.drawn.max()} draws settle {which} vote of infinitely many{early}")
    sure = int((decided & (winner == votes.labels)).sum())
    open_ = int((~decided).sum())
    low, high = intervals.share(sure, n, level).low, intervals.share(sure + open_, n, level).high
    return Bounds(sure / n, open_ / n, low, high, n)


def undecided(votes: Votes, alpha: float = 1e-3) -> float:
    """The share of images whose vote of infinitely many draws these draws leave open."""
    return float(1 - ppr(votes.counts, alpha).decided.mean())


def resubmission(votes: Votes, times: int, level: float = LEVEL) -> Number | Missing:
    """Accuracy where an attacker may send each image `times` times: the mean of p^times.

    C(right, times) / C(drawn, times) is each image's unbiased estimate from the prefix draws, which
    no stopping rule cuts short.
    """
    draws = votes.prefix_draws
    if times > draws:
        return Missing(f"needs {times} draws an image, {draws} were made")
    right = _right(votes.prefix, votes)
    steps, moves = np.arange(times), None
    each = np.prod(np.maximum(right[:, None] - steps, 0) / (draws - steps), axis=1)
    if votes.winners is not None and draws > 1:
        moves = sharing.of_resubmission(right, draws, times, votes.winners == votes.labels[:, None])
    found = estimate(each, [(1.0, Values(each, draws, moves, votes.shard))])
    return _share(found, f"resubmission {times}", most=len(each) * draws, level=level)


def among(votes: Votes, kind: str, at: NDArray[np.int64], level: float = LEVEL) -> Number | Missing:
    """The number of this kind of some of a record's images, by their rows `at`."""
    whole = fold(votes, kind, level=level)
    if isinstance(whole, Missing) or len(at) == whole.n:
        return whole
    if not len(at):
        return Missing("no image is in both records")
    part = values(votes, kind).at(at)
    most = len(at) * part.draws if kind == "expected" else len(at)
    return _share(estimate(part.each, [(1.0, part)]), kind, most=most, level=level)


def worst(several: Sequence[Votes], kind: str, level: float = LEVEL) -> Number | Missing:
    """Accuracy when each image meets the attack that is worst for it: the per-image minimum.

    Right for deterministic targets. For a randomised one the minimum chooses by the very draws it
    reports, so it is biased low (up to 10 points with no effect at all at p = 0.5): there let the
    attack `worst` choose by selection draws, and judge its examples by fresh ones.
    """
    chosen = rows(*several)
    if not len(chosen[0]):
        return Missing("the attacks' records share no image")
    least = np.min([correct(votes, kind)[at] for votes, at in zip(several, chosen, strict=True)], axis=0)
    draws = 0 if kind == "accuracy" else 1  # a minimum has no moves: of shared draws the spread between shards tells
    part = Values(least, draws, None, several[0].shard[chosen[0]])
    return _share(estimate(least, [(1.0, part)]), kind, level=level)


def given_clean(votes: Votes, clean: Votes, kind: str, level: float = LEVEL) -> Number | Missing:
    """Accuracy among the images that the model gets right without an attack.

    For "expected" each image weighs by its clean probability, sum(p q) / sum(p), less what draws that both
    records share would add to the product; for the others it is a share of the initially correct. The interval is
    the delta method's for a ratio.
    """
    at, at_clean = rows(votes, clean)
    if not len(at):
        return Missing("no image is in both records")
    attacked, weights = values(votes, kind).at(at), values(clean, kind).at(at_clean)
    total = float(weights.each.sum())
    if total == 0:
        return Missing("no image is right without an attack")
    both = attacked.each * weights.each
    if kind == "expected" and attacked.draws > 1 and weights.draws > 1:
        both = both - _same_draws(attacked, weights)
    ratio, weight = min(1.0, max(0.0, float(both.sum()) / total)), total / len(both)
    each = (both - ratio * weights.each) / weight
    found = estimate(each, [(weights.each / weight, attacked), ((attacked.each - ratio) / weight, weights)])
    kept = len(both) if kind == "expected" else int(total)
    most = kept * max(1, attacked.draws) if kind == "expected" else kept
    return _share(found._replace(value=ratio, n=kept), kind, most=most, level=level)


def _same_draws(a: Values, b: Values) -> Floats:
    """What the draws that a and b share add to the product of their means, image by image (n,).

    Streams are hashed from seed, shard and draw, so records of equal shards meet the same noise: E[mean a * mean b]
    is p q + Cov / max(draws).
    """
    if a.moves is None or b.moves is None or (a.shard != b.shard).any():
        return np.zeros(len(a.each))
    known = min(a.moves.shape[1], b.moves.shape[1])
    first, second = a.moves[:, :known], b.moves[:, :known]
    product = (first - first.mean(1, keepdims=True)) * (second - second.mean(1, keepdims=True))
    scale = np.sqrt(a.draws * b.draws) / max(a.draws, b.draws)
    return np.asarray(product.sum(1, dtype=np.float64) / (known - 1) * scale, np.float64)


def _share(
    found: Estimate, kind: str, *, most: int | None = None, keys: tuple[str, ...] = (), level: float = LEVEL
) -> Number:
    interval = intervals.of_share(found, found.n if most is None else most, level)
    return Number(*interval[:3], found.n, kind, keys)


def _right(counts: NDArray[Any], votes: Votes) -> NDArray[np.int64]:
    return np.asarray(counts[np.arange(len(votes.labels)), votes.labels], np.int64)

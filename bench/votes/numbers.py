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
import scipy  # scipy.special is loaded when it is first needed
from numpy.typing import NDArray

from bench.votes import intervals
from bench.votes.stopping import ppr
from bench.votes.votes import Votes

Kind = Literal["accuracy", "expected", "vote", "soft", "claimed"]
Floats = NDArray[np.float64]
LEVEL = 0.95


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
    that are right; the interval counts images and the draws a shard shares. vote, soft: of the
    class with most draws, or the largest mean softmax. claimed: the share of images that the attack
    did not believe it had fooled. The last four have an exact or score interval over images.
    ValueError for an unknown kind.
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
    right = votes.claimed == 0 if kind == "claimed" else correct(votes, kind)
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

    PPR-1v1 (Jain et al. 2022) settles each image with error at most `alpha`; what is open is
    undecided and not guessed. The outer interval is the score interval of either end. Missing where
    no image is settled: "0 to 100 %" is no number.
    """
    n = len(votes.labels)
    decided, winner, *_ = ppr(votes.counts, alpha)
    if not decided.any():
        return Missing(f"{votes.drawn.max()} draws settle no image's vote of infinitely many")
    sure = int((decided & (winner == votes.labels)).sum())
    open_ = int((~decided).sum())
    low, high = intervals.share(sure, n, level).low, intervals.share(sure + open_, n, level).high
    return Bounds(sure / n, open_ / n, low, high, n)


def resubmission(votes: Votes, times: int, level: float = LEVEL) -> Number | Missing:
    """Accuracy where an attacker may send each image `times` times: the mean of p^times.

    C(right, times) / C(drawn, times) is each image's unbiased estimate from the prefix draws, which
    no stopping rule cuts short. The interval is Student's t over images.
    """
    if times > votes.prefix_draws:
        return Missing(f"needs {times} draws an image, {votes.prefix_draws} were made")
    right = _right(votes.prefix, votes).astype(np.float64)
    steps = np.arange(times)
    each = np.prod(np.maximum(right[:, None] - steps, 0) / (votes.prefix_draws - steps), axis=1)
    return _mean(each, f"resubmission {times}", level)


def shared_variance(votes: Votes) -> float:
    """What the draws that a shard's images share add to the variance of the expected accuracy."""
    if votes.prefix_draws == 1 and len(votes.draw_right) == 1:
        return 0.25  # one draw of one shard: nothing to estimate it from, so the most it can be
    right = _right(votes.prefix, votes)
    return intervals.shared_draws(right, votes.prefix_draws, votes.shard, votes.draw_right).variance


def rows(*several: Votes) -> list[NDArray[np.int64]]:
    """For each votes, the rows of the images that all of them hold, in the same order.

    Images are matched by their place in the dataset, so pairing survives another shuffle or a
    subset. ValueError if they disagree on a label.
    """
    shared = several[0].index
    for votes in several[1:]:
        shared = np.intersect1d(shared, votes.index)
    chosen = []
    for votes in several:
        order = np.argsort(votes.index)
        at = order[np.searchsorted(votes.index, np.sort(shared), sorter=order)]
        chosen.append(np.asarray(at, np.int64))
    labels = several[0].labels[chosen[0]]
    if any((votes.labels[at] != labels).any() for votes, at in zip(several, chosen, strict=True)):
        raise ValueError("the records give one image different labels")
    return chosen


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
    return _mean(least, kind, level)


def given_clean(votes: Votes, clean: Votes, kind: str, level: float = LEVEL) -> Number | Missing:
    """Accuracy among the images that the model gets right without an attack.

    For "expected" each image weighs by its clean probability, sum(p q) / sum(p), with the delta
    method's interval for a ratio; for the others it is a share of the initially correct.
    """
    at, at_clean = rows(votes, clean)
    if not len(at):
        return Missing("no image is in both records")
    right, weight = correct(votes, kind)[at], correct(clean, kind)[at_clean]
    total = weight.sum()
    if total == 0:
        return Missing("no image is right without an attack")
    if kind != "expected":
        kept = right[weight > 0]
        return Number(*intervals.share(int(kept.sum()), len(kept), level)[:3], len(kept), kind)
    ratio = float((right * weight).sum() / total)
    mean = _mean((right - ratio) * weight * len(weight) / total, kind, level)
    return Number(ratio, max(0.0, ratio - mean.half), min(1.0, ratio + mean.half), len(weight), kind)


def _mean(each: Floats, kind: str, level: float) -> Number:
    n, value = len(each), float(each.mean())
    if n < 2:
        return Number(value, 0.0, 1.0, n, kind)
    if ((each == 0) | (each == 1)).all():
        return Number(*intervals.share(int(each.sum()), n, level)[:3], n, kind)
    half = float(scipy.special.stdtrit(n - 1, (1 + level) / 2) * each.std(ddof=1) / np.sqrt(n))
    return Number(value, max(0.0, value - half), min(1.0, value + half), n, kind)


def _right(counts: NDArray[Any], votes: Votes) -> NDArray[np.int64]:
    return np.asarray(counts[np.arange(len(votes.labels)), votes.labels], np.int64)

"""When is the vote of M draws settled? Sequential tests that stop an image early.

The question is always about the decision that all M draws would give: conditional on which
M draws there are, their order is a uniform permutation, so the draws seen so far are a sample
without replacement from a finite population (Waudby-Smith & Ramdas 2020, arXiv 2006.04347).
Every test here is anytime-valid: it may be looked at after any draw or only at block ends, and
P(the decision stopped at differs from the M-draw decision) <= alpha for each image, whatever
the population. `ppr` alone asks about infinitely many draws.

Ties belong to the lowest class. `alpha` is per image; counts are (n, classes) integers whose
rows add up to `drawn`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy  # scipy.special is loaded when it is first needed
from numpy.typing import NDArray

from bench.votes.stopping_tables import boundaries

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: `Stopping.how`, in this order
HOW = ("open", "curtailed", "majority", "pairs", "e-process", "betting")
METHODS = ("default", "curtailed", "e-process")

_BETS = np.array([0.12, 0.25, 0.45, 0.7, 0.97])  # fractions of the largest safe bet
_EXACT_FROM, _EXACT_UP_TO = 4, 2048  # draws, to keep the tables of the exact boundaries quick to make
_PAIRED_CLASSES = 16  # up to which the soft rule tests every pair: its state grows with the square


class Stopping(NamedTuple):
    """decided (n,) bool; winner (n,) the current leader, final where decided; how (n,) index into HOW."""

    decided: Bools
    winner: NDArray[np.int64]
    how: NDArray[np.int8]


def decide(counts: Ints, drawn: int, total: int, alpha: float = 1e-3, method: str = "default") -> Stopping:
    """Which images' `total`-draw vote is settled after `drawn` draws.

    "default" stops at whichever comes first: exact curtailment; the leader's count crossing the
    exact boundary against all others together; its count crossing an exact boundary against every
    rival by itself (`boundaries`; beyond 2,048 draws, whose tables would take seconds, the e-process).
    "curtailed" makes no error at all; "e-process" is the closed-form mixture test. Raises ValueError
    for impossible counts, alpha or method.
    """
    counts = _checked(counts, drawn, total, alpha)
    stops = [curtailed(counts, drawn, total)]
    if method == "default" and _EXACT_FROM <= total <= _EXACT_UP_TO:
        stops += [_majority(counts, drawn, total, alpha), _pairs(counts, drawn, total, alpha)]
    elif method in ("default", "e-process"):
        stops += [e_process(counts, drawn, total, alpha)]
    elif method != "curtailed":
        raise ValueError(f"method {method!r} is not one of {METHODS}")
    decided = np.logical_or.reduce([stop.decided for stop in stops])
    how = np.select([stop.decided for stop in stops], [stop.how for stop in stops], 0).astype(np.int8)
    return Stopping(decided, stops[0].winner, how)


def curtailed(counts: Ints, drawn: int, total: int) -> Stopping:
    """Settled because the draws left cannot change the vote: no error, at best half the draws."""
    counts = _checked(counts, drawn, total)
    winner, lead = _leads(counts)
    # equality is enough against a rival of a higher class, which loses the tie
    needed = total - drawn + (np.arange(counts.shape[1]) < winner[:, None])
    return _stopping(np.all(lead >= needed, axis=1), winner, "curtailed")


def e_process(counts: Ints, drawn: int, total: int, alpha: float) -> Stopping:
    """Leader against all others together, by a mixture likelihood ratio without replacement.

    For the null "class i gets N_i <= total/2 of the votes" and s of m draws for i, f = m - s, the
    probability of the very sequence seen is (N)_s (total-N)_f / (total)_m, with falling factorials,
    largest at N = total/2 while s > f; a uniform mixture over the rate gives it B(s+1, f+1). Their
    ratio is an e-process (Waudby-Smith & Ramdas 2020, section 2); Ville's inequality and a union
    over the classes stop at classes/alpha. With the prior kept to rates over 1/2.
    """
    counts = _checked(counts, drawn, total, alpha)
    winner = counts.argmax(1)
    s = counts.max(1).astype(float)
    f, half = drawn - s, total // 2
    null = _log_falling(half, s) + _log_falling(total - half, f) - _log_falling(total, np.float64(drawn))
    with np.errstate(divide="ignore"):
        above = np.log(2 * scipy.special.betaincc(s + 1, f + 1, 0.5))
    evidence = scipy.special.betaln(s + 1, f + 1) + above - null
    return _stopping((s > f) & (evidence >= np.log(counts.shape[1] / alpha)), winner, "e-process")


def ppr(counts: Ints, alpha: float) -> Stopping:
    """Is the leader the most likely class of infinitely many draws? PPR-1v1 (Jain et al. 2022, arXiv 2109.05047).

    Settled when, against every rival j, the Beta(s_i + 1, s_j + 1) density at 1/2 is at most
    alpha / (classes - 1): the prior-posterior ratio of the pair's rate is a martingale at its true
    value. P(ever settled on a class that is not the mode) <= alpha. An image still open is
    undecided: it belongs in the interval of the infinite-vote accuracy, not in a guess.
    """
    counts = _checked(counts, None, None, alpha)
    winner, _ = _leads(counts)
    s, f = counts.max(1).astype(float)[:, None], counts.astype(float)
    density = -(s + f) * np.log(2) - scipy.special.betaln(s + 1, f + 1)
    settled = density <= np.log(alpha / (counts.shape[1] - 1))
    settled[np.arange(len(winner)), winner] = True
    return _stopping(settled.all(1) & (s[:, 0] > np.sort(f, axis=1)[:, -2]), winner, "pairs")


def _majority(counts: Ints, drawn: int, total: int, alpha: float) -> Stopping:
    tables = boundaries(total, alpha, counts.shape[1])
    return _stopping(counts.max(1) >= tables.majority[drawn], counts.argmax(1), "majority")


def _pairs(counts: Ints, drawn: int, total: int, alpha: float) -> Stopping:
    tables = boundaries(total, alpha, counts.shape[1])
    winner, _ = _leads(counts)
    top = counts.max(1)[:, None]
    pair = np.minimum(top + counts, total)  # the leader against itself is no pair
    row = np.searchsorted(tables.sizes, np.minimum(total - (drawn - pair), total))
    settled = top >= tables.pairs[row, pair]
    settled[np.arange(len(winner)), winner] = True
    return _stopping(settled.all(1), winner, "pairs")


class SoftState(NamedTuple):
    """Running state of the soft rule.

    sums (n, classes): of the probabilities; margins (n, classes, rivals) and stakes (n, classes, rivals, bets):
    of each class against each rival, or against the largest of them (rivals = 1) if classes are many; drawn.
    """

    sums: Floats
    margins: Floats
    stakes: Floats
    drawn: int


def soft_start(images: int, classes: int) -> SoftState:
    """State before the first draw."""
    rivals = classes if classes <= _PAIRED_CLASSES else 1
    margins = np.zeros((images, classes, rivals))
    stakes = np.full((images, classes, rivals, len(_BETS)), 1 / len(_BETS))
    if rivals > 1:
        stakes[:, np.arange(classes), np.arange(classes)] = np.inf  # no class is its own rival
    return SoftState(np.zeros((images, classes)), margins, stakes, 0)


def soft_update(state: SoftState, probs: NDArray[np.floating[Any]], total: int) -> SoftState:
    """State after more draws: probs (draws, n, classes), each row a softmax. ValueError beyond `total` draws.

    Betting without replacement (Waudby-Smith & Ramdas 2020; 2023, arXiv 2010.09686). If w wins the
    mean softmax and i does not, the margins y = s_i - s_w, in [-1, 1], add up to at most 0 over all
    draws: given the past their mean is at most v = -(sum so far) / (draws left), and
    1 + b (y - v) / (1 + v) with 0 <= b < 1 is non-negative with mean <= 1. Their running product is an
    e-process, and so is its mixture over b. With many classes y = s_i - max_{j != i} s_j, no larger,
    stands for all pairs. The first draw is the opening stake of i, s_i + 1 / (2 (classes - 1)): its
    mean over draws, summed over all wrong classes, is at most (1 - mean s_w) + 1/2 <= 3/2, so by
    Ville's inequality a union over all classes costs a factor of 3/2.
    """
    sums, margins, stakes, drawn = state
    stakes = stakes.copy()
    for draw in np.asarray(probs, dtype=np.float64):
        if drawn >= total:
            raise ValueError(f"more than {total} draws")
        y = _margins(draw, margins.shape[2])
        if drawn == 0:
            stakes *= (draw + 0.5 / (draw.shape[1] - 1))[:, :, None, None]
        else:
            v = -margins / (total - drawn)
            inside = v > -1
            gain = np.divide(y - v, 1 + v, out=np.zeros_like(v), where=inside)
            with np.errstate(over="ignore"):  # a stake beyond the largest float is decided all the same
                stakes *= 1 + _BETS * np.maximum(gain, -1.0)[..., None]
            # the draws left cannot undo the lead; at v = -1 they still could, every one with y = -1
            stakes[(v < -1) | (~inside & (y > -1))] = np.inf
        sums, margins, drawn = sums + draw, margins + y, drawn + 1
    return SoftState(sums, margins, stakes, drawn)


def soft_decide(state: SoftState, total: int, alpha: float = 1e-3) -> Stopping:
    """Which images' argmax of the mean softmax over `total` draws is settled.

    Either the lead in summed probability is more than the draws left (no error), or the leader's
    e-processes against all rivals (see `soft_update`) have reached 3 / (2 alpha): P(wrong) <= alpha.
    """
    _check_level(alpha)
    leader, lead = _leads(state.sums)
    exact = (lead > total - state.drawn).all(1) | (state.drawn == total)
    evidence = state.stakes[np.arange(len(leader)), leader].sum(-1).min(1)
    by_bets = evidence >= 1.5 / alpha
    how = np.select([exact, by_bets], [HOW.index("curtailed"), HOW.index("betting")], 0).astype(np.int8)
    return Stopping(exact | by_bets, leader, how)


def soft_rows(state: SoftState, keep: Bools | Ints) -> SoftState:
    """The state of some of the images, such as those still open."""
    return SoftState(state.sums[keep], state.margins[keep], state.stakes[keep], state.drawn)


def _margins(draw: Floats, rivals: int) -> Floats:
    """Each class's lead (n, classes, rivals) over each class, or over the largest other one (rivals = 1)."""
    if rivals > 1:
        return np.asarray(draw[:, :, None] - draw[:, None, :])
    top = np.partition(draw, -2, axis=1)[:, -2:]
    best = np.arange(draw.shape[1]) == draw.argmax(1)[:, None]
    return np.asarray(draw - np.where(best, top[:, :1], top[:, 1:]))[:, :, None]


def _leads(counts: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Leader (n,), the lowest class of a tie, and its lead over each class (n, classes), infinite over itself."""
    winner = counts.argmax(1)
    lead = counts.max(1)[:, None] - counts.astype(np.float64)
    lead[np.arange(len(winner)), winner] = np.inf
    return winner, lead


def _stopping(decided: Bools, winner: NDArray[np.int64], how: str) -> Stopping:
    return Stopping(decided, winner, np.where(decided, HOW.index(how), 0).astype(np.int8))


def _log_falling(a: int, k: NDArray[np.float64] | np.float64) -> Floats:
    """log a (a-1) ... (a-k+1); -inf where k > a."""
    inside = scipy.special.gammaln(a + 1) - scipy.special.gammaln(np.maximum(a - k, 0) + 1)
    return np.asarray(np.where(k <= a, inside, -np.inf), dtype=np.float64)


def _checked(counts: Ints, drawn: int | None, total: int | None, alpha: float = 0.5) -> NDArray[np.int64]:
    _check_level(alpha)
    table = np.asarray(counts).astype(np.int64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(f"counts must be (images, two or more classes), not {table.shape}")
    if drawn is not None and total is not None:
        if not 0 <= drawn <= total:
            raise ValueError(f"{drawn} draws of {total}")
        if (table.sum(1) != drawn).any() or (table < 0).any():
            raise ValueError(f"each row of counts must add up to the {drawn} draws made")
    return table


def _check_level(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), not {alpha}")

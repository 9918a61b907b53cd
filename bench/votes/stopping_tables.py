"""Exact boundaries at which the vote of a fixed number of draws may be called early.

Conditional on which `total` draws there are, their order is a uniform permutation: the votes of a
class among the first k are a walk of hypergeometric steps, whose distribution on the lattice is
computed here draw by draw. `stopping` applies the tables; this module makes them and proves them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]

_REST_SHARE = 0.75  # of alpha for leader against rest; what is left goes to leader against each rival
_FIRST_SHARE = 0.2  # of a boundary's alpha for the first look that can stop
_PAIR_STEPS = 32  # boundaries of the pairwise test, over the number of draws the pair may get


class Boundaries(NamedTuple):
    """majority (total+1,): stop when the leader's count after m draws is at least majority[m].

    pairs (steps, total+1), sizes (steps,) ascending: stop when, against every rival, the leader's
    count is at least pairs[g, k], with k the pair's draws so far and sizes[g] the smallest size not
    below the number of draws the pair can have in the end (`total` less those of other classes).
    """

    majority: NDArray[np.int64]
    pairs: NDArray[np.int64]
    sizes: NDArray[np.int64]


@lru_cache(maxsize=32)
def boundaries(total: int, alpha: float, classes: int) -> Boundaries:
    """Exact group-sequential boundaries for the `total`-draw vote (Lan & DeMets 1983, on the lattice).

    The number of votes for i among the first k of a population with N_i votes of T is a
    hypergeometric walk; its exact distribution, less the paths already stopped, is carried forward
    and at each k the lowest boundary is taken that keeps the error spent under a schedule close to
    that of the Bayes-optimal rule (a fifth at the first possible look, then log-linear in k).

    Why the total error is at most alpha. Let w win the full vote. A wrong i has N_i <= N_w, hence
    N_i <= total/2, and stopping on it means crossing the majority boundary, with probability A(N_i),
    or crossing the pair's boundary against w, with probability G(N_i, N_w). The pair's final size is
    never above the size used, and a running maximum makes boundaries rise with the size, so crossing
    the one used implies crossing the one of the true size. At most
    (total - N_w) / N_w rivals can be as large as w: so A(h) + G(h, h) <= alpha h / (total - h) is
    what each pair's schedule is held to (and never less than alpha / (classes - 1)). Smaller rivals
    cross so much less often that more of them do not make up for it: `worst_case` computes the bound.
    """
    half = total // 2
    majority = _spend(np.array([total]), np.array([half]), np.array([_REST_SHARE * alpha]), first=True)[0]
    step = max(2, -(-total // _PAIR_STEPS))
    sizes = np.arange(total, 1, -step)[::-1].astype(np.int64)
    level = (sizes + 1) // 2
    spent = crossing(majority, np.full(len(sizes), total), np.minimum(level, half))
    rivals = np.minimum((total - sizes / 2) / (sizes / 2), max(1, classes - 1))
    budget = np.maximum(alpha / rivals - spent, 0.0)
    pairs = np.maximum.accumulate(_spend(sizes, level, budget, first=False), axis=0)
    return Boundaries(majority, pairs, sizes)


def crossing(boundary: NDArray[np.int64], sizes: Ints, ones: Ints) -> Floats:
    """P(the walk ever reaches the boundary): a permutation of `sizes` votes with `ones` for the class.

    `boundary` (steps+1,) or (g, steps+1), sizes and ones (g,); returns (g,). Exact, by recursion.
    """
    steps = int(sizes.max())
    boundary = np.broadcast_to(boundary, (len(sizes), boundary.shape[-1]))
    grid = np.arange(steps + 2)
    state = np.zeros((len(sizes), steps + 2))
    state[:, 0] = 1.0
    hit = np.zeros(len(sizes))
    for k in range(1, steps + 1):
        state = _advance(state, grid, k, sizes, ones)
        stopped = (grid >= boundary[:, k, None]) & (k <= sizes)[:, None]
        hit += (state * stopped).sum(1)
        state = np.where(stopped, 0.0, state)
    return hit


def worst_case(total: int, alpha: float, classes: int) -> float:
    """An upper bound on P(wrong decision) of the default test, the largest over all vote populations."""
    tables = boundaries(total, alpha, classes)
    n = np.arange(1, total // 2 + 1)
    rest = crossing(tables.majority, np.full(len(n), total), n)
    worst = 0.0
    for most in range(-(-total // classes), total):
        rival = np.arange(1, min(most, total - most) + 1)
        if not len(rival):
            continue
        size = rival + most
        against = crossing(tables.pairs[np.searchsorted(tables.sizes, size)], size, rival)
        each = rest[rival - 1] + against
        worst = max(worst, float(min((total - most) * (each / rival).max(), (classes - 1) * each.max())))
    return worst


def _advance(state: Floats, grid: Ints, k: int, sizes: Ints, ones: Ints) -> Floats:
    up = np.clip((ones[:, None] - grid) / np.maximum(sizes - k + 1, 1)[:, None], 0.0, 1.0)
    rise = state * up
    moved: Floats = state - rise
    moved[:, 1:] += rise[:, :-1]
    return moved


def _spend(sizes: Ints, ones: Ints, budget: Floats, first: bool) -> NDArray[np.int64]:
    """Boundaries (g, max size + 1) that spend `budget` (g,) over the walks of these populations."""
    steps = int(sizes.max())
    grid = np.arange(steps + 2)
    state = np.zeros((len(sizes), steps + 2))
    state[:, 0] = 1.0
    spent = np.zeros(len(sizes))
    result = np.ones((len(sizes), steps + 1), dtype=np.int64)
    share = _FIRST_SHARE if first else 0.0
    # the first look at which an unbroken run is rarer than its share of the budget
    start = np.log2(1 / np.maximum(share * budget, 1e-300)) if first else np.maximum(sizes / 16, 4.0)
    for k in range(1, steps + 1):
        state = _advance(state, grid, k, sizes, ones)
        log_time = np.log(k / start) / np.log(np.maximum(sizes, start + 1) / start)
        allowed = budget * np.where(k < start - 1, 0.0, np.clip(share + (1 - share) * log_time, share, 1.0))
        tail = state[:, ::-1].cumsum(1)[:, ::-1]
        fits = spent[:, None] + tail <= allowed[:, None]
        low = np.maximum(np.where(fits, grid, steps + 1).min(1), k // 2 + 1)
        inside = k <= sizes
        result[:, k] = np.where(inside, low, 0)
        spent += np.take_along_axis(tail, low[:, None], 1)[:, 0] * inside
        state = np.where(grid >= low[:, None], 0.0, state)
    return result

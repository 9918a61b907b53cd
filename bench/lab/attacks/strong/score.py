"""The score-based member: Square's random search from the best images so far, as long as it finds something."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.lab.attacks.ball import lengths
from bench.lab.attacks.square import side, signs, squares
from bench.lab.attacks.strong.search import QUERY, Search
from bench.recipes import Square

SLICE = 20  # queries between two looks at whether they still find something; more where no gradient did
WORTH = 0.01  # of the margin that is left: what a slice must take to be followed by another


def queries(
    search: Search, rows: Tensor, number: int, check: Callable[[Tensor, Tensor, int], Tensor], ascents: bool
) -> None:
    """Square attack (Andriushchenko et al. 2020) on the rows (m,); `check` judges proposals and says which fool,
    `ascents` whether they have found any.

    It begins at the best images or at the paper's stripes, whichever are nearer to being wrong. An image goes on only
    while each slice of queries takes a part of its margin: honest gradients have left it nothing to find.
    """
    whole = Square(queries=max(1, int(search.left(rows) / QUERY)))
    before = search.best.loss[rows]
    patience = SLICE if ascents else 5 * SLICE
    for query in range(whole.queries):
        able = search.spent[rows] + QUERY <= search.limit
        rows, before = rows[able], before[able]
        if query and query % patience == 0:
            found = search.best.loss[rows] > before + WORTH * before.abs()
            rows = rows[found]
            before = search.best.loss[rows]
        if not len(rows):
            break
        dice = search.view.streams.generator("craft", number, query)
        edge = side(whole, query, *search.images.shape[2:])
        stay = ~check(propose(search, rows, dice, edge if query else None), rows, number)
        rows, before = rows[stay], before[stay]


def propose(search: Search, rows: Tensor, dice: torch.Generator, edge: int | None) -> Tensor:
    """The best images at the rows with one square of side `edge` drawn anew; without one, stripes a column wide."""
    images, ball = search.images, search.ball
    centre, best = images[rows], search.best.images[rows]
    if edge is None:
        stripes = signs((len(images), images.shape[1], 1, images.shape[3]), dice, images)[rows].expand_as(centre)
        size = ball.eps if ball.norm == "Linf" else ball.eps / float(stripes[0].numel()) ** 0.5
        return ball.project(centre + size * stripes, centre)
    window, sign = (part[rows] for part in squares(edge, dice, images))
    if ball.norm == "Linf":
        return torch.where(window, (centre + ball.eps * sign).clamp(0, 1), best)
    # In L2 the window takes what length the rest leaves, the same on each of its values.
    rest = torch.where(window, 0, best - centre)
    free = (ball.eps**2 - lengths(rest).square()).clamp_min(0) / (edge * edge * images.shape[1])
    return ball.project(centre + rest + torch.where(window, free.sqrt() * sign, 0), centre)

"""The search against a randomised source: ways to a slope compete, and images go on where they may still fall."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from bench.lab.attacks.strong.ascent import Ascent, Slope, moving
from bench.lab.attacks.strong.objectives import Objective, cross_entropy, margin, probability_margin
from bench.lab.attacks.strong.search import FINE, Search, Start
from bench.lab.attacks.strong.selection import LOSES, Selection, anytime
from bench.lab.attacks.strong.ways import Aimed, Way, sets, slope, ways
from bench.models.classifier import Classifier

STEPS, DRAWS = 16, 2  # of a first try, and draws a step
MOST = 16  # draws a step
TARGETS = 3


class Turn(NamedTuple):
    """One ascent along a way: its objective, the rank of the class aimed at, how it starts and steps."""

    name: str
    way: Way
    steps: int = STEPS
    objective: Objective = probability_margin
    rank: int | None = None
    first: float = 1.0
    start: Start = "image"
    chance: float | None = None  # of a set of atoms: images that are wrong as often as that have nothing to gain

    @property
    def cost(self) -> float:
        return self.steps * self.way.cost


class Raced:
    """The turns at work on a randomised source; `views` are what interception found, best first."""

    def __init__(self, search: Search, views: tuple[Classifier, ...] = (), racing: bool = True) -> None:
        self.search, self.selection = search, Selection(search, racing)
        self.ways = ways(search.view, views, DRAWS)
        self.tries: dict[Way, Tensor] = {}
        self._order: Tensor | None = None

    def hunt(self) -> None:
        """Attack until no image needs more, the budget is spent, or the last turns bought too little."""
        search, opened = self.search, False
        search.turn("the image itself", lambda rows, number: self.selection.begin(), self.selection.price)
        for turn in self.turns():
            least = 0.25 * turn.cost + self.selection.price
            search.turn(turn.name, partial(self.climb, turn), least)
            opened |= turn.start == "best"  # no search ends before every set, every way and a finer path had a turn
            if search.end or (opened and search.tired()):
                break

    def turns(self) -> Iterator[Turn]:
        """First every set of atoms, where there are few, and every way from the originals; then classes, finer steps
        and more draws along the ways that found most."""
        for chance, way in sets(self.search.view):
            yield Turn(way.name, way, objective=margin, chance=chance)
        for way in self.ways:
            if way.name == "mean loss":  # as EOTPGD does: all classes pull, also where a few come near and never win
                yield Turn(way.name, way, objective=cross_entropy, start="random")
            else:
                yield Turn(way.name, way)
        draws = 2 * DRAWS
        while True:
            for way in self.best_ways():
                more = way if way.draws == 1 else way._replace(draws=min(draws, MOST))
                objective = cross_entropy if way.name == "mean loss" else probability_margin
                yield Turn(f"{way.name}, onward", more, objective=objective, first=FINE, start="best")
                yield Turn(f"{way.name}, margin", more, objective=margin)
                for rank in range(min(TARGETS, self.search.view.source.classes - 2)):
                    yield Turn(f"{way.name}, class {rank + 1}", more, objective=margin, rank=rank)
            noisy = Way("mean loss", self.search.view, "loss", min(2 * draws, MOST))
            yield Turn(f"mean loss of {noisy.draws}, onward", noisy, first=FINE, start="best")
            draws *= 2

    def best_ways(self) -> list[Way]:
        """The ways that go on: the one whose own examples err most on selection draws, and before it the cheapest of
        those that an anytime test does not show to be worse; two are compared on the images that both were tried on."""
        if not self.tries:
            return self.ways[:1]
        best, *others = self.tries
        for way in others:
            mine, theirs = self._both(way, best)
            best = way if mine.sum() > theirs.sum() else best
        able = [way for way in self.tries if not worse(*self._both(way, best))]
        return list(dict.fromkeys((min(able, key=lambda way: way.cost), best)))

    def _both(self, one: Way, other: Way) -> tuple[Tensor, Tensor]:
        mine, theirs = self.tries[one], self.tries[other]
        known = ~(mine.isnan() | theirs.isnan())
        return mine[known], theirs[known]

    def climb(self, turn: Turn, rows: Tensor, number: int) -> None:
        """One turn on the rows (m,); what it leaves competes with the best."""
        search = self.search
        if turn.chance is not None:
            rows = rows[search.best.errors[rows] < turn.chance - 1e-6]
            if not len(rows):
                return
        aims = None if turn.rank is None else self.order()[:, turn.rank]
        aimed = Aimed(turn.objective, search.labels, aims)

        def look(here: Tensor, at: Tensor, step: int) -> Slope:
            seen = slope(turn.way, aimed, here, at, (number, step))
            search.pay(at, turn.way.cost)
            return seen._replace(slope=moving(seen.slope, at, len(search.images), search.view.streams, number, step))

        room = search.left(rows) - self.selection.price
        steps = max(1, min(turn.steps, int(room / turn.way.cost)))
        start = search.start(turn.start, rows, number)
        last, rows = Ascent(search.ball, steps, turn.first).run(start, search.images[rows], rows, look)
        errors = self.selection.offer(last, rows, number)
        self.selection.release(rows)
        if turn.name == turn.way.name and turn.chance is None:  # its first try
            self.tries[turn.way] = torch.full_like(search.best.errors, torch.nan).index_copy(0, rows, errors)

    def order(self) -> Tensor:
        """The classes (n, classes - 1) to aim at: by mean logits of the best images when first asked."""
        if self._order is None:
            own = self.search.labels.unsqueeze(1)
            self._order = self.selection.logits.scatter(1, own, -torch.inf).argsort(dim=1, descending=True)
        return self._order


def worse(mine: Tensor, best: Tensor) -> bool:
    """Whether errors (m,) are shown to be below others of the same images: of those that differ, too few are above."""
    return bool(anytime((best > mine).sum(), (mine > best).sum()) >= 1 / LOSES)

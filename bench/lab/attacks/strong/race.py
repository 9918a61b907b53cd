"""The search against a randomised source: ways to a slope compete, and images go on where they may still fall."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from bench.lab.attacks.strong.ascent import Ascent, Slope
from bench.lab.attacks.strong.objectives import Objective, margin, probability_margin
from bench.lab.attacks.strong.search import Search
from bench.lab.attacks.strong.selection import Selection
from bench.lab.attacks.strong.ways import Aimed, Way, sets, slope, ways
from bench.models.classifier import Classifier

STEPS, DRAWS = 16, 2  # of a first try, and draws a step
MOST = 16  # draws a step
KEPT = 2  # ways that go on after the first tries
TARGETS = 3


class Turn(NamedTuple):
    """One ascent along a way: its objective, the rank of the class aimed at, how it starts and steps."""

    name: str
    way: Way
    steps: int = STEPS
    objective: Objective = probability_margin
    rank: int | None = None
    first: float = 1.0
    onward: bool = False  # from the best images, else from the originals
    chance: float | None = None  # of a set of atoms: images that are wrong as often as that have nothing to gain

    @property
    def cost(self) -> float:
        return self.steps * self.way.cost


class Raced:
    """The turns at work on a randomised source; `views` are what interception found, best first."""

    def __init__(self, search: Search, views: tuple[Classifier, ...] = (), racing: bool = True) -> None:
        self.search, self.selection = search, Selection(search, racing)
        self.ways = ways(search.view, views, DRAWS)
        self.found: dict[Way, float] = {}
        self._order: Tensor | None = None

    def hunt(self) -> None:
        """Attack until no image needs more, the budget is spent, or the last turns bought too little."""
        search = self.search
        search.turn("the image itself", lambda rows, number: self.selection.begin(), self.selection.price)
        for turn in self.turns():
            least = 0.25 * turn.cost + self.selection.price
            search.turn(turn.name, partial(self.climb, turn), least)
            if turn.chance is None and search.tired():  # a set of atoms says nothing of the next
                break

    def turns(self) -> Iterator[Turn]:
        """First every set of atoms, where there are few, and every way from the originals; then classes, finer steps
        and more draws along the ways that found most."""
        for chance, way in sets(self.search.view):
            yield Turn(way.name, way, objective=margin, chance=chance)
        for way in self.ways:
            yield Turn(way.name, way)
        draws = 2 * DRAWS
        while True:
            best = sorted(self.found, key=lambda way: -self.found[way])[:KEPT]
            for way in best or self.ways[:1]:
                more = way if way.draws == 1 else way._replace(draws=min(draws, MOST))
                yield Turn(f"{way.name}, onward", more, first=0.25, onward=True)
                yield Turn(f"{way.name}, margin", more, objective=margin)
                for rank in range(min(TARGETS, self.search.view.source.classes - 2)):
                    yield Turn(f"{way.name}, class {rank + 1}", more, objective=margin, rank=rank)
            noisy = Way("mean loss", self.search.view, "loss", min(2 * draws, MOST))
            yield Turn(f"mean loss of {noisy.draws}, onward", noisy, first=0.25, onward=True)
            draws *= 2

    def climb(self, turn: Turn, rows: Tensor, number: int) -> None:
        """One turn on the rows (m,); what it leaves competes with the best."""
        search, before = self.search, float(self.search.best.errors.sum())
        if turn.chance is not None:
            rows = rows[search.best.errors[rows] < turn.chance - 1e-6]
            if not len(rows):
                return
        aims = None if turn.rank is None else self.order()[:, turn.rank]
        aimed = Aimed(turn.objective, search.labels, aims)

        def look(here: Tensor, at: Tensor, step: int) -> Slope:
            seen = slope(turn.way, aimed, here, at, (number, step))
            search.pay(at, turn.way.cost)
            return seen

        room = search.left(rows) - self.selection.price
        steps = max(1, min(turn.steps, int(room / turn.way.cost)))
        start = search.best.images[rows] if turn.onward else search.images[rows]
        last, rows = Ascent(search.ball, steps, turn.first).run(start, search.images[rows], rows, look)
        self.selection.offer(last, rows, number)
        self.selection.release(rows)
        gained = float(search.best.errors.sum()) - before
        if not turn.way.some:
            self.found[turn.way] = max(self.found.get(turn.way, -1.0), gained)

    def order(self) -> Tensor:
        """The classes (n, classes - 1) to aim at: by mean logits of the best images when first asked."""
        if self._order is None:
            own = self.search.labels.unsqueeze(1)
            self._order = self.selection.logits.scatter(1, own, -torch.inf).argsort(dim=1, descending=True)
        return self._order

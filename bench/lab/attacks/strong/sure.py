"""The search against a deterministic source: member after member, each on what still holds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from bench.lab.attacks import losses
from bench.lab.attacks.strong import score
from bench.lab.attacks.strong.ascent import Ascent, Slope, finite
from bench.lab.attacks.strong.objectives import Objective, as_logits, margin, probability_margin
from bench.lab.attacks.strong.search import QUERY, Search
from bench.lab.attacks.view import View
from bench.models.classifier import Classifier

STEPS, LONG = 20, 60
TARGETS = 9  # as many classes as APGD-T aims at
RESERVE = 0.2  # of the budget, for the score-based attack


class Member(NamedTuple):
    """One ascent: what it ascends, the rank of the class it aims at (None: the nearest), where it starts."""

    name: str
    steps: int = STEPS
    objective: Objective = margin
    rank: int | None = None
    start: Literal["image", "random"] = "image"


def members(classes: int) -> Iterator[Member]:
    """The ascents in their order, without end: all classes, each class in turn, then random starts."""
    targets = min(TARGETS, classes - 1) if classes > 2 else 0
    yield Member("probability margin", objective=probability_margin)
    for rank in range(targets):
        yield Member(f"class {rank + 1}", rank=rank)
    yield Member("margin")
    while True:
        yield Member("margin, random start", LONG, start="random")
        for rank in range(min(3, targets)):
            yield Member(f"class {rank + 1}, random start", LONG, rank=rank, start="random")
        yield Member("probability margin, random start", LONG, probability_margin, start="random")


class Sure:
    """The members at work on a deterministic source."""

    def __init__(self, search: Search, shown: Classifier | None = None) -> None:
        """`shown` is what slopes are taken of, the source itself unless interception found better."""
        self.search, own = search, search.view
        self.shown = own if shown is None else View(shown, own.shape, own.streams, own.compute)
        self._order: Tensor | None = None

    def hunt(self) -> None:
        """Attack until every image is fooled, the budget is spent, or the last members bought too little."""
        search = self.search
        search.turn("the image itself", lambda rows, number: self.check(search.images[rows], rows, number), QUERY)
        search.limit = (1 - RESERVE) * search.attack.gradients
        for member in members(search.view.source.classes):
            search.turn(member.name, partial(self.ascend, member))
            if search.tired():
                break
        search.limit = search.attack.gradients
        why, search.end = search.end, ""
        search.turn("score", lambda rows, number: score.queries(search, rows, number, self.check), QUERY)
        search.end = search.end or why

    def ascend(self, member: Member, rows: Tensor, number: int) -> None:
        """One member on the rows (m,)."""
        search, centre = self.search, self.search.images[rows]
        aims = None if member.rank is None else self.order(rows)[:, member.rank]
        start = centre
        if member.start == "random":
            start = search.ball.random(search.images, search.view.streams.generator("start", number))[rows]

        def look(here: Tensor, at: Tensor, step: int) -> Slope:
            return self.slope(here, at, member.objective, None if aims is None else aims[at])

        def leave(here: Tensor, at: Tensor, seen: Slope) -> Tensor:
            if self.shown is not search.view:  # its logits say nothing of the source's
                return self.check(here, at, number)
            return self.keep(here, at, seen.logits, number)

        each = 1 if self.shown is search.view else 1 + QUERY
        steps = max(1, min(member.steps, int((search.left(rows) - QUERY) / each)))
        last, rows = Ascent(search.ball, steps).run(start, centre, rows, look, leave)
        if len(rows):
            self.check(last, rows, number)

    def order(self, rows: Tensor) -> Tensor:
        """The classes (n, targets) to aim at, the most promising first, of the images that hold when first asked.

        MALT's order (Melamed, Yehudai & Shamir 2024): by the logits' gap over the norm of its gradient, the
        distance at which the class would be met were the network linear; among the classes of largest logits.
        """
        if self._order is None:
            search, here = self.search, self.search.images[rows]
            own = search.labels[rows]
            logits = as_logits(search.view.logits(here, rows, "select"))
            search.pay(rows, QUERY)
            near = logits.scatter(1, own.unsqueeze(1), -torch.inf).topk(min(TARGETS, logits.shape[1] - 1), 1).indices
            distance = torch.empty(near.shape, device=here.device)
            for rank, aim in enumerate(near.T):
                slope = self.slope(here, rows, margin, aim).slope
                gap = -margin(logits, own, aim)
                distance[:, rank] = gap / search.ball.steepness(slope).clamp_min(torch.finfo(slope.dtype).tiny)
            self._order = torch.zeros(len(search.images), near.shape[1], dtype=near.dtype, device=near.device)
            self._order[rows] = near.gather(1, distance.argsort(dim=1, stable=True))
        return self._order

    def slope(self, here: Tensor, rows: Tensor, objective: Objective, aim: Tensor | None) -> Slope:
        """One gradient of the objective, aimed at classes (m,) or at the nearest."""

        def loss(outputs: Tensor, packed: Tensor) -> Tensor:
            return objective(as_logits(outputs), packed[:, 0], None if aim is None else packed[:, 1])

        own, view = self.search.labels[rows], self.shown
        packed = torch.stack([own, own if aim is None else aim], 1)
        _, slope, outputs = view.compute.gradient(view.draw("grad"), here, packed, loss, rows)
        self.search.pay(rows, 1)
        return Slope(finite(slope), as_logits(outputs))

    def keep(self, here: Tensor, rows: Tensor, logits: Tensor, number: int) -> Tensor:
        """Offer images to the best; which (m,) bool fool the source, and so need no more."""
        search, own = self.search, self.search.labels[rows]
        fooled = losses.wrong(logits, own)
        search.best.offer(here, margin(logits, own, None), fooled, number, rows)
        search.over[rows] = search.best.fooled[rows]
        return fooled

    def check(self, here: Tensor, rows: Tensor, number: int) -> Tensor:
        """The same by a pass of its own."""
        logits = as_logits(self.search.view.logits(here, rows, "select"))
        self.search.pay(rows, QUERY)
        return self.keep(here, rows, logits, number)

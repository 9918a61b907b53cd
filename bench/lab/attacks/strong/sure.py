"""The search against a deterministic source: member after member, each on what still holds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from bench.lab.attacks import losses
from bench.lab.attacks.strong import score
from bench.lab.attacks.strong.ascent import Ascent, Slope, finite, moving
from bench.lab.attacks.strong.objectives import Objective, as_logits, cross_entropy, margin, probability_margin
from bench.lab.attacks.strong.search import FINE, QUERY, Search, Start
from bench.lab.attacks.view import View
from bench.models.classifier import Classifier

STEPS, LONG, SHORT = 20, 60, 8
TARGETS = 9  # as many classes as APGD-T aims at
RESERVE = 0.2  # of the budget, for the score-based attack


class Member(NamedTuple):
    """One ascent: what it ascends, the rank of the class it aims at (None: the nearest), where it starts."""

    name: str
    steps: int = STEPS
    objective: Objective = margin
    rank: int | None = None
    start: Start = "image"
    first: float = 1.0


def opening(classes: int) -> Iterator[Member]:
    """The ascents that every search begins with, each of another kind: a search that is not out of budget has tried
    another loss, another start, fine steps, every class, and a long path, before it may say that nothing is left."""
    yield Member("probability margin", objective=probability_margin)
    yield Member("cross-entropy, random start, fine steps", objective=cross_entropy, start="random", first=FINE)
    for rank in range(_targets(classes)):
        yield Member(f"class {rank + 1}", rank=rank)
    yield Member("margin, onward", LONG, start="best", first=FINE)


def restarts(classes: int) -> Iterator[Member]:
    """Random starts, without end."""
    while True:
        yield Member("margin, random start", LONG, start="random")
        for rank in range(min(3, _targets(classes))):
            yield Member(f"class {rank + 1}, random start", LONG, rank=rank, start="random")
        yield Member("probability margin, random start", LONG, probability_margin, start="random")


def _targets(classes: int) -> int:
    return min(TARGETS, classes - 1) if classes > 2 else 0


class Sure:
    """The members at work on a deterministic source.

    `views` are what slopes may be taken of besides the source itself, `trusted` whether the first of them is shown to
    find more. The first member climbs along each; the others follow whichever found most when last asked.
    """

    def __init__(self, search: Search, views: tuple[Classifier, ...] = (), trusted: bool = False) -> None:
        self.search, own = search, search.view
        others = [View(view, own.shape, own.streams, own.compute) for view in views[:1]]
        self.arms = [*others, own] if trusted else [own, *others]
        # Of images tried, the share that fell when last asked; below 0 where not one slope was other than 0.
        self.yields = [1.0] * len(self.arms)
        self.moved = False  # whether the member at work met a slope
        self._order: Tensor | None = None

    def hunt(self) -> None:
        """Attack until every image is fooled, the budget is spent, or the last members bought too little."""
        search, classes = self.search, self.search.view.source.classes
        search.turn("the image itself", lambda rows, number: self.check(search.images[rows], rows, number), QUERY)
        search.limit = (1 - RESERVE) * search.attack.gradients
        for number, member in enumerate(opening(classes)):
            if member.rank is not None and search.idle():
                member = member._replace(steps=SHORT)
            for arm in range(len(self.arms)) if number == 0 else (self.best_arm(),):
                self.send(member, arm)
            if max(self.yields) < 0:
                search.end = "there is no gradient to follow"
        for member in restarts(classes):
            if search.end or search.tired():
                break
            self.send(member, self.best_arm())
        search.limit = search.attack.gradients
        why, search.end = search.end, ""
        found = max(self.yields) >= 0 and any(one.gain for one in search.bought[1:])
        search.turn("score", lambda rows, number: score.queries(search, rows, number, self.check, found), QUERY)
        search.end = search.end or why

    def best_arm(self) -> int:
        return max(range(len(self.arms)), key=lambda arm: self.yields[arm])

    def send(self, member: Member, arm: int) -> None:
        """Let a member climb along an arm, and note how many of those that it tried it brought down."""
        search, self.moved = self.search, False
        before = int((~search.over).sum())
        whose = "" if len(self.arms) == 1 else ", own slope" if self.arms[arm] is search.view else ", view"
        if not search.end and search.turn(member.name + whose, partial(self.ascend, member, self.arms[arm])):
            if self.moved:
                self.yields[arm] = (before - int((~search.over).sum())) / max(1, before)
            elif member.objective is not cross_entropy:  # which large logits saturate: no sign that all else is flat
                self.yields[arm] = -1.0

    def ascend(self, member: Member, shown: View, rows: Tensor, number: int) -> None:
        """One member on the rows (m,), along slopes of what is `shown`."""
        search, centre = self.search, self.search.images[rows]
        streams, own = search.view.streams, shown is search.view
        aims = None if member.rank is None else self.order(rows)[:, member.rank]
        start = search.start(member.start, rows, number)

        def look(here: Tensor, at: Tensor, step: int) -> Slope:
            seen = self.slope(shown, here, at, member.objective, None if aims is None else aims[at])
            self.moved |= bool(seen.slope.any())
            return seen._replace(slope=moving(seen.slope, at, len(search.images), streams, number, step))

        def leave(here: Tensor, at: Tensor, seen: Slope) -> Tensor:
            # A view's logits say nothing of the source's.
            return self.keep(here, at, seen.logits, number) if own else self.check(here, at, number)

        each = 1 if own else 1 + QUERY
        steps = max(1, min(member.steps, int((search.left(rows) - QUERY) / each)))
        last, rows = Ascent(search.ball, steps, member.first).run(start, centre, rows, look, leave)
        if len(rows):
            self.check(last, rows, number)

    def order(self, rows: Tensor) -> Tensor:
        """The classes (n, targets) to aim at, the most promising first, of the images that hold when first asked.

        MALT's order (Melamed, Yehudai & Shamir 2024): by the logits' gap over the norm of its gradient, the
        distance at which the class would be met were the network linear; among the classes of largest logits.
        """
        if self._order is None:
            search, here, arm = self.search, self.search.images[rows], self.arms[self.best_arm()]
            own = search.labels[rows]
            logits = as_logits(search.view.logits(here, rows, "select"))
            search.pay(rows, QUERY)
            near = logits.scatter(1, own.unsqueeze(1), -torch.inf).topk(_targets(logits.shape[1]), 1).indices
            distance = torch.empty(near.shape, device=here.device)
            for rank, aim in enumerate(near.T):
                slope = self.slope(arm, here, rows, margin, aim).slope
                gap = -margin(logits, own, aim)
                distance[:, rank] = gap / search.ball.steepness(slope).clamp_min(torch.finfo(slope.dtype).tiny)
            self._order = torch.zeros(len(search.images), near.shape[1], dtype=near.dtype, device=near.device)
            self._order[rows] = near.gather(1, distance.argsort(dim=1, stable=True))
        return self._order

    def slope(self, shown: View, here: Tensor, rows: Tensor, objective: Objective, aim: Tensor | None) -> Slope:
        """One gradient of the objective, aimed at classes (m,) or at the nearest."""

        def loss(outputs: Tensor, packed: Tensor) -> Tensor:
            return objective(as_logits(outputs), packed[:, 0], None if aim is None else packed[:, 1])

        own = self.search.labels[rows]
        packed = torch.stack([own, own if aim is None else aim], 1)
        _, slope, outputs = shown.compute.gradient(shown.draw("grad"), here, packed, loss, rows)
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

"""What a search of one batch knows: the best images so far, what each has cost, what each member bought."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from bench.lab.attacks.ball import Ball
from bench.lab.attacks.view import Found, View
from bench.recipes import Strong
from bench.store.bought import Account, Bought

QUERY = 0.5  # what a pass without a gradient costs, in gradients: one of the two passes that a gradient is
PATIENCE = 4  # members in a row that must buy less than the tolerance, together, before a search ends
LEAST = 5.0  # gradients, below which no ascent is begun
FINE = 0.25  # of eps: the first step of a path that is not to leap over anything, such as one from the best images


Start = Literal["image", "random", "best"]
"""Where a member begins: the originals, random points of the ball, or the best images so far."""
Act = Callable[[Tensor, int], object]
"""A member at work on the rows (m,) that still hold; it notes what it finds under its number."""


class Search:
    """One attack of images (n, c, h, w) with labels (n,): whom `view` shows, what was found, what was paid.

    `best.errors` is on draws that select. `over` (n,) bool says who needs no more; `limit` is what an image may have
    cost by now.
    """

    def __init__(self, attack: Strong, view: View, images: Tensor, labels: Tensor) -> None:
        self.attack, self.view, self.images, self.labels = attack, view, images, labels
        self.ball = Ball(float(attack.eps), attack.norm)
        self.best = Found(images)
        self.over = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self.spent = torch.zeros(len(images), device=images.device)
        self.limit = float(attack.gradients)
        self.names: list[str] = []
        self.bought: list[Bought] = []
        self.numbers: list[int] = []
        self.end = ""

    def pay(self, rows: Tensor, gradients: float) -> None:
        """Book so many gradients for each of the rows (m,)."""
        self.spent[rows] += gradients

    def left(self, rows: Tensor) -> int:
        """How many gradients each of the rows can still pay."""
        return int(self.limit - float(self.spent[rows].max())) if len(rows) else 0

    def start(self, where: Start, rows: Tensor, number: int) -> Tensor:
        """The images (m, c, h, w) at which the member of this number begins on the rows (m,)."""
        match where:
            case "image":
                return self.images[rows]
            case "best":
                return self.best.images[rows]
            case "random":
                return self.ball.random(self.images, self.view.streams.generator("start", number))[rows]

    def turn(self, name: str, act: Act, least: float = LEAST) -> bool:
        """Let a member try what still holds, if that can pay `least`; False where the search is over, see `end`."""
        held = (~self.over).nonzero().squeeze(1)
        rows = held[self.spent[held] + least <= self.limit]
        if not len(held):
            self.end = "every image is fooled"
        elif not len(rows):
            self.end = "the budget is spent"
        if self.end:
            return False
        spent, error = float(self.spent.sum()), float(self.best.errors.sum())
        number = len(self.names)
        self.names.append(name)
        act(rows, number)
        n, paid = len(self.images), float(self.spent.sum()) - spent
        if paid:  # a member that did nothing is no evidence that nothing is left
            self.numbers.append(number)
            self.bought.append(Bought(name, len(rows), (float(self.best.errors.sum()) - error) / n, paid / n))
        return True

    def idle(self) -> bool:
        """Whether the last members, the image itself aside, together bought less than the tolerance."""
        last = self.bought[1:][-PATIENCE:]
        return len(last) == PATIENCE and sum(one.gain for one in last) < self.attack.tolerance

    def tired(self) -> bool:
        """Whether the search may end because its last members bought too little; `end` says so."""
        if not self.end and self.idle():
            self.end = f"the last {PATIENCE} members bought less than the tolerance"
        return bool(self.end)

    def looked(self, forwards: int, backwards: int) -> None:
        """Book passes that were taken for all images before any member was tried."""
        self.spent += (backwards + QUERY * (forwards - backwards)) / max(1, len(self.images))

    def account(self, findings: tuple[str, ...] = ()) -> Account:
        """What was bought, by whom each image's example is, and what each image cost."""
        found = torch.where(self.best.errors > 0, self.best.since, -1).tolist()
        members = tuple(one._replace(found=found.count(number)) for number, one in
                        zip(self.numbers, self.bought, strict=True))  # fmt: skip
        place = {number: at for at, number in enumerate(self.numbers)}
        whose = tuple(place.get(one, -1) for one in found)
        return Account(members, whose, tuple(self.spent.tolist()), self.end, findings)

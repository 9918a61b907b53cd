"""Candidates for an image compared on selection draws, the same for all: by expected error, then by margin."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.lab.attacks import losses
from bench.lab.attacks.strong.objectives import as_logits
from bench.lab.attacks.strong.search import QUERY, Search

BLOCK, BLOCKS = 8, 4  # draws between two looks at a race, and looks
LOSES = 0.05  # of candidates that are as good as the other, how many may be sent away
RIGHT = 0.05  # an image is over when its chance to be right is shown to be below this
SURE = 0.05  # ... with this chance of error
CHECKS = 80  # draws, at most, of that


class Selection:
    """The best images of a search, and how each of them fared on selection draws.

    Draw j meets every candidate of an image (common random numbers): `wrong` (n, draws) bool and `margin` (n, draws)
    in [-1, 1] are of the best images, on their first `known` (n,) draws. Where the source lists its atoms, they are
    the draws, each counted by its chance, and every comparison is exact.
    """

    def __init__(self, search: Search, racing: bool = True) -> None:
        self.search, self.racing, view = search, racing, search.view
        self.atoms = view.source.atoms()
        self.block, self.blocks = (len(self.atoms), 1) if self.atoms else (BLOCK, BLOCKS)
        n, device = len(search.images), search.images.device
        chances = [atom.chance for atom in self.atoms] or [1 / (BLOCK * BLOCKS)] * (BLOCK * BLOCKS)
        self.chances = torch.tensor(chances, device=device)
        self.wrong = torch.zeros(n, self.block * self.blocks, dtype=torch.bool, device=device)
        self.margin = torch.zeros(n, self.block * self.blocks, device=device)
        self.known = torch.zeros(n, dtype=torch.long, device=device)
        self.logits = torch.zeros(n, view.source.classes, device=device)
        self.tested = torch.full((n,), -1, device=device)

    @property
    def price(self) -> float:
        """Gradients that a block of draws costs an image."""
        return self.block * QUERY

    def begin(self) -> None:
        """Ask about the original images."""
        rows = torch.arange(len(self.search.images), device=self.search.images.device)
        self._learn(rows)
        self.search.best.since[:] = 0
        self._book(rows)

    def offer(self, here: Tensor, rows: Tensor, number: int) -> Tensor:
        """Race images (m, c, h, w) against the best at their rows (m,); their errors (m,) on the first block of draws.

        A candidate leaves, beaten or ahead, as soon as an anytime test on the draws that differ says so, and where
        no draw differs; those left are compared when the draws, or what they can pay, end.
        """
        wrong = torch.zeros(len(rows), self.wrong.shape[1], dtype=torch.bool, device=here.device)
        margin = torch.zeros(len(rows), self.wrong.shape[1], device=here.device)
        looks = torch.zeros(len(rows), dtype=torch.long, device=here.device)
        open_ = torch.arange(len(rows), device=here.device)
        for look in range(self.blocks):
            behind = rows[open_][self.known[rows[open_]] <= look * self.block]
            if len(behind):
                self._learn(behind)
            part = slice(look * self.block, (look + 1) * self.block)
            wrong[open_, part], margin[open_, part], _ = self._ask(here[open_], rows[open_], look)
            looks[open_] = (look + 1) * self.block
            won = (wrong[open_] & ~self.wrong[rows[open_]] & self._until(looks[open_])).sum(1)
            lost = (~wrong[open_] & self.wrong[rows[open_]] & self._until(looks[open_])).sum(1)
            if self.racing:
                open_ = open_[(won + lost > 0) & (anytime(won, lost) < 1 / LOSES) & (anytime(lost, won) < 1 / LOSES)]
            # What the next look may cost: a block for the candidate, and one for the best image if it knows no more.
            open_ = open_[self.search.spent[rows[open_]] + 2 * self.price <= self.search.limit]
            if not len(open_):
                break
        shown = self._until(looks)
        mine, theirs = self._error(wrong, shown), self._error(self.wrong[rows], shown)
        nearer = (margin * shown).sum(1) > (self.margin[rows] * shown).sum(1)
        better = (mine > theirs) | ((mine == theirs) & nearer)
        taken = rows[better]
        self.search.best.images[taken] = here[better]
        self.search.best.since[taken] = number
        self.wrong[taken], self.margin[taken] = wrong[better], margin[better]
        self.known[taken] = looks[better]
        self._book(taken)
        return self._error(wrong, self._until(torch.full_like(looks, self.block)))

    def release(self, rows: Tensor) -> None:
        """Let go of images whose chance to be right is shown to be below 5 %, on draws that chose nothing.

        Asked are those that were wrong on every draw so far, once for each best image, and only who can pay; a draw
        multiplies the evidence by what a chance of 0 or 1 % would make of it over what 5 % would (Ville's inequality).
        """
        search = self.search
        if self.atoms:
            search.over |= search.best.errors > 1 - RIGHT
            return
        never = self._error(self.wrong[rows], self._until(self.known[rows])) == 1
        rows = rows[never & (self.tested[rows] != search.best.since[rows])]
        rows = rows[search.spent[rows] + 2 * CHECKS * QUERY <= search.attack.gradients]
        self.tested[rows] = search.best.since[rows]
        none = torch.ones(len(rows), dtype=torch.float64, device=rows.device)
        few = none.clone()
        for look in range(CHECKS // BLOCK):
            if not len(rows):
                break
            for logits in search.view.all_logits(search.best.images[rows], rows, BLOCK, "select", 2, look):
                right = ~losses.wrong(logits, search.labels[rows])
                none *= torch.where(right, 0, 1 / (1 - RIGHT))
                few *= torch.where(right, 0.01 / RIGHT, 0.99 / (1 - RIGHT))
            search.pay(rows, BLOCK * QUERY)
            done = (none + few) / 2 >= 1 / SURE
            search.over[rows[done]] = True
            going = ~done & (few > 0.1)
            rows, none, few = rows[going], none[going], few[going]

    def _learn(self, rows: Tensor) -> None:
        """One block more of the best images at the rows, which all know as many or are told them anew."""
        for known in sorted(set(self.known[rows].tolist())):
            some = rows[self.known[rows] == known]
            part = slice(known, known + self.block)
            self.wrong[some, part], self.margin[some, part], self.logits[some] = self._ask(
                self.search.best.images[some], some, known // self.block
            )
            self.known[some] += self.block

    def _ask(self, here: Tensor, rows: Tensor, look: int) -> tuple[Tensor, Tensor, Tensor]:
        """Wrong (m, block), margin of probabilities (m, block), and mean logits (m, classes) over one block."""
        view, labels = self.search.view, self.search.labels[rows]
        if self.atoms:
            said = [view.compute.logits(atom.realisation, here, rows) for atom in self.atoms]
        else:
            said = list(view.all_logits(here, rows, BLOCK, "select", 1, look))
        self.search.pay(rows, self.price)
        wrong = torch.stack([losses.wrong(one, labels) for one in said], 1)
        margin = torch.stack([losses.margin(as_logits(one).softmax(1), labels) for one in said], 1)
        return wrong, margin, torch.stack([as_logits(one) for one in said]).mean(0)

    def _until(self, known: Tensor) -> Tensor:
        return torch.arange(self.wrong.shape[1], device=known.device) < known.unsqueeze(1)

    def _error(self, wrong: Tensor, shown: Tensor) -> Tensor:
        """The error (m,) of outcomes (m, draws), as far as they are shown."""
        weight = self.chances * shown
        return (wrong * weight).sum(1) / weight.sum(1).clamp_min(1e-12)

    def _book(self, rows: Tensor) -> None:
        self.search.best.errors[rows] = self._error(self.wrong[rows], self._until(self.known[rows]))


def anytime(won: Tensor, lost: Tensor) -> Tensor:
    """Evidence (m,) that of draws on which two candidates differ more than half are won: at least 1/a with chance a at
    most, at whatever look, if it is not so. The uniform mixture over chances above a half, of a fair coin's odds.
    """
    total = won + lost
    grid = torch.linspace(0.525, 0.975, 10, device=won.device, dtype=torch.float64)
    logs = won.unsqueeze(-1) * grid.log() + lost.unsqueeze(-1) * (1 - grid).log() + total.unsqueeze(-1) * math.log(2)
    return logs.logsumexp(-1).exp() / len(grid)

"""One ascent in a ball: steps that shrink along a cosine, with momentum; images leave it as soon as they may."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bench.lab.attacks.ball import Ball
from bench.lab.streams import Streams


class Slope(NamedTuple):
    """What a look at images says: the slope (m, c, h, w) to follow, and the logits (m, classes) seen on the way."""

    slope: Tensor
    logits: Tensor


Look = Callable[[Tensor, Tensor, int], Slope]
"""Images (m, c, h, w), their rows (m,) in the batch, and the step: the slope there."""
Leave = Callable[[Tensor, Tensor, Slope], Tensor]
"""The same images and rows, and what was seen of them: which (m,) bool may leave."""


class Ascent(NamedTuple):
    """A path of `steps` steps, the first of them `first` x eps long.

    The step shrinks to 0 along half a cosine, so that it needs no loss to be compared between steps, which noise would
    decide; with APGD's momentum of the path (Croce & Hein 2020, Algorithm 1, alpha = 0.75) and a memory of slopes (Dong
    et al. 2018): where pieces meet, or draws differ, the last slope alone turns back and forth between them.
    """

    ball: Ball
    steps: int
    first: float = 1.0
    momentum: float = 0.25
    memory: float = 0.75

    def run(
        self, start: Tensor, centre: Tensor, rows: Tensor, look: Look, leave: Leave | None = None
    ) -> tuple[Tensor, Tensor]:
        """The last images (k, c, h, w) of those that stayed to the end, and their rows (k,).

        `start` and `centre` (m, c, h, w) are the images at `rows` (m,), and the originals there.
        """
        here = before = start
        kept = torch.zeros_like(start)
        for step in range(self.steps):
            seen = look(here, rows, step)
            if leave is not None:
                stay = ~leave(here, rows, seen)
                if not bool(stay.all()):
                    rows, here, before, centre, kept = rows[stay], here[stay], before[stay], centre[stay], kept[stay]
                    seen = Slope(seen.slope[stay], seen.logits[stay])
                if not len(rows):
                    break
            size = self.first * self.ball.eps * (1 + math.cos(math.pi * step / self.steps)) / 2
            kept = self.memory * kept + seen.slope / self.ball.steepness(seen.slope).clamp_min(1e-30).view(-1, 1, 1, 1)
            ahead = self.ball.project(here + size * self.ball.along(kept), centre)
            if step:
                ahead = self.ball.project(
                    here + (1 - self.momentum) * (ahead - here) + self.momentum * (here - before), centre
                )
            here, before = ahead, here
        return here, rows


def finite(slope: Tensor) -> Tensor:
    """A slope without what is no number: those values say nothing of where to go, and become 0."""
    return torch.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0)


def moving(slope: Tensor, rows: Tensor, n: int, streams: Streams, number: int, step: int) -> Tensor:
    """A slope (m, c, h, w) at the rows (m,) of n with one at random where it is 0 everywhere: a path must leave what is
    flat, as a model may be at the images themselves, to find out whether all is."""
    flat = ~slope.flatten(1).any(1)
    if not bool(flat.any()):
        return slope
    dice = streams.generator("craft", number, step)
    noise = torch.randn((n, *slope.shape[1:]), generator=dice, device=slope.device)
    return torch.where(flat.view(-1, 1, 1, 1), noise[rows], slope)

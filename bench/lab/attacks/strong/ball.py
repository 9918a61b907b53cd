"""Where an attack may go: the images within eps of the originals, in L-inf or L2, and in [0, 1]."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

ROUNDS = 8  # of alternating projections onto the L2 ball and the box; what they leave is scaled into the ball


class Ball(NamedTuple):
    """All images (n, c, h, w) in [0, 1] within `eps` of their originals in `norm`."""

    eps: float
    norm: Literal["Linf", "L2"]

    def project(self, images: Tensor, centre: Tensor) -> Tensor:
        """Images of the ball near the given ones: in L-inf the nearest, in L2 near it; `centre` are the originals."""
        if self.norm == "Linf":
            return (images - centre).clamp_(-self.eps, self.eps).add_(centre).clamp_(0, 1)
        moved = images
        for _ in range(ROUNDS):
            moved = (centre + self._shortened(moved - centre)).clamp_(0, 1)
            if bool((length(moved - centre) <= self.eps).all()):
                break
        return (centre + self._shortened(moved - centre)).clamp_(0, 1)  # towards a centre in the box, so inside it

    def along(self, slope: Tensor) -> Tensor:
        """The direction of length 1 in which a slope (n, c, h, w) rises most; 0 where the slope is."""
        if self.norm == "Linf":
            return slope.sign()
        # By the largest value first: squares of a slope of 1e-30 would be 0.
        large = slope.abs().amax((1, 2, 3), keepdim=True)
        unit = slope / large.clamp_min(torch.finfo(slope.dtype).tiny)
        return unit / length(unit).clamp_min(torch.finfo(slope.dtype).tiny)

    def steepness(self, slope: Tensor) -> Tensor:
        """How much a function of this slope can rise a unit of the norm: the dual norm, (n,)."""
        flat = slope.flatten(1)
        return flat.abs().sum(1) if self.norm == "Linf" else flat.square().sum(1).sqrt()

    def random(self, centre: Tensor, dice: torch.Generator) -> Tensor:
        """A start: uniform in the L-inf ball; in a random direction at half of eps in L2."""
        if self.norm == "Linf":
            noise = torch.rand(centre.shape, generator=dice, device=centre.device)
            return self.project(centre + noise.mul_(2 * self.eps).sub_(self.eps), centre)
        noise = torch.randn(centre.shape, generator=dice, device=centre.device)
        return self.project(centre + 0.5 * self.eps * self.along(noise), centre)

    def _shortened(self, difference: Tensor) -> Tensor:
        size = length(difference).clamp_min(torch.finfo(difference.dtype).tiny)
        # A hair inside: float32 sums of squares are exact to about 1e-7 of themselves.
        return difference * (self.eps * (1 - 1e-6) / size).clamp_max(1)


def length(difference: Tensor) -> Tensor:
    """L2 lengths, (n, 1, 1, 1)."""
    return difference.square().sum((1, 2, 3), keepdim=True).sqrt()

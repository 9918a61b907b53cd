"""Where an attack may go: the images within eps of the originals, in L-inf or L2, and in [0, 1]."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor


class Ball(NamedTuple):
    """All images (n, c, h, w) in [0, 1] within `eps` of their originals in `norm`, eps in the norm's own units."""

    eps: float
    norm: Literal["Linf", "L2"] = "Linf"

    def project(self, images: Tensor, centre: Tensor) -> Tensor:
        """Images of the ball near the given ones: in L-inf the nearest; in L2 shortened to eps, then clamped.

        Clamping moves towards a centre in [0, 1], value by value, and so never out of the ball.
        """
        # By way of the difference, as torchattacks does it: the last bit decides signs near zero.
        moved = images - centre
        if self.norm == "Linf":
            return moved.clamp_(-self.eps, self.eps).add_(centre).clamp_(0, 1)
        # A hair inside: float32 sums of squares are exact to about 1e-7 of themselves.
        longest = self.eps * (1 - 1e-6)
        return moved.mul_((longest / _floored(lengths(moved))).clamp_max(1)).add_(centre).clamp_(0, 1)

    def along(self, slope: Tensor) -> Tensor:
        """The step of length 1 in which a slope (n, c, h, w) rises most (0 where the slope is 0)."""
        if self.norm == "Linf":
            return slope.sign()
        # By the largest value first: squares of a slope of 1e-30 would be 0.
        unit = slope / _floored(slope.abs().amax((1, 2, 3), keepdim=True))
        return unit / _floored(lengths(unit))

    def steepness(self, slope: Tensor) -> Tensor:
        """How much a function of this slope (n, c, h, w) can rise a unit of the norm: the dual norm, (n,)."""
        flat = slope.flatten(1)
        return flat.abs().sum(1) if self.norm == "Linf" else flat.square().sum(1).sqrt()

    def random(self, centre: Tensor, dice: torch.Generator) -> Tensor:
        """A point uniform in the ball, clamped to [0, 1]."""
        if self.norm == "Linf":
            noise = torch.rand(centre.shape, generator=dice, device=centre.device)
            return (centre + noise.mul_(2 * self.eps).sub_(self.eps)).clamp_(0, 1)
        noise = self.along(torch.randn(centre.shape, generator=dice, device=centre.device))
        far = torch.rand(len(centre), 1, 1, 1, generator=dice, device=centre.device)
        return self.project(centre + self.eps * far ** (1 / centre[0].numel()) * noise, centre)


def lengths(moved: Tensor) -> Tensor:
    """L2 lengths of differences (n, c, h, w), as (n, 1, 1, 1)."""
    return moved.square().sum((1, 2, 3), keepdim=True).sqrt()


def _floored(values: Tensor) -> Tensor:
    return values.clamp_min(torch.finfo(values.dtype).tiny)

"""The set in which an attack searches, and one step of ascent in it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor


class Ball(NamedTuple):
    """All images in [0, 1] within `eps` (pixel units) of their originals, in L-inf or L2 over the whole image."""

    eps: float
    norm: Literal["Linf", "L2"] = "Linf"

    def project(self, images: Tensor, centre: Tensor) -> Tensor:
        """The nearest images (n, 3, h, w) of the ball, then of [0, 1] (which leaves them in the ball)."""
        apart = images - centre
        if self.norm == "Linf":
            apart = apart.clamp(-self.eps, self.eps)
        else:
            apart = apart * (self.eps / _length(apart)).clamp(max=1)
        return (centre + apart).clamp(0, 1)

    def ascend(self, images: Tensor, slope: Tensor, centre: Tensor, share: float) -> Tensor:
        """A step of `share` of eps along the gradient's sign (L-inf) or the gradient (L2), and back into the ball.

        A gradient that is not finite counts as zero.
        """
        slope = torch.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0)
        step = slope.sign() if self.norm == "Linf" else slope / _length(slope)
        return self.project(images + share * self.eps * step, centre)

    def random(self, centre: Tensor, dice: torch.Generator) -> Tensor:
        """A random image of the ball for each original: uniform in L-inf; in L2 on the sphere."""
        shape, device = centre.shape, centre.device
        if self.norm == "Linf":
            apart = torch.rand(shape, generator=dice, device=device).mul_(2 * self.eps).sub_(self.eps)
        else:
            apart = torch.randn(shape, generator=dice, device=device)
            apart = apart * (self.eps / _length(apart))
        return self.project(centre + apart, centre)


def _length(apart: Tensor) -> Tensor:
    return apart.flatten(1).square().sum(1).sqrt().clamp_min(1e-12).view(-1, 1, 1, 1)

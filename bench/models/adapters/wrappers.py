"""What stands between images in [0, 1] and networks that expect something else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.models.adapters.randomised import GlobalRandom as GlobalRandom
from bench.models.adapters.randomised import seeded as seeded


class Prepared(nn.Module):
    """A network behind its preprocessing: bilinear resize to (size, size) with antialiasing, then (x - mean) / std.

    Both are differentiable, so attacks go through them; `mean` and `std` are one number a channel
    in pixel units, as buffers. ValueError if only one of them is given or a std is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, net: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None, size: int | None = None
    ) -> None:
        super().__init__()
        if (mean is None) != (std is None) or (mean is not None and std is not None and len(mean) != len(std)):
            raise ValueError("mean and std go together, one number a channel each.")
        if std is not None and min(std) <= 0:
            raise ValueError(f"std must be positive, not {list(std)}.")
        self.net, self.size = net, size
        self.register_buffer("mean", torch.tensor(mean or (0.0,)).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std or (1.0,)).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if self.size is not None and images.shape[-2:] != (self.size, self.size):
            images = functional.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        logits: Tensor = self.net((images - self.mean) / self.std)
        return logits

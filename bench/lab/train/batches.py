"""Training images on the device: order of an epoch, gathered and augmented batches."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

PAD = 4


class Batches:
    """Images that stay on the device as bytes, from which batches are gathered and augmented there.

    `images` (n, h, w, 3) uint8, `labels` (n,) int64, both moved to `device`. "crop-flip" is the usual
    augmentation of CIFAR-10 (He et al. 2016): 4 black pixels on each side, a random crop of the
    original size, and a left-right flip of every other image; "flip" is the flip alone.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, augment: Literal["none", "flip", "crop-flip"], device: torch.device
    ) -> None:
        self.height, self.width = images.shape[1:3]
        self.augment = augment
        if augment == "crop-flip":
            images = F.pad(images, (0, 0, PAD, PAD, PAD, PAD))
        self.images, self.labels = images.to(device), labels.to(device)

    def __call__(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images (b, 3, h, w) float32 in [0, 1], channels last in memory, and labels (b,), of these rows."""
        picked = self.images[rows] if self.augment == "none" else self._moved(rows, generator)
        # NHWC in memory seen as NCHW is the channels_last format: no copy.
        return picked.permute(0, 3, 1, 2).float().div_(255), self.labels[rows]

    def _moved(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        n, device = len(rows), rows.device
        ys = torch.arange(self.height, device=device).expand(n, -1)
        xs = torch.arange(self.width, device=device).expand(n, -1)
        flipped = torch.randint(2, (n, 1), generator=generator, device=device, dtype=torch.bool)
        xs = torch.where(flipped, self.width - 1 - xs, xs)
        if self.augment == "crop-flip":
            shift = torch.randint(2 * PAD + 1, (2, n, 1), generator=generator, device=device)
            ys, xs = ys + shift[0], xs + shift[1]
        return self.images[rows[:, None, None], ys[:, :, None], xs[:, None, :]]


def order(n: int, generator: torch.Generator) -> Tensor:
    """A permutation (n,) int64, from a generator of the CPU: the same order for every device."""
    return torch.randperm(n, generator=generator)

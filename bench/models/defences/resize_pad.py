"""Random resizing and padding of the input.

Xie, Wang, Zhang, Ren & Yuille, "Mitigating Adversarial Effects Through Randomization", ICLR 2018.
Published claim: on ImageNet alone; broken to 0 % by Athalye, Carlini & Wagner (ICML 2018) with EoT.
Definition, for 299 x 299 images: r ~ U{299..330}, bilinear resize to r x r, offsets ~ U{0..331 - r - 1} in both
directions, the value 0.5 around, 331 x 331 in all. The same for 32 x 32 here: r ~ U{32..39} on a canvas of 40.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.models.classifier import Classifier, Realisation, Where
from bench.models.defences.base import needed


class ResizePad(Classifier):
    """Over any classifier whose network takes images of `canvas` x `canvas` (it pools over all its pixels).

    Size and offsets are drawn for each image. ValueError unless 1 <= smallest <= largest < canvas.
    """

    stochastic = True
    where = Where("input", shared=False)

    def __init__(
        self, base: Classifier, smallest: int = 32, largest: int = 39, canvas: int = 40, fill: float = 0.5
    ) -> None:
        super().__init__()
        if not 1 <= smallest <= largest < canvas:
            raise ValueError(f"sizes must be 1 <= smallest <= largest < canvas: {smallest}, {largest}, {canvas}")
        self.base, self.classes = base, base.classes
        self.smallest, self.largest, self.canvas, self.fill = smallest, largest, canvas, fill

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        generator = needed(generator)
        n = shape[0]
        sizes = torch.randint(self.smallest, self.largest + 1, (n,), generator=generator, device=generator.device)
        u = torch.rand(n, 2, generator=generator, device=generator.device)
        corners = (u * (self.canvas - sizes).view(-1, 1)).long()  # 0 .. canvas - size - 1
        base = self.base.realise((n, shape[1], self.canvas, self.canvas), generator)

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            at = slice(None) if rows is None else rows
            return base(self.placed(images, sizes[at].tolist(), corners[at].tolist()), rows)

        return realisation

    def placed(self, images: Tensor, sizes: list[int], corners: list[list[int]]) -> Tensor:
        """Each image (3, h, w) at its size, with its corner (top, left), on a canvas of its own."""
        found = []
        for image, size, (top, left) in zip(images, sizes, corners, strict=True):
            resized = F.interpolate(image[None], (size, size), mode="bilinear", align_corners=False)[0]
            margins = (left, self.canvas - size - left, top, self.canvas - size - top)
            found.append(F.pad(resized, margins, value=self.fill))
        return torch.stack(found)

    def mean(self) -> Classifier:
        """The base, without noise, on the image as it is: what is attacked when the defence is forgotten."""
        return self.base.mean()

"""Random crops, enlarged: the cropping-rescaling ensemble.

Guo, Rana, Cissé & van der Maaten, "Countering Adversarial Images Using Input Transformations", ICLR 2018.
Published claim: on ImageNet alone; broken to 0 % by Athalye, Carlini & Wagner (ICML 2018) with EoT.
Definition as the mixup-inference authors use it on CIFAR-10 (Pang, Xu & Zhu, ICLR 2020): s ~ U{24..32}, a random crop
of s x s, bilinear resize to 32 x 32, eight bits a value, mean softmax over 50 draws (a model's samples and soft rule).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.models.classifier import Classifier, Realisation, Where
from bench.models.defences.base import needed


class CropEnsemble(Classifier):
    """One crop of each image, over any classifier. Sizes are those of the side of a `side` x `side` image.

    `eight_bit` rounds what the base is given to multiples of 1/255, with the gradient of the identity (BPDA): without
    it rounding would hide the gradient and defend nothing. ValueError unless 1 <= smallest <= largest.
    """

    stochastic = True
    where = Where("input", shared=False)

    def __init__(self, base: Classifier, smallest: int = 24, largest: int = 32, eight_bit: bool = True) -> None:
        super().__init__()
        if not 1 <= smallest <= largest:
            raise ValueError(f"sizes must be 1 <= smallest <= largest: {smallest}, {largest}")
        self.base, self.classes = base, base.classes
        self.smallest, self.largest, self.eight_bit = smallest, largest, eight_bit

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        generator = needed(generator)
        n, side = shape[0], min(shape[2:])
        if self.largest > side:
            raise ValueError(f"crops of {self.largest} pixels from images of {side}")
        sizes = torch.randint(self.smallest, self.largest + 1, (n,), generator=generator, device=generator.device)
        u = torch.rand(n, 2, generator=generator, device=generator.device)
        room = torch.tensor(shape[2:], device=generator.device) - sizes.view(-1, 1) + 1
        corners = (u * room).long()  # 0 .. side - size
        base = self.base.realise(shape, generator)

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            at = slice(None) if rows is None else rows
            return base(self.cropped(images, sizes[at].tolist(), corners[at].tolist()), rows)

        return realisation

    def cropped(self, images: Tensor, sizes: list[int], corners: list[list[int]]) -> Tensor:
        """The crop of each image (3, h, w) with its size and corner (top, left), enlarged to (3, h, w)."""
        found = []
        for image, size, (top, left) in zip(images, sizes, corners, strict=True):
            crop = image[None, :, top : top + size, left : left + size]
            found.append(F.interpolate(crop, image.shape[1:], mode="bilinear", align_corners=False)[0])
        whole = torch.stack(found)
        return whole + ((whole * 255).round() / 255 - whole).detach() if self.eight_bit else whole

    def mean(self) -> Classifier:
        """The base, without noise, on the whole image: what is attacked when the defence is forgotten."""
        return self.base.mean()

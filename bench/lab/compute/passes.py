"""Where and how networks run: device, precision, microbatch; the one place that meets out-of-memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from bench import Refused
from bench.lab.compute.memory import give_back, out_of_memory
from bench.models.classifier import Classifier, Realisation

Part = TypeVar("Part")
CACHE = 8_000_000  # bytes of the widest layer that a CPU works on at once
LEAST = 8  # images, below which the weights' own traffic costs more than the cache saves
Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (n, classes) and labels (n,) to a loss for each image (n,)."""


class Disconnected(Refused):
    """A gradient was asked of a model whose output autograd does not lead back to the image."""

    def __init__(self, where: str = "the model", what: str = "", fix: str = "") -> None:
        super().__init__(
            where,
            what or "its output does not depend differentiably on the image: no gradient attack can be run on it",
            fix or "attack it with Square, by transfer from another model, or through a straight-through view of it",
        )


@dataclass
class Compute:
    """Runs realisations in microbatches. `note` is told, once, when memory made them smaller, `lowered` their new size.

    Counts forward and backward passes (one pass = one image) for the provenance.

    `joining`: draws may share a pass where that is faster; the same noise, but other last bits.

    The precision is "float32" or "bfloat16" (autocast), as the recipe declares it, never a choice made here.
    """

    device: torch.device
    precision: str = "float32"
    microbatch: int = 512
    note: Callable[[str], None] = lambda message: None
    joining: bool = True
    lowered: Callable[[int], None] = lambda size: None
    forwards: int = field(default=0)
    backwards: int = field(default=0)

    def logits(self, realisation: Realisation, images: Tensor, rows: Tensor | None = None) -> Tensor:
        """Logits (n, classes) float32 without gradient; `rows` as in `Realisation`."""

        def run(start: int, stop: int) -> Tensor:
            part = torch.arange(start, stop, device=images.device) if rows is None else rows[start:stop]
            with torch.no_grad(), self.autocast():
                return realisation(images[start:stop], part).float()

        parts = self._parts(run, len(images))
        self.forwards += len(images)
        return torch.cat(parts)

    def gradient(
        self, realisation: Realisation, images: Tensor, labels: Tensor, loss: Loss, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss (n,), its gradient to the images (n, 3, h, w), and the logits (n, classes), float32."""

        def run(start: int, stop: int) -> tuple[Tensor, Tensor]:
            part = torch.arange(start, stop, device=images.device) if rows is None else rows[start:stop]
            leaf = images[start:stop].detach().requires_grad_(True)
            with torch.enable_grad(), self.autocast():
                logits = realisation(leaf, part).float()
                value = loss(logits, labels[start:stop])
                if not value.requires_grad:
                    raise Disconnected()
                (slope,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
                if slope is None:
                    raise Disconnected()
            slopes[start:stop] = slope
            return value.detach(), logits.detach()

        # In the images' own layout, whatever the network's: an attack's arithmetic then meets one layout only.
        slopes = torch.empty_like(images)
        parts = self._parts(run, len(images))
        self.forwards += len(images)
        self.backwards += len(images)
        losses, logits = zip(*parts, strict=True)
        return torch.cat(losses), slopes, torch.cat(logits)

    def suit(self, widest: int) -> None:
        """Lower the microbatch to what a CPU's cache holds, for a network whose `widest` layer has that many numbers
        an image; a GPU is left the largest that its memory takes.

        On a CPU the memory of a layer above 32 MB is besides given back and asked for anew at every use. The rule
        looks at no clock, so that a repeated run computes the same last bits.
        """
        if self.device.type == "cpu" and widest > 0:
            size = 2 if self.precision == "bfloat16" else 4
            self.microbatch = min(self.microbatch, max(LEAST, CACHE // (widest * size)))

    def part(self, left: int) -> int:
        """How many of `left` images go next: parts of one size, because a small rest is slow."""
        return -(-left // -(-left // self.microbatch))

    def joint(self, model: Classifier, draws: int, images: int) -> int:
        """How many of `draws` draws of `model` for so many images go next, in one pass where it is more than one."""
        if not (self.joining and model.joins and 0 < 4 * images <= self.microbatch):  # above it gains nothing
            return 1
        return min(draws, self.microbatch // images)  # all but the last pass of one size, as compiled networks need

    def autocast(self) -> torch.autocast:
        """The precision's autocast context."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _parts(self, run: Callable[[int, int], Part], n: int) -> list[Part]:
        parts: list[Part] = []
        start = 0
        while start < n:
            left = n - start
            stop = start + self.part(left)
            try:
                parts.append(run(start, stop))
                start = stop
                continue
            except RuntimeError as error:
                if not out_of_memory(error) or self.microbatch == 1:
                    raise
            self.lower(stop - start, "going on with {} images at a time")
        return parts

    def lower(self, failed: int, words: str) -> None:
        """Take half as many images at once as memory did not suffice for, and say so in `words`.

        To be called outside the except clause, whose traceback holds the memory of the pass that failed.
        """
        self.microbatch = max(1, min(self.microbatch, failed) // 2)
        give_back(self.device)
        self.lowered(self.microbatch)
        self.note("out of memory: " + words.format(self.microbatch))


def laid_out(model: Classifier, shape: tuple[int, int, int] = (3, 32, 32)) -> int:
    """Put a model's weights in channels_last, which convolutions compute in, and measure it by one image of `shape`.

    Returns the numbers an image has in its widest layer, for `Compute.suit`; 0 if the model cannot take one
    image. The weights stay as they were in a model whose forward pass asks for another layout (as
    `view` of a feature map does).
    """
    for layout in (torch.channels_last, torch.contiguous_format):
        model.to(memory_format=layout)
        # Whatever a stranger's network raises here, it raises again, and is reported, where it is used.
        with contextlib.suppress(Exception):
            return widest(model, shape)
    return 0


def widest(model: Classifier, shape: tuple[int, int, int] = (3, 32, 32)) -> int:
    """The most numbers that any module of `model` puts out for one image of `shape` (channels, height, width)."""
    most = 0

    def look(module: torch.nn.Module, inputs: object, output: object) -> None:
        nonlocal most
        if isinstance(output, Tensor):
            most = max(most, output.numel())

    place = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    generator = torch.Generator(device=place).manual_seed(0)  # it decides nothing
    hooks = [module.register_forward_hook(look) for module in model.modules()]
    try:
        with torch.no_grad():
            model.realise((1, *shape), generator)(torch.zeros(1, *shape, device=place))
    finally:
        for hook in hooks:
            hook.remove()
    return most

"""Where and how networks run: device, precision, microbatch; the one place that meets out-of-memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from bench.errors import UserError
from models.classifier import Realisation

Part = TypeVar("Part")
Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (n, classes) and labels (n,) to a loss for each image (n,)."""


@dataclass
class Compute:
    """Runs realisations in microbatches. `note` is told, once, when memory made them smaller.

    Counts forward and backward passes (one pass = one image) for the provenance.
    """

    device: torch.device
    precision: str = "float32"
    microbatch: int = 512
    note: Callable[[str], None] = lambda message: None
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

        def run(start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
            part = torch.arange(start, stop, device=images.device) if rows is None else rows[start:stop]
            leaf = images[start:stop].detach().requires_grad_(True)
            with torch.enable_grad(), self.autocast():
                logits = realisation(leaf, part).float()
                value = loss(logits, labels[start:stop])
                (slope,) = torch.autograd.grad(value.sum(), leaf)
            return value.detach(), slope, logits.detach()

        parts = self._parts(run, len(images))
        self.forwards += len(images)
        self.backwards += len(images)
        losses, slopes, logits = zip(*parts, strict=True)
        return torch.cat(losses), torch.cat(slopes), torch.cat(logits)

    def autocast(self) -> torch.autocast:
        """The precision's autocast context."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _parts(self, run: Callable[[int, int], Part], n: int) -> list[Part]:
        parts: list[Part] = []
        start = 0
        while start < n:
            stop = min(n, start + self.microbatch)
            try:
                parts.append(run(start, stop))
            except RuntimeError as error:
                if not out_of_memory(error) or self.microbatch == 1:
                    raise
                self.microbatch = max(1, min(self.microbatch, stop - start) // 2)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                self.note(f"out of memory: going on with {self.microbatch} images at a time")
                continue
            start = stop
        return parts


def out_of_memory(error: BaseException) -> bool:
    """Whether a RuntimeError says that the device's or the host's memory was not enough."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    text = str(error)
    return "out of memory" in text or "can't allocate memory" in text or "DefaultCPUAllocator" in text


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name` ("auto": a GPU if there is one); UserError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError("--device", f"no device is called {name!r}", "use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UserError("--device", f"this machine has no {name}", "use --device cpu or auto")
    return device

"""Networks whose noise a method draws and keeps, behind the one interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.models.adapters.randomised import seeded
from bench.models.classifier import Classifier, Realisation


class Redrawn(Classifier):
    """A network whose noise lies in its state: ``redraw(generator)`` draws it, and it stays until the next.

    A draw is a seed: each pass redraws with it first, so that a realisation stays what it was whatever was drawn since.
    What the method draws from the global generators instead (torch, NumPy, random) is seeded too, and they stay still.
    """

    stochastic = True
    alters = True

    def __init__(self, net: nn.Module, redraw: Callable[[torch.Generator], Any], classes: int) -> None:
        super().__init__()
        self.net, self.redraw, self.classes = net, redraw, classes

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        if generator is None:
            raise ValueError("noise needs a generator: it is never drawn from the global one")
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            with seeded(seed), torch.no_grad():
                self.redraw(torch.Generator(device=images.device).manual_seed(seed))
            logits: Tensor = self.net(images)
            return logits

        return realisation

    def settle(self) -> None:
        """Draw the noise of seed 0, so that the state is one that can be met again."""
        place = next((tensor.device for tensor in self.net.parameters()), torch.device("cpu"))
        with seeded(0), torch.no_grad():
            self.redraw(torch.Generator(device=place).manual_seed(0))

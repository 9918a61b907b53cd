"""What stands between images in [0, 1] and networks that expect something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.models.adapters.randomised import GlobalRandom as GlobalRandom
from bench.models.adapters.randomised import seeded as seeded
from bench.models.classifier import Classifier, Realisation


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


class Held(Classifier):
    """A third party's network whose noise stays in its state until a hook redraws it: so several are published.

    `redraw(generator)` is that hook; what it draws from the global generators instead (torch, NumPy, random) is fenced
    and seeded. A draw is a seed, by which every pass redraws: without the hook five passes would look deterministic.
    """

    stochastic = True
    alters = True

    def __init__(self, net: nn.Module, classes: int, redraw: Callable[[torch.Generator], object]) -> None:
        super().__init__()
        self.net, self.classes, self.redraw = net, classes, redraw

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        if generator is None:
            raise ValueError("noise needs a generator: it is never drawn from the global one")
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        device = generator.device

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            with seeded(seed), torch.no_grad():
                self.redraw(torch.Generator(device).manual_seed(seed))
            logits: Tensor = self.net(images)
            return logits

        return realisation

"""Random weights under constrained trade-off: a learned multiplicative noise.

Ma, Dong & Xu, "Adversarial Robustness through Random Weight Sampling", NeurIPS 2023.
Published claim: CIFAR-10, 16 to 17 points over adversarial training under PGD-20 and 22 to 25 under AutoAttack, both
run against one draw (unless `--eot`) and scored on another.
Definition: h <- h (mu + sigma z) at one place of the network, by default its normalised input; mu and sigma (C, H, W)
learned, both from 1; z ~ N(0, 1) of one image's shape, shared by the batch. At a draw every sigma below the floor
2048 / (C H W) is raised by the floor less the smallest sigma.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.models.classifier import Classifier, Realisation, Where
from bench.models.defences.base import Fixed, altered, convolutions, fed, needed, stages


class CTRW(Classifier):
    """Over any network, trained through it. `position` 0: the input of the first convolution; 1, 2, ...: the input of
    the stages of a residual network. `image` (3, h, w) says which images it is for. ValueError for a position that the
    network lacks, or a negative bound.
    """

    stochastic = True
    alters = True
    where = Where("features", shared=True, held=True, redraw="set_rands")

    def __init__(
        self,
        net: nn.Module,
        classes: int,
        position: int = 0,
        bound: float = 2048.0,
        image: tuple[int, int, int] = (3, 32, 32),
    ) -> None:
        super().__init__()
        places = (convolutions(net)[0], *(stages(net) if position else ()))
        if not 0 <= position < len(places) or bound < 0:
            raise ValueError(
                f"position must be one of 0..{len(places) - 1} and bound not negative: {position}, {bound}"
            )
        self.net, self.classes, self.site = net, classes, places[position]
        size = self._size(image)
        self.floor = bound / size.numel()
        self.noise = nn.ParameterDict({"mu": torch.ones(size), "sigma": torch.ones(size)})

    def _size(self, image: tuple[int, int, int]) -> torch.Size:
        """The shape (C, H, W) of what the site is given for one image."""
        seen: list[torch.Size] = []
        mode = self.net.training

        def look(x: Tensor) -> Tensor:
            seen.append(x.shape[1:])
            return x

        with torch.no_grad(), altered(self.net, fed(self.net, (self.site,), look)):
            self.net.eval()(torch.zeros(1, *image))
        self.net.train(mode)
        return seen[0]

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        sigma = self.noise["sigma"]
        z = torch.randn(sigma.shape, generator=needed(generator), device=sigma.device, dtype=sigma.dtype)
        return self.given(self.noise["mu"] + self.spread() * z)

    def spread(self) -> Tensor:
        """sigma (C, H, W) as a draw uses it, above the floor."""
        sigma = self.noise["sigma"]
        return torch.where(sigma < self.floor, sigma + (self.floor - sigma.detach().min()), sigma)

    def given(self, factor: Tensor) -> Realisation:
        """The network with this factor (C, H, W)."""

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            with altered(self.net, fed(self.net, (self.site,), lambda h: h * factor.to(h.dtype))):
                logits: Tensor = self.net(images)
            return logits

        return realisation

    def mean(self) -> Classifier:
        """The network with the mean of the factor, mu."""
        return Fixed(self, lambda images: self.given(self.noise["mu"])(images))

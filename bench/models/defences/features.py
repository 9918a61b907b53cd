"""Randomised features: Gaussian or Laplace noise between the stages of a network.

Nguyen et al., "Understanding the Robustness of Randomized Feature Defense Against Query-Based Adversarial Attacks",
ICLR 2024.
Published claim: higher accuracy under twelve black-box attacks on CIFAR-10 and ImageNet, the scale chosen by a clean
accuracy that falls by one or two points; none against an attacker with gradients.
Definition: h <- h + sigma z at the entrance of every stage (after the stem, and after each stage but the last), z of
unit scale elementwise, for each image.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.models.classifier import Classifier, Plain, Realisation, Where
from bench.models.defences.base import PerImage, altered, fed, stages


class RandomFeatures(Classifier):
    """Noise of scale `sigma` on what the modules called `sites` are given; by default the stages of a residual network.

    law = "gaussian": z ~ N(0, 1); "laplace": density exp(-|z|) / 2. ValueError for a negative sigma, an unknown law,
    or sites that the network lacks.
    """

    stochastic = True
    alters = True
    where = Where("features", shared=False)

    def __init__(
        self,
        net: nn.Module,
        classes: int,
        sigma: float = 0.1,
        sites: tuple[str, ...] = (),
        law: Literal["gaussian", "laplace"] = "gaussian",
    ) -> None:
        super().__init__()
        if not 0 <= sigma < float("inf") or law not in ("gaussian", "laplace"):
            raise ValueError(f"sigma must be finite and not negative, and law gaussian or laplace: {sigma}, {law!r}")
        self.net, self.classes, self.sigma, self.law = net, classes, sigma, law
        self.sites = sites or stages(net)
        known = {name for name, _ in net.named_modules()}
        if missing := set(self.sites) - known:
            raise ValueError(f"the network has no module {sorted(missing)[0]}")

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        noise = PerImage(shape[0], generator)

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            stream = noise.stream(rows)

            def blurred(h: Tensor) -> Tensor:
                if self.law == "gaussian":
                    z = stream.normal(h)
                else:
                    u = stream.uniform(h) - 0.5
                    z = -u.sign() * torch.log1p(-2 * u.abs())
                return h + self.sigma * z.to(h.dtype)

            with altered(self.net, fed(self.net, self.sites, blurred)):
                logits: Tensor = self.net(images)
            return logits

        return realisation

    def mean(self) -> Classifier:
        """The network with the mean of the noise, which is none."""
        return Plain(self.net, self.classes)

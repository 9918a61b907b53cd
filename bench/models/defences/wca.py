"""Weight-covariance alignment: learned, correlated noise before the last layer.

Eustratiadis, Gouk, Li & Hospedales, "Weight-covariance Alignment for Adversarially Robust Neural Networks", ICML 2021.
Published claim: CIFAR-10, ResNet-18, 93.2 % clean, 77.6 under FGSM and 71.4 under PGD, without adversarial training,
under an EoT whose copies share one draw.
Definition: f = ReLU(linear layer with 32 outputs); logits P (f + L z) + b with L (32, 32) lower-triangular, U(0, 1) at
first, z ~ N(0, I_32) for each forward pass, shared by the batch. The loss is cross-entropy - log tr(P L L' P').
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.classifier import Classifier, Realisation, Where
from bench.models.defences.base import Change, Fixed, altered, needed


class WCA(Classifier):
    """Over any network that ends in a linear layer, which this head of `width` features replaces; trained through it.

    The noise enters the logits linearly, so that their mean is P f + b. ValueError without a linear layer.
    """

    stochastic = True
    alters = True
    where = Where("features", shared=True)

    def __init__(self, net: nn.Module, classes: int, width: int = 32, generator: torch.Generator | None = None) -> None:
        super().__init__()
        last = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
        if not last or width < 1:
            raise ValueError("the network must end in a linear layer, and width be at least 1")
        self.net, self.classes, self.site = net, classes, last[-1]
        features = net.get_submodule(self.site).in_features
        self.squeeze, self.out = nn.Linear(int(features), width), nn.Linear(width, classes)  # type: ignore[arg-type]
        for layer in (self.squeeze, self.out):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear", generator=generator)
            nn.init.zeros_(layer.bias)
        self.noise = nn.ParameterDict({"factor": torch.rand(width, width, generator=generator).tril()})

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        factor = self.noise["factor"].tril()
        z = torch.randn(len(factor), generator=needed(generator), device=factor.device, dtype=factor.dtype)
        return self.given(factor @ z)

    def given(self, shift: Tensor) -> Realisation:
        """The network with this shift (width,) of its features."""
        head: Change = lambda h: self.out(F.relu(self.squeeze(h)) + shift)  # noqa: E731

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            with altered(self.net, {self.site: head}):
                logits: Tensor = self.net(images)
            return logits

        return realisation

    def mean(self) -> Classifier:
        """The mean of the logits, P f + b."""
        return Fixed(self, lambda images: self.given(torch.zeros_like(self.out.weight[0]))(images))

    def penalty(self) -> Tensor:
        """-log tr(P L L' P'): without bound, so that noise and logits grow together."""
        spread = self.out.weight @ self.noise["factor"].tril()
        size: Tensor = spread.square().sum()
        return size.log().neg()

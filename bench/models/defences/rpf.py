"""Random projection filters.

Dong & Xu, "Adversarial Robustness via Random Projection Filters", CVPR 2023.
Published claim: CIFAR-10, ResNet-18, about 61 % under PGD-20 and more under AutoAttack, both run against one draw and
scored on another.
Definition: of the 64 filters of the first convolution (k x k) 48 are random, N(0, 1/k^2) elementwise, and 16 learned,
w / (std of the filter + 1e-5) / k; a normalisation follows. Drawn anew before the attack and again before the update.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bench.models.classifier import Classifier, Realisation, Where
from bench.models.defences.base import Fixed, convolutions, needed


class RPF(Classifier):
    """Over any network, trained through it; the share `random` of its first convolution's filters, the last of them.

    ValueError for a share outside (0, 1), or one that leaves no filter of either kind.
    """

    stochastic = True
    where = Where("weights", shared=True, held=True, redraw="random_rp_matrix")

    def __init__(self, net: nn.Module, classes: int, random: float = 0.75) -> None:
        super().__init__()
        self.net, self.classes = net, classes
        self.site = f"{convolutions(net)[0]}.weight".lstrip(".")
        filters = len(self.filters)
        self.learned = filters - round(random * filters)
        if not 0 < self.learned < filters:
            raise ValueError(f"random = {random} leaves {self.learned} of {filters} filters to learn")

    @property
    def filters(self) -> Tensor:
        """The first convolution's weight (out, in, k, k); what random filters replace in it is never used."""
        return self.net.get_parameter(self.site)

    def weight(self, random: Tensor) -> Tensor:
        """Learned filters, normalised, before the `random` ones."""
        learned = self.filters[: self.learned]
        spread = learned.flatten(1).std(1).view(-1, 1, 1, 1) + 1e-5
        return torch.cat([learned / spread / learned.shape[-1], random])

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        like = self.filters[self.learned :]
        z = torch.randn(like.shape, generator=needed(generator), device=like.device, dtype=like.dtype)
        return self.given(z / like.shape[-1])

    def given(self, random: Tensor) -> Realisation:
        """The network with these random filters (m, in, k, k)."""
        weight = self.weight(random)

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            logits: Tensor = functional_call(self.net, {self.site: weight}, (images,))
            return logits

        return realisation

    def mean(self) -> Classifier:
        """The network with the mean of its random filters: zero."""
        return Fixed(self, lambda images: self.given(torch.zeros_like(self.filters[self.learned :]))(images))

"""Random normalisation aggregation.

Dong, Chen, Wang & Xu, "Random Normalization Aggregation for Adversarial Defense", NeurIPS 2022.
Published claim: CIFAR-10, ResNet-18, 84.32 % clean and 60.94 % under PGD-20 run against one draw and scored on another.
Definition, with the authors' flags `--random_type bn --gn_type gnr`: every normalisation is a batch or an instance
normalisation (group normalisation with a group a channel), probability one half each, drawn for each layer and forward
pass, with affine parameters of its own. Training attacks one path and learns on another.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn

from bench.models.classifier import Atom, Classifier, Realisation, Where
from bench.models.defences.base import Change, Fixed, altered, needed

LISTED = 10
"""Layers up to which all 2^layers paths are listed as atoms."""


class RNA(Classifier):
    """Over any network with batch normalisations, which must be trained through it: the others start untrained.

    ValueError for a network without a batch normalisation.
    """

    stochastic = True
    alters = True
    where = Where("architecture", shared=True, held=True, redraw="set_norms")

    def __init__(self, net: nn.Module, classes: int) -> None:
        super().__init__()
        norms = {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.BatchNorm2d)}
        if not norms:
            raise ValueError("the network has no batch normalisation to draw another for")
        self.net, self.classes, self.sites = net, classes, tuple(norms)
        self.others = nn.ModuleList(
            nn.GroupNorm(norm.num_features, norm.num_features, eps=norm.eps) for norm in norms.values()
        )

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        generator = needed(generator)
        u = torch.rand(len(self.sites), generator=generator, device=generator.device)
        return self.path((u < 0.5).tolist())

    def path(self, instance: list[bool]) -> Realisation:
        """The network with an instance normalisation where `instance` says so, layer by layer."""
        chosen = zip(self.sites, self.others, instance, strict=True)
        forwards: dict[str, Change] = {name: other.forward for name, other, use in chosen if use}

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            with altered(self.net, forwards):
                logits: Tensor = self.net(images)
            return logits

        return realisation

    def atoms(self) -> tuple[Atom, ...]:
        """All paths of a network of at most ten normalisations."""
        layers = len(self.sites)
        if layers > LISTED:
            return ()
        return tuple(Atom(0.5**layers, self.path(list(path))) for path in product((False, True), repeat=layers))

    def mean(self) -> Classifier:
        """The network whose every normalisation is the mean of its two."""
        own = [self.net.get_submodule(name).forward for name in self.sites]

        def both(one: Change, other: Change) -> Change:
            return lambda x: (one(x) + other(x)) / 2

        pairs = zip(self.sites, own, self.others, strict=True)
        forwards = {name: both(forward, other.forward) for name, forward, other in pairs}

        def answer(images: Tensor) -> Tensor:
            with altered(self.net, forwards):
                logits: Tensor = self.net(images)
            return logits

        return Fixed(self, answer)

"""A mixture of two networks: one of them answers, drawn anew for every forward pass.

Pinot, Ettedgui, Rizk, Chevaleyre & Atif, "Randomization Matters: How to Defend Against Strong Adversarial Attacks",
ICML 2020 (boosted adversarial training: a network, and a second one trained on the first one's adversarial examples).
Published claim: large gains over adversarial training on CIFAR-10 under PGD on the mean loss; Dbouk & Shanbhag (ICML
2022) find it below a single adversarially trained network with an attack made for it (ARC).
Definition: the first network with probability 0.9, else the second.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.models.classifier import Atom, Classifier, Realisation, Where
from bench.models.defences.base import Fixed, needed


class Mixture(Classifier):
    """`first` with probability `share`, else `second`; one answers a whole batch. Two atoms, or those of randomised
    members each. ValueError for a share outside [0, 1], or networks with different classes.
    """

    stochastic = True
    where = Where("architecture", shared=True)

    def __init__(self, first: Classifier, second: Classifier, share: float = 0.9) -> None:
        super().__init__()
        if not 0 <= share <= 1:
            raise ValueError(f"share is a probability, not {share}")
        if first.classes != second.classes:
            raise ValueError(f"the networks have {first.classes} and {second.classes} classes")
        self.first, self.second, self.share, self.classes = first, second, share, first.classes

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        generator = needed(generator)
        u = float(torch.rand((), generator=generator, device=generator.device))
        return (self.first if u < self.share else self.second).realise(shape, generator)

    def atoms(self) -> tuple[Atom, ...]:
        found = []
        for member, chance in ((self.first, self.share), (self.second, 1 - self.share)):
            inner = member.atoms() if member.stochastic else (Atom(1.0, member.realise((), None)),)
            if not inner:
                return ()
            found += [Atom(chance * atom.chance, atom.realisation) for atom in inner]
        return tuple(found)

    def mean(self) -> Classifier:
        """The logarithm of the mean softmax of both networks, each without noise."""
        first, second = self.first.mean(), self.second.mean()

        def answer(images: Tensor) -> Tensor:
            both = torch.stack([first(images).log_softmax(1), second(images).log_softmax(1)])
            shares = both.new_tensor([self.share, 1 - self.share]).log().view(2, 1, 1)
            return torch.logsumexp(both + shares, 0)

        return Fixed(self, answer)

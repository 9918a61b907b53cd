"""Expected accuracy without sampling: the sum over a classifier's atoms, where its draws are finitely many."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bench.lab.compute.passes import Compute
from bench.models.classifier import Classifier


class Exact(NamedTuple):
    """chances (atoms,) float64, whose sum is 1; right (atoms, n) bool: whether that draw is right on that image."""

    chances: Tensor
    right: Tensor

    @property
    def accuracy(self) -> Tensor:
        """Each image's probability of being right in one draw (n,), float64."""
        return self.chances @ self.right.double()


def exact(model: Classifier, images: Tensor, labels: Tensor, compute: Compute) -> Exact | None:
    """All atoms of `model` on images (n, 3, h, w) with labels (n,); None where they cannot be listed.

    A deterministic model has one atom, itself. Ties are the judge's: the lowest class.
    """
    if model.stochastic:
        atoms = model.atoms()
        if not atoms:
            return None
        chances, draws = zip(*atoms, strict=True)
    else:
        with torch.no_grad():
            chances, draws = (1.0,), (model.realise(images.shape, None),)
    right = torch.stack([compute.logits(draw, images).argmax(1) == labels for draw in draws])
    return Exact(torch.tensor(chances, dtype=torch.float64, device=images.device), right)

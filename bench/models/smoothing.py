"""Randomised smoothing: Gaussian noise on the input of a classifier (Cohen et al. 2019, arXiv 1902.02918)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from bench.models.classifier import Classifier, Plain, Realisation, Where


class Smoothed(Classifier):
    """One draw of a smoothed classifier: the base's own noise, and N(0, sigma^2) on each input value.

    Votes over many draws are the smoothed prediction; taking them is the judge's business.
    `sigma` is in pixel units (inputs in [0, 1]) for ``unit="pixels"``; for ``"normalised"`` it is
    in units of `std`, one number a channel in pixel units, which is then required. Noisy inputs
    are not clamped to [0, 1], as in the definition. With sigma 0 no input noise is drawn.
    ValueError for a negative or non-finite sigma, an unknown unit or a missing std.
    """

    sigma: Tensor
    where = Where("input", shared=False)

    def __init__(
        self,
        base: Classifier,
        sigma: float,
        unit: Literal["pixels", "normalised"] = "pixels",
        std: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= sigma < float("inf"):
            raise ValueError(f"sigma must be finite and not negative, not {sigma}")
        if unit not in ("pixels", "normalised"):
            raise ValueError(f"unit must be 'pixels' or 'normalised', not {unit!r}")
        if unit == "normalised" and std is None:
            raise ValueError("unit='normalised' needs std, one number a channel")
        self.base, self.classes = base, base.classes
        self.noisy = sigma > 0
        self.stochastic = base.stochastic or self.noisy
        # Only where every step is known: what somebody's subclass or network makes of rows and draws is its own affair.
        self.joins = self.noisy and type(self).realise is Smoothed.realise and type(base).realise is Plain.realise
        channels = std if unit == "normalised" and std is not None else (1.0,)
        # Not in the state: sigma belongs to the recipe, not to the weights.
        self.register_buffer("sigma", sigma * torch.tensor(channels).view(-1, 1, 1), persistent=False)

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        """The base's draw first, then one tensor of input noise for the whole shape."""
        base = self.base.realise(shape, generator)
        if not self.noisy:
            return base
        return _beneath(base, self._noise(shape, generator))

    def realise_all(
        self,
        shape: torch.Size | tuple[int, ...],
        generators: Sequence[torch.Generator | None],
        rows: Tensor | None = None,
    ) -> Realisation:
        """As in `Classifier`, where the base is a `Plain` network."""
        if not self.joins:
            return super().realise_all(shape, generators, rows)
        # The whole shape is drawn for a few rows too, so that they meet the noise they would meet among all.
        drawn = (self._noise(shape, generator) for generator in generators)
        noise = torch.cat([one if rows is None else one[rows] for one in drawn])
        return _beneath(self.base.realise(noise.shape, None), noise)

    def mean(self) -> Classifier:
        """The base's own, without noise on its input."""
        return self.base.mean()

    def _noise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        if generator is None:
            raise ValueError("noise needs a generator: it is never drawn from the global one")
        sigma = self.sigma
        return torch.randn(shape, generator=generator, device=sigma.device, dtype=sigma.dtype) * sigma


def _beneath(base: Realisation, noise: Tensor) -> Realisation:
    def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
        return base(images + (noise if rows is None else noise[rows]), rows)

    return realisation

"""Recipes of the published randomised defences; bench/models/defences/ says what each is, and whose."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bench.recipes.base import Natural, Recipe

Positive = Annotated[float, Field(gt=0)]
Side = Annotated[int, Field(ge=1, le=4096)]
Sites = Annotated[tuple[str, ...], Field(strict=False)]

# -- over weights that were trained without them ---------------------------------------------------


class RND(Recipe):
    """Gaussian noise of deviation `nu` on the input, in units of pixels in [0, 1]."""

    kind: Literal["rnd"] = "rnd"
    nu: Positive = 0.02


class RandomFeatures(Recipe):
    """Noise of scale `sigma` on what the modules called `sites` are given (none: the stages of a residual network)."""

    kind: Literal["random-features"] = "random-features"
    sigma: Positive = 0.1
    law: Literal["gaussian", "laplace"] = "gaussian"
    sites: Sites = ()


class ResizePad(Recipe):
    """A size from smallest..largest, at a random place of a canvas of `canvas` x `canvas` filled with `fill`."""

    kind: Literal["resize-pad"] = "resize-pad"
    smallest: Side = 32
    largest: Side = 39
    canvas: Side = 40
    fill: Annotated[float, Field(ge=0, le=1)] = 0.5


class CropEnsemble(Recipe):
    """A crop of smallest..largest pixels a side, enlarged; a model's samples and rule = "soft" make the ensemble."""

    kind: Literal["crop-ensemble"] = "crop-ensemble"
    smallest: Side = 24
    largest: Side = 32
    eight_bit: bool = True


class SAP(Recipe):
    """Stochastic activation pruning after every convolution, `ratio` samples an activation."""

    kind: Literal["sap"] = "sap"
    ratio: Positive = 2.0
    gradient: Literal["exact", "straight"] = "exact"


class RandomPrecision(Recipe):
    """Inner convolutions rounded to lowest..highest bits, one number of bits for a forward pass."""

    kind: Literal["random-precision"] = "random-precision"
    lowest: Annotated[int, Field(ge=1, le=24)] = 4
    highest: Annotated[int, Field(ge=1, le=24)] = 16


class NoiseOff(Recipe):
    """No defence: the same weights with their noise off (its mean, where it is centred), to be judged beside them."""

    kind: Literal["noise-off"] = "noise-off"


# -- with the network trained through them ---------------------------------------------------------


class RNA(Recipe):
    """Each normalisation a batch or an instance normalisation, drawn for each layer and forward pass."""

    kind: Literal["rna"] = "rna"


class RPF(Recipe):
    """The share `random` of the first convolution's filters random."""

    kind: Literal["rpf"] = "rpf"
    random: Annotated[float, Field(gt=0, lt=1)] = 0.75


class CTRW(Recipe):
    """A learned multiplicative noise: position 0 on the normalised input, 1.. before the stages; `bound` / (C H W) is
    the least deviation."""

    kind: Literal["ctrw"] = "ctrw"
    position: Annotated[int, Field(ge=0, le=4)] = 0
    bound: Annotated[float, Field(ge=0)] = 2048.0


class WCA(Recipe):
    """Learned, correlated noise on the `width` features of a new head."""

    kind: Literal["wca"] = "wca"
    width: Natural = 32


class SLWTA(Recipe):
    """Winner-takes-all units in the place of ReLUs, at one temperature in training and another when judged; the
    recipe's network gives depth and width."""

    kind: Literal["slwta"] = "slwta"
    trained: Positive = 0.67
    judged: Positive = 0.01


Through = RNA | RPF | CTRW | WCA | SLWTA
"""Defences that a network must be trained through: part of its weights."""
Over = RND | RandomFeatures | ResizePad | CropEnsemble | SAP | RandomPrecision
"""Defences over weights that know nothing of them: part of a model. (A mixture, which names other weights, is the
seventh: bench/recipes/work.py.)"""

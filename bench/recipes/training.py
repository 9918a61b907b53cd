"""Recipes of training: data, network, noise, optimiser, schedule, and how they go together."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from bench.recipes.attacks import PGD
from bench.recipes.base import Exact, Floats, Natural, Precision, Recipe, Seed, Tuple, Unit, Whole


class Data(Recipe):
    """Images start..stop of a fixed shuffle (by `shuffle`) of one split of a dataset."""

    kind: Literal["cifar10"] = "cifar10"
    split: Literal["test", "train", "excerpt"] = "test"
    start: Whole = 0
    stop: Natural | None = None
    shuffle: Seed = 0

    @model_validator(mode="after")
    def _some(self) -> Data:
        if self.stop is not None and self.stop <= self.start:
            raise ValueError(f"stop = {self.stop} leaves no image after start = {self.start}")
        return self

    @property
    def whole(self) -> int:
        """How many images the split has."""
        return {"test": 10_000, "train": 50_000, "excerpt": 10_000}[self.split]


class Network(Recipe):
    """A pre-activation WideResNet-depth-width (Zagoruyko & Komodakis 2016); depth is 6n + 4."""

    kind: Literal["wideresnet"] = "wideresnet"
    depth: Annotated[int, Field(ge=1, le=1000)] = 28
    width: Annotated[int, Field(ge=1, le=100)] = 4
    classes: Annotated[int, Field(ge=2, le=1000)] = 10

    @field_validator("depth")
    @classmethod
    def _depth(cls, depth: int) -> int:
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"a WideResNet's depth is 6n + 4 (10, 16, 22, 28, 34, ...), not {depth}")
        return depth


class Noise(Recipe):
    """Colored noise in the weights (CNI, Nemcovsky et al. 2020).

    scale = "reference": N(0, diag(std(W)|d|) + F F'), F constant, as in the authors' code;
    scale = "relative": std(W) (sqrt|d| z + F z'), F random: the noise in units of the weights' spread.
    """

    kind: Literal["cni"] = "cni"
    scale: Literal["relative", "reference"] = "relative"
    rank: Annotated[int, Field(ge=0, le=1000)] = 5
    diag_init: Annotated[float, Field(ge=0)] = 0.0625
    factor_init: Annotated[float, Field(ge=0)] = 0.05
    linear: Literal["none", "elementwise"] = "none"


class Optimiser(Recipe):
    """SGD, Adam or AdamW; weight decay on weights only unless norm and noise have their own.

    `noise_lr` and `norm_lr` multiply the learning rate for the noise's and the norms' parameters.
    `clip` bounds the gradient's L2 norm.
    """

    kind: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    betas: Floats = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    norm_weight_decay: Annotated[float, Field(ge=0)] = 0.0
    noise_weight_decay: Annotated[float, Field(ge=0)] = 0.0
    norm_lr: Annotated[float, Field(ge=0)] = 1.0
    noise_lr: Annotated[float, Field(ge=0)] = 1.0
    clip: Annotated[float, Field(gt=0)] | None = None


class Schedule(Recipe):
    """Learning rate by epoch: constant, multistep (milestones in epochs), onecycle, cosine; warm-up in epochs."""

    kind: Literal["constant", "multistep", "onecycle", "cosine"] = "multistep"
    milestones: Tuple = ()
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    warmup: Annotated[float, Field(ge=0)] = 0.0


class Training(Recipe):
    """How weights are trained. The loss is (1 - adversarial_weight) clean + adversarial_weight adversarial.

    `attack = None` trains on clean images alone. `sigma` is Gaussian input noise in training.
    `storage` is the precision the weights are kept, and therefore judged, in; `noise_storage`
    that of the noise's covariance factor. `validation` images of the data, held out from
    training, give the curves.
    """

    epochs: Natural = 100
    batch: Natural = 256
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    attack: PGD | None = None
    adversarial_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    augment: Literal["none", "flip", "crop-flip"] = "crop-flip"
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    sigma: Annotated[Exact, Field(ge=0)] = Fraction(0)
    unit: Unit = "pixels"
    precision: Precision = "float32"
    storage: Precision = "float32"
    noise_storage: Literal["float32", "bfloat16", "float8"] = "float32"
    validation: Whole = 0
    validation_attack: PGD = PGD()
    seed: Seed = 0

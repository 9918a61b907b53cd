"""Recipes of training: data, network, noise, optimiser, schedule, and how they go together."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from bench import nearest
from bench.recipes.attacks import PGD
from bench.recipes.base import (
    Arguments,
    Digest,
    Exact,
    Floats,
    Natural,
    Precision,
    Recipe,
    Seed,
    Tuple,
    Unit,
    Whole,
)  # fmt: skip
from bench.recipes.datasets import NAMED, OWN

Named = Annotated[tuple[str, ...], Field(strict=False)]
Shape = Annotated[tuple[Natural, Natural, Natural], Field(strict=False)]


class Data(Recipe):
    """Images start..stop of a fixed shuffle (by `shuffle`) of one split of a data set.

    `order = "original"` takes them as they lie; `indices` takes those rows of the split, in the order given.
    `kind` is a data set known by name (bench/recipes/datasets.py), or a user's own: "npz" (a file of arrays images and
    labels), "folder" (of a folder a class) or "python" (`path` file.py:function, called with `arguments`).
    Of these no name fixes the bytes, so `fingerprint` does: it, `size` and `shape` (channels, height, width) are found
    when the suite is read, where they are not declared. `classes` are names for people. `mean` and `std`, one a
    channel, are what networks trained here normalise by: a named data set has its own, others 0.5 and 0.25.
    """

    late: ClassVar[frozenset[str]] = frozenset(
        {"order", "indices", "fingerprint", "size", "shape", "mean", "std", "arguments"}
    )
    aside: ClassVar[frozenset[str]] = frozenset({"path", "place", "classes"})

    kind: str = "cifar10"
    split: str = "test"
    start: Whole = 0
    stop: Natural | None = None
    shuffle: Seed = 0
    order: Literal["shuffled", "original"] = "shuffled"
    indices: Tuple | None = None
    path: str = ""
    place: str | None = None
    fingerprint: Digest | None = None
    size: Natural | None = None
    shape: Shape | None = None
    classes: Named = ()
    mean: Floats | None = None
    std: Floats | None = None
    arguments: Arguments = Field(default_factory=dict)

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in (*NAMED, *OWN):
            raise ValueError(f"no data set is called {kind!r}; {nearest(kind, (*NAMED, *OWN))}")
        return kind

    @model_validator(mode="after")
    def _some(self) -> Data:
        if self.kind in NAMED and self.split not in NAMED[self.kind].splits:
            raise ValueError(f"{self.kind} has no split {self.split!r}; {nearest(self.split, NAMED[self.kind].splits)}")
        if self.kind in ("npz", "folder", "python") and not self.path and self.fingerprint is None:
            raise ValueError(f"{self.kind} needs a path: of the file or folder, or file.py:function")
        if self.kind in NAMED and (self.path or self.fingerprint or self.size or self.shape or self.arguments):
            raise ValueError(f"{self.kind} is known by name: it takes no path, fingerprint, size, shape or arguments")
        if (self.mean is None) != (self.std is None) or (self.std and min(self.std) <= 0):
            raise ValueError("mean and std go together, one number a channel each, std above 0")
        if self.stop is not None and self.stop <= self.start:
            raise ValueError(f"stop = {self.stop} leaves no image after start = {self.start}")
        if self.indices is not None and (not self.indices or len(set(self.indices)) < len(self.indices)):
            raise ValueError("indices name some images of the split, each once")
        if self.indices is not None and (of := self.total) is not None and max(self.indices) >= of:
            raise ValueError(f"index {max(self.indices)} is past the {of:,} images of {self.split}, counted from 0")
        return self

    @property
    def own(self) -> bool:
        """Whether the images are the user's: nothing but the fingerprint says which they are."""
        return self.kind in OWN

    @property
    def total(self) -> int | None:
        """How many images the split has; None of own images that nobody has looked at."""
        return self.size if self.own else NAMED[self.kind].splits[self.split]

    @property
    def whole(self) -> int:
        """How many images there are before start and stop."""
        return len(self.indices) if self.indices is not None else self.total or 0

    @property
    def of_image(self) -> tuple[int, int, int]:
        """An image's channels, height and width; those of CIFAR-10 of own images that nobody has looked at."""
        return self.shape or NAMED[self.kind if not self.own else "cifar10"].shape

    @property
    def scale(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std by channel, for networks that normalise."""
        if self.mean is not None and self.std is not None:
            return self.mean, self.std
        if not self.own:
            return NAMED[self.kind].mean, NAMED[self.kind].std
        return (0.5,) * self.of_image[0], (0.25,) * self.of_image[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The classes' names, as far as anything gives them."""
        return self.classes or (() if self.own else NAMED[self.kind].classes)

    @property
    def source(self) -> tuple[str, str, str]:
        """What the split's images are kept under: kind, split, fingerprint."""
        return self.kind, self.split, self.fingerprint or ""


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

    def multiply_adds(self, image: tuple[int, int, int] = (3, 32, 32)) -> float:
        """Multiply-adds of one forward pass of one image (channels, height, width)."""
        blocks, area = (self.depth - 4) // 6, image[1] * image[2]
        total, channels = area * 9 * image[0] * 16, 16
        for stage, width in enumerate((16, 32, 64)):
            out = width * self.width
            for block in range(blocks):
                if block == 0 and stage:
                    area = -(-area // 4)
                total += area * 9 * channels * out + area * 9 * out * out
                if block == 0:
                    total += area * channels * out * (channels != out)
                channels = out
        return float(total + channels * self.classes)


NETWORKS: tuple[type[Recipe], ...] = (Network,)
AnyNetwork = Network
"""Every network's recipe: another one joins both, as in `Network | Other`, and has its arm in lab/weights/build.py."""


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


NOISES: tuple[type[Recipe], ...] = (Noise,)
AnyNoise = Noise
"""Every law of noise that a network is trained with: another one joins both."""


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

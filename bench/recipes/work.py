"""Recipes: frozen, strict values that say how a number is made. Equal recipes have equal keys.

The nesting of recipes is the graph: `inputs` lists what a recipe is made from, `key` names it
before any work starts. Names, paths, devices, microbatches and workers are never part of a key;
seeds, draws, shard size and precision always are. Each type's `rev` is raised by hand when its
meaning changes.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from bench.recipes.attacks import PGD, Attack, Clean
from bench.recipes.base import Arguments, Arithmetic, Digest, Exact, Files, Floats, Natural
from bench.recipes.defences import NoiseOff, Over

from bench.recipes.base import Precision, Recipe, Rule, Seed, Tuple, Unit, Whole  # isort: skip
from bench.recipes.defences import Through  # isort: skip
from bench.recipes.stopping import Stopping
from bench.recipes.training import AnyNetwork, AnyNoise, Data, Network, Shape, Training


def _part_of_weights(value: Any) -> Any:
    if isinstance(value, OfModel):
        raise ValueError(f"{value.kind} is over weights that exist: name it in [models.NAME], beside its weights")
    return value


class Trained(Recipe):
    """Weights trained from nothing on labels, through a defence if one is named."""

    kind: Literal["trained"] = "trained"
    network: AnyNetwork = Network()
    noise: AnyNoise | None = None
    data: Data = Data(split="train")
    training: Training = Training()
    defence: Annotated[Through, Field(discriminator="kind")] | None = None

    late: ClassVar[frozenset[str]] = frozenset({"defence"})
    _kind = field_validator("defence", mode="before")(_part_of_weights)

    @model_validator(mode="after")
    def _one(self) -> Trained:
        if self.noise is not None and self.defence is not None:
            raise ValueError("noise and defence are two noises of one network: choose one")
        return self


class Distilled(Recipe):
    """Weights distilled from a teacher (Hinton et al. 2015; the paper's section 1.1).

    L = (1 - w) CE(z_s, y) + w T^2 CE(p_t, p_s), w = distil_weight on the clean batch and
    perturb_distil_weight on the perturbed one. The teacher's outputs follow `rule` over its draws:
    targets = "cached": `draws` once for each training image; "online": `online_draws` for each
    augmented batch. Perturbed batches are always judged online.
    """

    kind: Literal["distilled"] = "distilled"
    network: AnyNetwork = Network()
    noise: AnyNoise | None = None
    data: Data = Data(split="train")
    training: Training = Training()
    teacher: Model
    rule: Rule = "vote"
    draws: Natural = 512
    targets: Literal["cached", "online"] = "cached"
    online_draws: Natural = 8
    temperature: Annotated[float, Field(gt=0)] = 1.0
    distil_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    perturb_distil_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    precision: Precision = "float32"


class Fetched(Recipe):
    """Weights that somebody else made: a model of a library, a file, or a user's own Python.

    `name` is the model's name in its library, a repo id, a package.module:function, or a file.
    `sha256` pins the file; "slwta" is a user's copy of that defence's published checkpoint. `mean`, `std` and `resize`
    are declared where the library leaves them out.

    Of a user's own code (`name` file.py:name or package.module:name), `code` is the digest of its source, of the
    user's modules that it imports and of the declared `files`; `place` is the folder that names of
    files start from. `output` picks the logits (an index or a name) where the network returns several things;
    `outputs` are the logits that stand for the data's classes, in their order, where there are more.

    Of kind "memory", a network that a program held, `sha256` is over its numbers, its source and what it answers to 16
    probes of `shape` (channels, height, width). `build` (file.py:name) makes it anew, `state` (a folder of
    safetensors) holds its numbers, and `redraw` names its method that draws its noise: with these it can be met again.
    """

    late: ClassVar[frozenset[str]] = frozenset({"defence", "files", "code", "output", "outputs", "shape"})
    aside: ClassVar[frozenset[str]] = frozenset({"place", "build", "state", "redraw"})

    kind: Literal[
        "robustbench", "timm", "torchvision", "autoattack-example", "python", "huggingface", "file", "slwta", "memory"
    ]
    name: str = ""
    threat: Literal["Linf", "L2", "corruptions"] = "Linf"
    dataset: Literal["cifar10", "cifar100", "imagenet"] = "cifar10"
    file: str | None = None
    sha256: Digest | None = None
    classes: Annotated[int, Field(ge=2, le=100_000)] = 10
    stochastic: bool = False
    resize: Natural | None = None
    mean: Floats | None = None
    std: Floats | None = None
    network: AnyNetwork | None = None
    noise: AnyNoise | None = None
    arguments: Arguments = Field(default_factory=dict)
    defence: Annotated[Through, Field(discriminator="kind")] | None = None
    _kind = field_validator("defence", mode="before")(_part_of_weights)
    files: Files = ()
    code: Digest | None = None
    output: Whole | str | None = None
    outputs: Tuple = ()
    place: str | None = None
    shape: Shape | None = None
    build: str = ""
    state: str = ""
    redraw: str = ""

    @model_validator(mode="after")
    def _outputs(self) -> Fetched:
        if self.outputs and len(self.outputs) != self.classes:
            raise ValueError(f"outputs names {len(self.outputs)} logits for {self.classes} classes")
        return self

    @model_validator(mode="after")
    def _held(self) -> Fetched:
        if self.kind == "memory" and (self.sha256 is None or self.shape is None):
            raise ValueError("a model from memory is known by sha256 and shape")
        return self


Weights = Annotated[Trained | Distilled | Fetched, Field()]


class Mixture(Recipe):
    """The model's own weights with probability `share`, else the `other` ones."""

    kind: Literal["mixture"] = "mixture"
    other: Weights
    share: Annotated[float, Field(gt=0, lt=1)] = 0.9


OfModel = Over | Mixture | NoiseOff
"""What may stand over a model's weights: a defence, a mixture with other weights, or the noise put off."""


class Model(Recipe):
    """Weights and what is evaluated with them: a defence over them, and Gaussian input noise of deviation `sigma`."""

    weights: Weights
    sigma: Annotated[Exact, Field(ge=0)] = Fraction(0)
    unit: Unit = "pixels"
    defence: Annotated[OfModel, Field(discriminator="kind")] | None = None

    late: ClassVar[frozenset[str]] = frozenset({"defence"})

    @field_validator("defence", mode="before")
    @classmethod
    def _kind(cls, value: Any) -> Any:
        return part_of_model(value)

    @property
    def stochastic(self) -> bool:
        """Whether two forward passes of one image may differ."""
        if self.sigma > 0:
            return True
        if self.defence is not None:
            return not isinstance(self.defence, NoiseOff)
        match self.weights:
            case Fetched(stochastic=True) | Fetched(kind="slwta"):
                return True
            case Distilled(noise=noise):
                return noise is not None
            case Trained(noise=noise, defence=defence) | Fetched(noise=noise, defence=defence):
                return noise is not None or defence is not None

    @property
    def made_from(self) -> list[Trained | Distilled | Fetched]:
        """All weights that it takes."""
        other = [self.defence.other] if isinstance(self.defence, Mixture) else []
        return [self.weights, *other]


def part_of_model(value: Any) -> Any:
    """A defence that a model can have over its weights, as it is; ValueError for one that is part of weights."""
    if isinstance(value, Through):
        raise ValueError(f"{value.kind} needs a network trained through it: name it in [weights.NAME] of kind trained")
    return value


# -- what is judged --------------------------------------------------------------------------


class Examples(Recipe):
    """Images as an attack leaves them, its belief by a vote of `claim` draws; clean ones have no source and seed 0."""

    rev: ClassVar[int] = 2  # a float32 head; candidates chosen by error rate; AutoAttack's iterate on noisy sources
    late: ClassVar[frozenset[str]] = frozenset({"claim"})
    data: Data = Data()
    source: Model | None = None
    attack: Attack = Clean()
    seed: Seed = 0
    shard: Natural = 500
    precision: Arithmetic = "float32"
    claim: Annotated[int, Field(ge=1, le=65535)] = 1

    @model_validator(mode="after")
    def _source(self) -> Examples:
        if isinstance(self.attack, Clean) != (self.source is None):
            raise ValueError("clean examples have no source, and every attack needs one")
        return self


class Outcomes(Recipe):
    """The votes of `target` over `draws` fresh draws on examples; `iterate` picks an attack step's images."""

    rev: ClassVar[int] = 2  # a float32 head; all draws of a fixed number count; the soft winner is stored
    examples: Examples
    target: Model
    draws: Annotated[int, Field(ge=1, le=65535)] = 1
    stopping: Stopping = Stopping()
    iterate: Whole | None = None
    seed: Seed = 0
    precision: Arithmetic = "float32"

    @model_validator(mode="after")
    def _iterate(self) -> Outcomes:
        attack = self.examples.attack
        if self.iterate is not None and not (isinstance(attack, PGD) and attack.keep_iterates):
            raise ValueError("iterate needs a PGD with keep_iterates = true")
        if self.iterate is not None and isinstance(attack, PGD) and self.iterate > attack.steps:
            raise ValueError(f"iterate {self.iterate} is past the attack's {attack.steps} steps")
        return self


Distilled.model_rebuild()

Work = Trained | Distilled | Fetched | Examples | Outcomes
"""What a step makes: weights (train), examples (craft), outcomes (judge)."""

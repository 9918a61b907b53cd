"""Recipes: frozen, strict values that say how a number is made. Equal recipes have equal keys.

The nesting of recipes is the graph: `inputs` lists what a recipe is made from, `key` names it
before any work starts. Names, paths, devices, microbatches and workers are never part of a key;
seeds, draws, shard size and precision always are. Each type's `rev` is raised by hand when its
meaning changes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from fractions import Fraction
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)


def _exact(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Fraction)):
        raise ValueError("write a number or a fraction such as '8/255'")
    try:
        text = str(value)
        if len(text) > 64 or len(text.lower().partition("e")[2]) > 3:  # 1e999999999 would fill the memory
            raise ValueError
        return Fraction(text)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError("write a number or a fraction such as '8/255'") from None


Exact = Annotated[Fraction, BeforeValidator(_exact), PlainSerializer(str)]
"""A number kept as an exact fraction, so that 8/255 and "8/255" and 16/510 are one value."""

Precision = Literal["float32", "bfloat16"]
Unit = Literal["pixels", "normalised"]
Rule = Literal["vote", "soft"]
Natural = Annotated[int, Field(ge=1, lt=2**31)]
Whole = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _plain(value: Any, depth: int = 8) -> Any:
    """The value if JSON can say it; ValueError for dates, for what is not finite, and for endless nesting."""
    match value:
        case bool() | str() | None:
            return value
        case int() if abs(value) < 2**63:
            return value
        case float() if math.isfinite(value):
            return value
        case list() | tuple() if depth:
            return [_plain(item, depth - 1) for item in value]
        case dict() if depth:
            return {str(name): _plain(item, depth - 1) for name, item in value.items()}
    raise ValueError("arguments are text, numbers, true or false, lists and tables of these")


Arguments = Annotated[dict[str, Any], AfterValidator(_plain)]


class Recipe(BaseModel):
    """A frozen value with a key; unknown fields and wrong types are refused at construction."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", ignored_types=(cached_property,), allow_inf_nan=False
    )
    rev: ClassVar[int] = 1

    @cached_property
    def key(self) -> str:
        """SHA-256 (64 hex digits) of the canonical recipe; nested recipes enter by their own keys."""
        fields = {name: _canonical(getattr(self, name)) for name in type(self).model_fields}
        text = json.dumps([type(self).__name__, self.rev, fields], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A changed copy, validated like any other recipe and with a key of its own.

        (pydantic's own would carry the cached key of the original along.)
        """
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | dict(update or {}))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and type(self) is type(other) and self.key == other.key


def _canonical(value: Any) -> Any:
    match value:
        case Recipe():
            return value.key
        case Fraction():
            return str(value)
        case tuple() | list():
            return [_canonical(item) for item in value]
        case dict():
            return {str(name): _canonical(item) for name, item in value.items()}
        case float():
            return value.hex()
        case _:
            return value


Tuple = Annotated[tuple[Whole, ...], Field(strict=False)]
Floats = Annotated[tuple[float, ...], Field(strict=False)]


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


# -- attacks ---------------------------------------------------------------------------------


class Clean(Recipe):
    """No attack: the images as they are."""

    kind: Literal["clean"] = "clean"


Eps = Annotated[Exact, Field(ge=0, le=1)]


class PGD(Recipe):
    """Projected gradient descent in L-inf (Madry et al. 2018), in eval mode, noise fresh each step.

    `eot` draws a step average the gradient (Athalye et al. 2018); `gradient` says of what: of the
    mean loss over the draws, or of the loss of the mean softmax (SmoothAdv, Salman et al. 2019).
    `accumulate` follows the sign of the sum of all gradients so far (the CNI authors' code).
    `momentum` is MI-FGSM's decay (Dong et al. 2018). `pick = "best"` keeps the iterate, and
    restarts keep the start, with the highest loss averaged over `selection` draws of their own.
    `keep_iterates` stores every iterate, so that accuracy by attack step can be judged.
    """

    kind: Literal["pgd"] = "pgd"
    eps: Eps = Fraction(8, 255)
    step: Eps = Fraction(2, 255)
    steps: Whole = 10
    random_start: bool = True
    restarts: Natural = 1
    eot: Natural = 1
    loss: Literal["ce", "margin", "dlr"] = "ce"
    gradient: Literal["mean-loss", "mean-softmax"] = "mean-loss"
    pick: Literal["last", "best"] = "last"
    selection: Natural = 8
    early_stop: bool = False
    accumulate: bool = False
    momentum: Annotated[float, Field(ge=0)] = 0.0
    keep_iterates: bool = False


class Square(Recipe):
    """Square attack in L-inf (Andriushchenko et al. 2020) on the margin averaged over `draws` draws.

    Early stopping is off for randomised sources: the form AutoAttack's authors describe for them.
    """

    kind: Literal["square"] = "square"
    eps: Eps = Fraction(8, 255)
    queries: Natural = 1000
    draws: Natural = 20
    p_init: Annotated[float, Field(gt=0, le=1)] = 0.8
    restarts: Natural = 1


class Peer(Recipe):
    """Another library's attack, by name and keyword arguments, fenced and re-checked.

    `eps` is in units of `norm`: an L1 or L2 ball of [0, 1]^(3 x 32 x 32) may be larger than 1.
    """

    kind: Literal["torchattacks", "autoattack", "foolbox", "python"]
    name: str = "standard"
    eps: Annotated[Exact, Field(ge=0)] = Fraction(8, 255)
    norm: Literal["Linf", "L2", "L1"] = "Linf"
    arguments: Arguments = Field(default_factory=dict)

    @field_validator("eps", mode="before")
    @classmethod
    def _eps(cls, value: Any) -> Any:
        return _exact(value)


class Worst(Recipe):
    """The strongest of several attacks for each image, chosen by mean loss over selection draws."""

    kind: Literal["worst"] = "worst"
    attacks: Annotated[tuple[Annotated[PGD | Square | Peer, Field(discriminator="kind")], ...], Field(strict=False)]
    selection: Natural = 64


Attack = Annotated[Clean | PGD | Square | Peer | Worst, Field(discriminator="kind")]


# -- training --------------------------------------------------------------------------------


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


class Trained(Recipe):
    """Weights trained from nothing on labels."""

    kind: Literal["trained"] = "trained"
    network: Network = Network()
    noise: Noise | None = None
    data: Data = Data(split="train")
    training: Training = Training()


class Distilled(Recipe):
    """Weights distilled from a teacher (Hinton et al. 2015; the paper's section 1.1).

    L = (1 - w) CE(z_s, y) + w T^2 CE(p_t, p_s), w = distil_weight on the clean batch and
    perturb_distil_weight on the perturbed one. The teacher's outputs follow `rule` over its draws:
    targets = "cached": `draws` once for each training image; "online": `online_draws` for each
    augmented batch. Perturbed batches are always judged online.
    """

    kind: Literal["distilled"] = "distilled"
    network: Network = Network()
    noise: Noise | None = None
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
    `sha256` pins the file. `mean`, `std` and `resize` are declared where the library leaves them out.
    """

    kind: Literal["robustbench", "timm", "torchvision", "autoattack-example", "python", "huggingface", "file"]
    name: str = ""
    threat: Literal["Linf", "L2", "corruptions"] = "Linf"
    dataset: Literal["cifar10", "cifar100", "imagenet"] = "cifar10"
    file: str | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    classes: Annotated[int, Field(ge=2, le=100_000)] = 10
    stochastic: bool = False
    resize: Natural | None = None
    mean: Floats | None = None
    std: Floats | None = None
    network: Network | None = None
    noise: Noise | None = None
    arguments: Arguments = Field(default_factory=dict)


Weights = Annotated[Trained | Distilled | Fetched, Field()]


class Model(Recipe):
    """Weights and what is evaluated with them: Gaussian input noise of deviation `sigma`."""

    weights: Weights
    sigma: Annotated[Exact, Field(ge=0)] = Fraction(0)
    unit: Unit = "pixels"

    @property
    def stochastic(self) -> bool:
        """Whether two forward passes of one image may differ."""
        match self.weights:
            case Fetched(stochastic=True):
                return True
            case weights:
                return self.sigma > 0 or weights.noise is not None


# -- what is judged --------------------------------------------------------------------------


class Examples(Recipe):
    """Images as an attack on `source` leaves them; clean examples have no source and seed 0."""

    data: Data = Data()
    source: Model | None = None
    attack: Attack = Clean()
    seed: Seed = 0
    shard: Natural = 500
    precision: Precision = "float32"

    @model_validator(mode="after")
    def _source(self) -> Examples:
        if isinstance(self.attack, Clean) != (self.source is None):
            raise ValueError("clean examples have no source, and every attack needs one")
        return self


class Stopping(Recipe):
    """When an image's draws end: all of them ("fixed"), or once `rule`'s winner is settled ("adaptive").

    `alpha` is the error level for each image of the anytime-valid test (bench/stopping.py).
    """

    kind: Literal["fixed", "adaptive"] = "fixed"
    rule: Rule = "vote"
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 1e-3


class Outcomes(Recipe):
    """The votes of `target` over `draws` fresh draws on examples; `iterate` picks an attack step's images."""

    examples: Examples
    target: Model
    draws: Annotated[int, Field(ge=1, le=65535)] = 1
    stopping: Stopping = Stopping()
    iterate: Whole | None = None
    seed: Seed = 0
    precision: Precision = "float32"

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


def targets_of(recipe: Distilled) -> Outcomes | None:
    """The cached teacher outputs a distillation reads: the teacher's votes on its training images."""
    if recipe.targets == "online":
        return None
    examples = Examples(data=recipe.data, precision=recipe.precision)
    return Outcomes(examples=examples, target=recipe.teacher, draws=recipe.draws, precision=recipe.precision)


def inputs(recipe: Work) -> list[Work]:
    """What a recipe is made from, in the order in which it is needed."""
    match recipe:
        case Trained() | Fetched():
            return []
        case Distilled():
            cached = targets_of(recipe)
            return [recipe.teacher.weights, cached] if cached else [recipe.teacher.weights]
        case Examples(source=None):
            return []
        case Examples(source=Model() as source):
            return [source.weights]
        case Outcomes(examples=Examples(attack=Clean())):
            return [recipe.target.weights]
        case Outcomes():
            return [recipe.examples, recipe.target.weights]
    raise TypeError(type(recipe).__name__)


def summary(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain JSON values, nested, with every type's name: what a manifest holds."""

    def plain(value: Any) -> Any:
        match value:
            case Recipe():
                return {"type": type(value).__name__, "rev": value.rev} | {
                    name: plain(getattr(value, name)) for name in type(value).model_fields
                }
            case Fraction():
                return str(value)
            case tuple() | list():
                return [plain(item) for item in value]
            case dict():
                return {str(name): plain(item) for name, item in value.items()}
            case _:
                return value

    result = plain(recipe)
    assert isinstance(result, dict)
    return result


KINDS: tuple[type[Recipe], ...] = (
    Data, Network, Noise, Clean, PGD, Square, Peer, Worst, Optimiser, Schedule, Training,
    Trained, Distilled, Fetched, Model, Examples, Stopping, Outcomes,
)  # fmt: skip
TYPES: dict[str, type[Recipe]] = {kind.__name__: kind for kind in KINDS}


def parse(summary: Any) -> Recipe:
    """The recipe a `summary` describes; ValueError if it is not one, or of another rev."""
    if not isinstance(summary, dict) or summary.get("type") not in TYPES:
        raise ValueError("not a recipe")
    kind = TYPES[summary["type"]]
    if summary.get("rev") != kind.rev:
        raise ValueError(f"{kind.__name__} of rev {summary.get('rev')}, this version makes rev {kind.rev}")

    def value(item: Any) -> Any:
        if isinstance(item, dict) and item.get("type") in TYPES:
            return parse(item)
        return [value(entry) for entry in item] if isinstance(item, list) else item

    return kind(**{name: value(item) for name, item in summary.items() if name not in ("type", "rev")})

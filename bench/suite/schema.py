"""What a suite file may say beyond recipes: models as users name them, tables, figures, claims."""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from bench.recipes import Exact, Natural, OfModel, Recipe, Rule, Seed, Unit, Whole

from bench.recipes import Model, Stopping, Weights  # isort: skip
from bench.recipes.base import Arithmetic
from bench.recipes.work import part_of_model

Names = Annotated[tuple[str, ...], Field(strict=False)]
NumberKind = Literal["auto", "accuracy", "expected", "vote", "soft", "claimed"]


class Protocol(Recipe):
    """What every cell shares: seed, images that share their draws, precision."""

    seed: Seed = 0
    shard: Natural = 500
    precision: Arithmetic = "float32"


class Certify(Recipe):
    """Certified radii (Cohen et al. 2019): n0 draws choose the class, n others bound its probability."""

    n0: Annotated[int, Field(ge=1, le=65535)] = 100
    n: Annotated[int, Field(ge=1, le=65535)] = 1000
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 1e-3
    radii: Annotated[tuple[float, ...], Field(strict=False)] = (0.0, 0.25, 0.5, 0.75, 1.0)
    data: str = "test"

    @model_validator(mode="after")
    def _enough(self) -> Certify:
        if self.alpha ** (1 / self.n) <= 0.5:
            raise ValueError(f"n = {self.n} draws cannot certify anything at alpha = {self.alpha}, even if all agree")
        return self


class Entry(Recipe):
    """A model as a suite names it: weights, a defence over them, input noise, and how its draws become a prediction.

    With a `rule` the prediction is the vote of `samples` draws; without one, a stochastic model's
    accuracy is expected over `draws` fresh draws of each image. `infinite`: adaptive draws go on until the vote of
    infinitely many is settled too, or `samples` are made.
    """

    late: ClassVar[frozenset[str]] = frozenset({"infinite"})
    weights: Weights
    sigma: Annotated[Exact, Field(ge=0)] = Fraction(0)
    unit: Unit = "pixels"
    rule: Rule | None = None
    samples: Annotated[int, Field(ge=2, le=65535)] = 512
    draws: Annotated[int, Field(ge=1, le=65535)] = 16
    stopping: Literal["fixed", "adaptive"] = "fixed"
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 1e-3
    infinite: bool = False
    certify: Certify | None = None
    label: str = ""
    note: str = ""
    defence: Annotated[OfModel, Field(discriminator="kind")] | None = None

    @field_validator("defence", mode="before")
    @classmethod
    def _kind(cls, value: Any) -> Any:
        return part_of_model(value)

    @model_validator(mode="after")
    def _certifiable(self) -> Entry:
        if self.certify and not self.sigma:
            raise ValueError("certify needs Gaussian input noise: sigma over 0")
        return self

    @model_validator(mode="after")
    def _stoppable(self) -> Entry:
        if self.infinite and not (self.rule and self.stopping == "adaptive"):
            raise ValueError('infinite needs a rule and stopping = "adaptive": a fixed number of draws is what it is')
        return self

    @cached_property
    def model(self) -> Model:
        return Model(weights=self.weights, sigma=self.sigma, unit=self.unit, defence=self.defence)

    @property
    def judged_draws(self) -> int:
        """Draws an image: all samples of a vote, `draws` without a rule, one if nothing is random."""
        if not self.model.stochastic:
            return 1
        return self.samples if self.rule else self.draws

    @property
    def judged_stopping(self) -> Stopping:
        if self.stopping == "fixed" or not self.rule or not self.model.stochastic:
            return Stopping()
        return Stopping(kind="adaptive", rule=self.rule, alpha=self.alpha, infinite=self.infinite)

    @property
    def number(self) -> str:
        """The kind of number that is this model's accuracy."""
        return (self.rule or "expected") if self.model.stochastic else "accuracy"


class Row(Recipe):
    """A row of a table: a target, and the source its attacks are crafted on (none: itself)."""

    target: str
    source: str | None = None
    label: str | None = None
    note: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"target": value}
        if isinstance(value, list):
            if len(value) != 2:
                raise ValueError('write "target", ["source", "target"] or {source = ..., target = ...}')
            return {"source": value[0], "target": value[1]}
        return value


class Column(Recipe):
    """A column of a table: an attack, on which images, reported as which number."""

    attack: str
    label: str | None = None
    data: str | None = None
    number: NumberKind = "auto"
    only: Names | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"attack": value} if isinstance(value, str) else value


Paper = Annotated[tuple[Annotated[tuple[Any, ...], Field(strict=False)], ...], Field(strict=False)]


class Table(Recipe):
    """Rows and columns of cells, with the paper's value (in percent, or "") beside each."""

    title: str = ""
    caption: str = ""
    heads: Names = ("Method",)
    rows: Annotated[tuple[Row, ...], Field(strict=False, min_length=1)]
    columns: Annotated[tuple[Column, ...], Field(strict=False, min_length=1)]
    paper: Paper = ()
    data: str = "test"

    @model_validator(mode="after")
    def _shape(self) -> Table:
        if not self.paper:
            return self
        shape = f"{len(self.rows)} rows of {len(self.columns)} values"
        if len(self.paper) != len(self.rows) or any(len(row) != len(self.columns) for row in self.paper):
            raise ValueError(f"paper must have {shape}, as the table has")
        for value in (value for row in self.paper for value in row):
            if value != "" and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100):
                raise ValueError(f'paper holds percentages, or "" where the paper is silent; not {value!r}')
        return self


class Figure(Recipe):
    """A figure: its kind and what it shows (bench/report/figures.py says what each kind reads).

    curves: training curves of the weights of `models`; steps: accuracy by attack step, one panel an
    eps, attack models `sources`, targets `models`; eps: accuracy by eps; transfer: source x target;
    draws and agreement: histograms over the judged images; sheet: images, perturbation, predictions.
    """

    kind: Literal["curves", "steps", "eps", "transfer", "draws", "agreement", "sheet"]
    title: str = ""
    models: Names = ()
    sources: Names = ()
    attack: str | None = None
    eps: Annotated[tuple[Exact, ...], Field(strict=False)] = ()
    data: str = "test"
    samples: Natural | None = None
    draws: Natural | None = None


class Claim(Recipe):
    """A sentence of the paper as an expression over cells (bench/suite/expressions.py), such as
    "table1[kd-vote, clean] > table1[smoothed-vote, clean]"."""

    id: str
    text: str
    holds: str


class Scale(Recipe):
    """A declared scale: what it is, and which values of the suite it replaces (kept apart)."""

    about: str = ""
    gpu: bool = False


class Header(Recipe):
    """What the suite calls itself; `main`: the tables that, recorded, make a scale the one to show (all if none)."""

    title: str = ""
    source: str = ""
    main: Names = ()
    claims_level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    images: Whole = 0

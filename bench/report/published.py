"""What papers claim of their defences, as data: one TOML file a defence in `models/claims/`, no code."""

from __future__ import annotations

import tomllib
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench import UserError, nearest
from bench.recipes import Mixture, Over, Through
from bench.recipes.base import Exact, Natural

FOLDER = Path("models") / "claims"
INSTALLED = Path("share") / "freshdraws" / "claims"
"""Where a wheel puts them, under the environment, or under the folder of `pip install --target`."""
MISSING = "one TOML file a defence: CONTRIBUTING.md says how"
Words = Annotated[str, Field(min_length=1)]
Unknown = Literal["unknown"]
Percent = Annotated[float, Field(ge=0, le=100, strict=False)]
Evidence = Literal["code", "log", "readme", "notebook", "page", "abstract", "known"]
"""Where somebody here read it: the authors' code, log, README, notebook or page; or no more than the paper's abstract;
or known from the paper or from those who cite it, without reading."""
READ = ("code", "log", "readme", "notebook", "page")


class Data(BaseModel):
    """A strict value: unknown keys and wrong types are mistakes."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Unread(Data):
    """A number that nobody here has read in its source: a dash with its reason wherever numbers are printed.

    `about` is what is told of it, in percent, and `gain` what is told in points over adversarial training: both only
    tell a checker where to look.
    """

    unread: Words
    about: Percent | None = None
    gain: float | None = None


class PublishedClaim(Data):
    """One number of a paper: of which network, under which attack, met by which draws, on how many images.

    "unknown" is an answer where the source does not say; a key that is left out is a mistake. Numbers in percent.
    """

    data: Words
    network: Words
    clean: Percent | Unread
    robust: Percent | Unread
    attack: Words
    eps: Exact | Unknown | None
    norm: Literal["Linf", "L2", "none"]
    library: Words
    version: Words
    steps: Annotated[int, Field(ge=0)] | Unknown
    eot: Natural | Unknown
    draw: Literal["moving", "frozen", "pseudo-eot", "none", "unknown"]
    n: Natural | Unknown
    evidence: Evidence
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def _eps(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("eps") == "none":
            return value | {"eps": None}
        return value

    @model_validator(mode="after")
    def _only_what_was_read(self) -> PublishedClaim:
        if self.evidence not in READ and not (isinstance(self.clean, Unread) and isinstance(self.robust, Unread)):
            raise ValueError(
                f'evidence = "{self.evidence}" is no reading: write clean and robust as {{ unread = "why" }}'
            )
        return self


class Rebuttal(Data):
    """What somebody else found later: `robust` in percent, or why there is no number."""

    by: Words
    robust: Percent | Unread
    attack: Words
    evidence: Evidence

    @model_validator(mode="after")
    def _only_what_was_read(self) -> Rebuttal:
        if self.evidence not in READ and not isinstance(self.robust, Unread):
            raise ValueError(f'evidence = "{self.evidence}" is no reading: write robust as {{ unread = "why" }}')
        return self


class Published(Data):
    """A defence as published. `zoo` is its kind in a suite, "" if we have none; `supersedes` names what it replaces."""

    name: Words
    zoo: str = ""
    paper: Words
    authors: Words
    venue: Words
    year: Annotated[int, Field(ge=2010, le=2100)]
    place: Annotated[
        tuple[Literal["input", "features", "weights", "architecture"], ...], Field(strict=False, min_length=1)
    ]
    training: Literal["none", "clean", "noise", "adversarial", "own"]
    code: Words
    licence: Words
    weights: Words
    claims: Annotated[tuple[PublishedClaim, ...], Field(strict=False, min_length=1)]
    rebuttals: Annotated[tuple[Rebuttal, ...], Field(strict=False)] = ()
    supersedes: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _known(self) -> Published:
        if self.zoo and self.zoo not in KINDS:
            raise ValueError(f"zoo = {self.zoo!r} is no kind of defence; {nearest(self.zoo, KINDS)}")
        return self


KINDS = {
    "cni",
    *(kind.model_fields["kind"].default for union in (Over, Through) for kind in union.__args__),
    Mixture.model_fields["kind"].default,
}


def folder(root: Path | None = None) -> Path:
    """Where the claims lie: under `root`, beside the package's source, or where its wheel put them."""
    source = Path(__file__).parents[2]
    here = [*([root / FOLDER] if root is not None else []), source / FOLDER, source / INSTALLED, *_installed()]
    for place in here:
        if any(place.glob("*.toml")):
            return place
    raise UserError(str(here[0]), "there are no published claims", MISSING)


def _installed() -> list[Path]:
    """What the installed distribution says of its files."""
    try:
        files = metadata.files("bench") or []
    except metadata.PackageNotFoundError:
        return []
    found = {Path(str(file.locate())).resolve().parent for file in files if file.parts[-4:-1] == INSTALLED.parts}
    return sorted(found)


def read(place: Path) -> dict[str, Published]:
    """Every defence by its file's name, without those superseded; one UserError lists all that is wrong anywhere."""
    found: dict[str, Published] = {}
    wrong: list[str] = []
    for path in sorted(place.glob("*.toml")):
        try:
            found[path.stem] = Published(**tomllib.loads(path.read_text("utf-8")))
        except ValidationError as error:
            wrong += [
                f"  {path.name}: {_where(item['loc'])}: {_words(item)}" for item in error.errors(include_url=False)
            ]
        except (ValueError, RecursionError, TypeError) as error:
            wrong.append(f"  {path.name}: is not TOML: {error}")
    names = [published.supersedes for published in found.values() if published.supersedes]
    wrong += [f"  supersedes: no {name}.toml; {nearest(name, found)}" for name in names if name not in found]
    if wrong:
        raise UserError(str(place), "\n".join(["these claims cannot be read:", *wrong]))
    if not found:
        raise UserError(
            str(place), "there are no published claims", "one TOML file a defence: CONTRIBUTING.md says how"
        )
    return {name: published for name, published in found.items() if name not in names}


def _where(place: tuple[Any, ...]) -> str:
    """The keys of a mistake, without the names of types that pydantic puts among them."""
    told = [str(part) for part in place if isinstance(part, int) or part in KEYS]
    return ".".join(told) or "the file"


KEYS = {name for kind in (Published, PublishedClaim, Rebuttal, Unread) for name in kind.model_fields}


def _words(item: Any) -> str:
    if item["type"] == "missing":
        return 'is missing; write "unknown" where the source does not say, { unread = "why" } for a number not read'
    if item["type"] == "extra_forbidden":
        return f"unknown key; {nearest(str(item['loc'][-1]), KEYS)}"
    return str(item["msg"]).removeprefix("Value error, ")


def same_eps(one: Fraction | str | None, other: Fraction | str | None) -> bool:
    """Whether two claims are about one known radius."""
    return isinstance(one, Fraction) and one == other

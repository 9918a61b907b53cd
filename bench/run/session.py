"""A suite, its store and this machine, as every verb of the command line starts from them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import UserError, nearest
from bench.recipes import Data, Examples, Outcomes, Weights, Work
from bench.store.disk import write, writing
from bench.store.plan import Plan, describe, everything, plan
from bench.store.records import Store
from bench.store.sealed import Damaged, Record
from bench.store.tasks import Settings
from bench.suite.cells import Suite
from bench.suite.figures import needed
from bench.suite.reader import load, scales
from bench.suite.shipped import at_hand
from bench.votes.votes import Votes, from_parquet

FINDING = ("check", "figure", "verdict", "advice")


WHY = (
    "as asked", "the largest that is recorded here", "nothing larger is recorded here", "the suite's only scale",
)  # fmt: skip
"""Reasons for a scale, which stand above tables."""


@dataclass
class Session:
    """One suite at one scale over one store; `why` says how the scale was chosen.

    `found` are the records that plans have found whole, by key; `loaded` the keys of the user's own models whose
    records have been compared with what their code gives.
    """

    suite: Suite
    store: Store
    settings: Settings
    why: str
    found: dict[str, Record] = field(default_factory=dict)
    loaded: set[str] = field(default_factory=set)
    _votes: dict[str, Votes] = field(default_factory=dict)
    _wanted: dict[tuple[str | None, bool], list[Outcomes]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where what people read goes: results/<suite>."""
        return self.settings.root / "results" / self.suite.name

    @cached_property
    def names(self) -> dict[str, str]:
        """The suite's names by the keys of what they stand for; of examples and outcomes what their first cell says.

        Equal recipes may have several names, of which a cell knows its own.
        """
        suite = self.suite
        names: dict[str, str] = {}
        for name, recipe in (*suite.attacks.items(), *suite.weights.items()):
            names.setdefault(recipe.key, name)
        for name, entry in suite.models.items():
            names.setdefault(entry.model.key, name)
        for cell in suite.cells():
            examples, own = cell.outcomes.examples, {cell.outcomes.examples.attack.key: cell.attack}
            if examples.source is not None and cell.source is not None:
                own[examples.source.key] = cell.source
            names.setdefault(examples.key, describe(examples, own))
            names.setdefault(cell.outcomes.key, describe(cell.outcomes, own | {cell.outcomes.target.key: cell.target}))
        return names

    def wanted(self, only: str | None = None, figures: bool = True) -> list[Outcomes]:
        """The outcomes of every cell, and of the figures unless one table was asked for."""
        if (only, figures) in self._wanted:
            return self._wanted[only, figures]
        if only is not None and only not in self.suite.tables:
            raise UserError("--only", f"this suite has no table {only!r}", nearest(only, self.suite.tables))
        wanted = [cell.outcomes for cell in self.suite.cells(only)]
        if only is None:
            wanted += [draws for _, *both in self.suite.certificates() for draws in both]
            wanted += needed(self.suite) if figures else []
            if not wanted and figures:
                what, fix = "asks for nothing: it has no table or figure", "add [tables.name], rows and columns"
                raise UserError(str(self.suite.path), what, fix)
        self._wanted[only, figures] = list(dict.fromkeys(wanted))
        return self._wanted[only, figures]

    def record(self, recipe: Work) -> Record | None:
        """The recipe's record, not looked for again where a plan has found it."""
        return self.found.get(recipe.key) or self.store.find(recipe)

    def votes(self, recipe: Outcomes) -> Votes | None:
        """The votes of a recipe if its record is there and whole; a damaged one is a fault, not a number."""
        if recipe.key in self._votes:
            return self._votes[recipe.key]
        record = self.record(recipe)
        if record is None:
            return None
        try:
            self._votes[recipe.key] = from_parquet(record.read("votes.parquet"))
            return self._votes[recipe.key]
        except (Damaged, ValueError) as error:
            if self.found.pop(recipe.key, None):  # another run may have made it anew since it was found
                return self.votes(recipe)
            self.store.faults.append(f"{record.path}: {error}")
            return None

    def curves(self, recipe: Weights) -> bytes | None:
        """The training curves (a Parquet file) of weights that are here."""
        record = self.store.find(recipe)
        if record is None or "curves.parquet" not in record.manifest["files"]:
            return None
        try:
            return record.read("curves.parquet")
        except Damaged as error:
            self.store.faults.append(str(error))
            return None

    def pictures(self, outcomes: Outcomes, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """The first images of a record (n, 3, h, w) before and after its attack, if the examples are here.

        Kept beside the work in progress, so that a finished run need not load torch for them.
        """
        if found := self.pictured(outcomes, count):
            return found
        if self.store.find(outcomes.examples) is None:
            return None
        from bench.lab.worker import Lab

        before, after = Lab(replace(self.settings, device="cpu")).pictures(outcomes, count)
        kept = self._pictures(outcomes, count)
        with writing(kept):
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.savez(kept, before=before, after=after)
        return before, after

    def pictured(self, outcomes: Outcomes, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Those of `pictures` that are kept already."""
        kept = self._pictures(outcomes, count)
        with contextlib.suppress(OSError, ValueError, KeyError), np.load(kept, allow_pickle=False) as file:
            return file["before"], file["after"]
        return None

    def _pictures(self, outcomes: Outcomes, count: int) -> Path:
        return self.store.scratch / "pictures" / f"{outcomes.key[:24]}-{count}.npz"

    def findings(self) -> dict[str, list[dict[str, str]]]:
        """What `bench diagnose` found, by model, of models that are still what they were then."""
        found = {}
        for name, entry in self.suite.models.items():
            path = self.folder / "diagnosis" / f"{name}.json"
            try:
                said = json.loads(path.read_text("utf-8"))
                if said["model"] == entry.model.key:
                    found[name] = [{field: str(one[field]) for field in FINDING} for one in said["findings"]]
            except FileNotFoundError:
                continue  # never diagnosed
            except (OSError, ValueError, KeyError, TypeError):
                # What it said is lost, and it may have been a mark: the number is not shown as if it had none.
                figure = f"{path.name} cannot be read: what it found of this model is not known"
                advice = f"diagnose it again: python -m bench diagnose {self.suite.path.name} {name}"
                found[name] = [dict(zip(FINDING, ("diagnosis", figure, "suspicious", advice), strict=True))]
        return found

    def diagnosed(self, model: str, findings: list[dict[str, str]]) -> None:
        """Keep what `bench diagnose` found of a model, for tables and page."""
        said = {"model": self.suite.models[model].model.key, "findings": findings}
        write(self.folder / "diagnosis" / f"{model}.json", (json.dumps(said, indent=1) + "\n").encode())

    def warning(self, outcomes: Outcomes) -> str | None:
        """Why numbers of the outcomes' target are suspicious, as far as a diagnosis has found."""
        for name, findings in self._suspects.items():
            if self.suite.models[name].model == outcomes.target:
                return f"suspicious: bench diagnose marks {', '.join(one['check'] for one in findings)}"
        return None

    @cached_property
    def _suspects(self) -> dict[str, list[dict[str, str]]]:
        found = {n: [one for one in all_ if one["verdict"] == "suspicious"] for n, all_ in self.findings().items()}
        return {name: marked for name, marked in found.items() if marked}

    def manifest(self, recipe: Work) -> dict[str, Any] | None:
        record = self.record(recipe)
        return None if record is None else record.manifest


def open_suite(path: Path, scale: str, limit: int | None, settings: Settings) -> Session:
    """Read a suite and choose its scale.

    Scales are declared from the largest down. "auto" is the first whose main tables (`[suite] main`; all where none
    are named) are recorded here, so that what is finished is shown; else the last, which costs least to make. Larger
    ones are made only when their name is given.
    """
    if limit is not None and limit < 1:
        raise UserError("--images", f"{limit} images cannot be judged", "give a number from 1 on")
    path = at_hand(path)
    declared = scales(path)
    store = Store(settings.root)
    if scale != "auto":
        return Session(read(path, scale, limit, settings), store, settings, WHY[0])
    *larger, least = declared
    for name in larger:
        suite = read(path, name, limit, settings)
        if all(store.find(cell.outcomes) for cell in suite.main()):  # most often the first is not there
            return Session(suite, store, settings, WHY[1])
    return Session(read(path, least, limit, settings), store, settings, WHY[2 if larger else 3])


def read(path: Path, scale: str, limit: int | None, settings: Settings) -> Suite:
    """The suite at one scale, data sets of the user's own completed by what their files say."""

    def survey(data: Data, folders: Sequence[Path]) -> Data:
        from bench.lab.images.own import survey

        return survey(data, folders)

    return load(path, scale, limit, settings.root, survey)


def planned(session: Session, wanted: Sequence[Work], fresh: bool) -> Plan:
    """The plan for the wanted work; `fresh` crafts and judges again but keeps weights."""
    again = {work.key for work in everything(wanted) if isinstance(work, Examples | Outcomes)} if fresh else set()
    made = plan(wanted, session.store, frozenset(again))
    again |= {work.key for work in made.order}
    session.found = {key: record for key, record in session.found.items() if key not in again} | made.found
    return made

"""What a program asks for, made as suites make it: the same recipes, runner and lab, over a store of its own."""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import UserError
from bench.recipes import Examples, Outcomes, Work
from bench.run.engines.local import Here
from bench.run.runner import run
from bench.run.session import Session, planned
from bench.store.cost import Rates
from bench.store.disk import read_part, writing
from bench.store.machine import kind
from bench.store.plan import Plan, describe, refuse_stale
from bench.store.records import Store
from bench.store.tasks import Hooks, Settings, Task, shards
from bench.suite.cells import Suite
from bench.suite.libraries import refuse_lacking

if TYPE_CHECKING:
    from bench.lab.images.load import Images
    from bench.lab.worker import Lab
    from bench.models.classifier import Classifier


class Place:
    """Where records go: a folder, or one that is gone with the last who looks at it."""

    def __init__(self, out: Path | str | None) -> None:
        self.kept = None if out is not None else tempfile.TemporaryDirectory(prefix="bench-")
        self.root = Path(out if out is not None else self.kept.name if self.kept else "").resolve()
        if self.root.exists() and not self.root.is_dir():
            raise UserError("out", f"{self.root} is a file", "name a folder")
        try:
            with writing(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError("out", f"{self.root} cannot be made: {error.strerror}", "name another folder") from None

    def close(self) -> None:
        """Leave nothing behind that nobody asked for."""
        if self.kept is not None:
            self.kept.cleanup()


class Held(Here):
    """This process, with the models and images that the program has in memory."""

    def __init__(
        self, settings: Settings, hooks: Hooks, images: Mapping[Any, Images], models: Mapping[str, Classifier]
    ) -> None:
        super().__init__(settings, hooks)
        self.lab: Lab
        from bench.lab.worker import Lab

        self.lab = Lab(settings, hooks, images, models)


class Bar:
    """How far something is, on a terminal or in a notebook, if it is to be shown; `total` of None: nobody knows."""

    def __init__(self, progress: bool | None, total: float | None) -> None:
        self.total, self.line = total, None
        self.bar: Any = None
        if progress if progress is not None else sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            known = () if total is None else (TextColumn("{task.percentage:>3.0f}%"),)
            left = () if total is None else (TextColumn("left"), TimeRemainingColumn())
            self.bar = Progress(
                TextColumn("{task.description}"), BarColumn(), *known, TimeElapsedColumn(), *left,
                console=Console(stderr=True),
            )  # fmt: skip

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show it while the work is done."""
        if self.bar is None:
            yield
            return
        with self.bar:
            self.line = self.bar.add_task("starting", total=self.total)
            yield

    def at(self, **what: Any) -> None:
        """Another description or another number completed."""
        if self.bar is not None:
            self.bar.update(self.line, **what)


class Told:
    """Who is told how the run goes: a bar, or nobody."""

    def __init__(self, plan: Plan, names: dict[str, str], rates: Rates, progress: bool | None) -> None:
        self.names, self.notes = names, dict[str, None]()
        self.seconds = {recipe.key: max(0.01, rates.seconds(recipe)) for recipe in plan.order}
        self.done_ = 0.0
        self.bar = Bar(progress if plan.order else False, sum(self.seconds.values()))

    def doing(self, task: Task) -> None:
        self.bar.at(description=describe(task.recipe, self.names))

    def done(self, task: Task, share: float) -> None:
        self.done_ += self.seconds.get(task.recipe.key, 0.0) * share
        self.bar.at(completed=self.done_)

    def note(self, message: str) -> None:
        self.notes[message] = None

    def should_stop(self) -> bool:
        return False


class Bench:
    """A suite made in a program, the store it writes to, and what the program has in memory."""

    def __init__(
        self,
        suite: Suite,
        place: Place,
        settings: Settings,
        images: Mapping[Any, Images],
        models: Mapping[str, Classifier],
    ) -> None:
        self.place, self.settings = place, settings
        self.session = Session(suite, Store(place.root), settings, "as asked")
        self.engine = Held(settings, Hooks(), images, models)
        self.notes: dict[str, None] = {}
        self.seconds = 0.0

    @property
    def lab(self) -> Lab:
        return self.engine.lab

    def make(self, wanted: Sequence[Work], progress: bool | None = None) -> None:
        """Make what is not recorded yet, one wanted thing after the other, so that what interrupts it leaves the first
        ones whole."""
        session, settings = self.session, self.settings
        plan = planned(session, wanted, False)
        refuse_stale(plan.stale)
        refuse_lacking("evaluate", plan.order)
        rates = Rates(session.store.scratch, kind(settings.device))
        told, begun = Told(plan, session.names, rates, progress), time.perf_counter()
        try:
            with told.bar.shown():
                for one in wanted:
                    run(planned(session, [one], False), settings, session.store, self.engine, told, rates)
        finally:
            self.seconds += time.perf_counter() - begun
            self.notes |= told.notes

    def tried(self, wanted: Sequence[Work], progress: bool | None = None) -> bool:
        """`make`; whether somebody interrupted it, so that only a part of it is there."""
        try:
            self.make(wanted, progress)
        except KeyboardInterrupt:
            return True
        return False

    def finished(self, recipe: Examples | Outcomes) -> list[bytes]:
        """What there is of a recipe: examples or votes by shard, in order, up to the first that is not finished."""
        record = self.session.record(recipe)
        if record is not None and isinstance(recipe, Outcomes):
            return [record.read("votes.parquet")]
        if record is not None:
            return [record.read(f"{shard:05d}.safetensors") for shard in shards(recipe)]
        found: list[bytes] = []
        for folder in sorted((self.session.store.scratch / "parts").glob(f"{recipe.key[:24]}-*")):
            parts = [read_part(folder / f"{shard:05d}") for shard in shards(recipe)]
            whole = [part[0] for part in itertools.takewhile(lambda part: part is not None, parts) if part is not None]
            found = max(found, whole, key=len)
        return found

"""What a program asks for, made as suites make it: the same recipes, runner and lab, over a store of its own."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import UserError
from bench.api.data import given, read
from bench.api.lent import lent, module_of
from bench.api.model import ASK, asked
from bench.recipes import Work
from bench.run.engines.local import Here
from bench.run.runner import run
from bench.run.session import Session, planned
from bench.store.cost import Rates
from bench.store.machine import kind
from bench.store.plan import Plan, describe, refuse_stale
from bench.store.records import Store
from bench.store.tasks import Hooks, Settings, Task
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


class Told:
    """Who is told how the run goes: a bar on a terminal or in a notebook, or nobody."""

    def __init__(self, plan: Plan, names: dict[str, str], rates: Rates, progress: bool | None) -> None:
        self.names, self.notes = names, dict[str, None]()
        self.seconds = {recipe.key: max(0.01, rates.seconds(recipe)) for recipe in plan.order}
        self.done_ = 0.0
        self.bar: Any = None
        self.line: Any = None
        shown = progress if progress is not None else sys.stderr.isatty()
        if shown and plan.order:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
                TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True),
            )  # fmt: skip

    @contextmanager
    def shown(self) -> Iterator[None]:
        if self.bar is None:
            yield
            return
        with self.bar:
            self.line = self.bar.add_task("starting", total=sum(self.seconds.values()))
            yield

    def doing(self, task: Task) -> None:
        if self.bar is not None:
            self.bar.update(self.line, description=describe(task.recipe, self.names))

    def done(self, task: Task, share: float) -> None:
        self.done_ += self.seconds.get(task.recipe.key, 0.0) * share
        if self.bar is not None:
            self.bar.update(self.line, completed=self.done_)

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
            with told.shown():
                for one in wanted:
                    run(planned(session, [one], False), settings, session.store, self.engine, told, rates)
        finally:
            self.seconds += time.perf_counter() - begun
            self.notes |= told.notes


class InUse:
    """A lab with a program's model and images in it, which are given back at the end."""

    def __init__(self, model: Any, data: Any, n: int | None, *, ordered: bool = True, **how: Any) -> None:
        found, self.how = given(data, n, seed=how["seed"], ordered=ordered), how
        self.place = Place(None)
        root = None if how["data_root"] is None else Path(how["data_root"])
        settings = Settings(root=self.place.root, data_root=root, device=how["device"])
        self.data, self.images = read(found.data, found.images, settings)
        self.model, self.settings = model, settings
        self.count = min(self.data.stop or self.data.whole, self.data.whole) - self.data.start

    def __enter__(self) -> InUse:
        from bench.lab.compute.passes import pick_device
        from bench.lab.images.load import as_tensor
        from bench.lab.worker import Lab
        from bench.store.tasks import Hooks

        device = pick_device(self.settings.device)
        self.lent = lent(module_of(self.model), device)
        self.lent.__enter__()
        try:
            probe = as_tensor(self.images.images[:ASK]).to(device)
            self.who = asked(self.model, probe, redraw=self.how["redraw"])
            held = {} if self.who.classifier is None else {self.who.model.weights.key: self.who.classifier}
            self.lab = Lab(self.settings, Hooks(), {self.data.source: self.images}, held)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self.lent.__exit__(*error)
        self.place.close()

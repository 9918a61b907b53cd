"""Make what is missing: tasks go to an engine as their inputs are sealed, and records come back."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bench.cost import Rates
from bench.disk import now, read_part, write, writing
from bench.errors import Paused, UserError
from bench.plan import Plan
from bench.recipes import Examples, Outcomes, Work, inputs
from bench.store import Store
from bench.tasks import Done, Settings, Task, images_in, rows, shards


class Engine(Protocol):
    """Where tasks run. `slots` tasks may be under way at once."""

    slots: int

    def submit(self, task: Task) -> None: ...

    def wait(self) -> Done:
        """The next finished task; raises what the task raised."""


class Events(Protocol):
    """Who is told how the run goes, and who may ask it to stop."""

    def doing(self, task: Task) -> None: ...

    def done(self, task: Task, share: float) -> None: ...

    def note(self, message: str) -> None: ...

    def should_stop(self) -> bool: ...


class Job(NamedTuple):
    """One recipe under way: its folder of parts, the shards still missing, what was learnt of it."""

    recipe: Work
    folder: Path
    made_from: dict[str, str]
    todo: set[int | None]
    about: list[Done]


class Counts(NamedTuple):
    """What a run did: records made, tasks done, and shards that an earlier run had left ready."""

    records: int
    tasks: int
    reused: int


def run(plan: Plan, settings: Settings, store: Store, engine: Engine, events: Events, rates: Rates) -> Counts:
    """Do all of the plan's missing work; Paused if asked to stop, whatever a task raises otherwise.

    What is finished stays: records are sealed as soon as their last shard is there, and the
    shards of unfinished records are found by the next run.
    """
    runner = Runner(settings, store, engine, events, rates)
    return runner.go(plan)


class Runner:
    """The state of one run."""

    def __init__(self, settings: Settings, store: Store, engine: Engine, events: Events, rates: Rates) -> None:
        self.settings, self.store, self.engine, self.events, self.rates = settings, store, engine, events, rates
        self.jobs: dict[str, Job] = {}
        self.ready: deque[Task] = deque()
        self.records = self.tasks = self.reused = 0
        self.commit = commit_of(settings.root)

    def go(self, plan: Plan) -> Counts:
        missing = {recipe.key for recipe in plan.order}
        waiting = {r.key: {i.key for i in inputs(r)} & missing for r in plan.order}
        dependents: dict[str, list[Work]] = {}
        for recipe in plan.order:
            for key in waiting[recipe.key]:
                dependents.setdefault(key, []).append(recipe)
        startable = deque(recipe for recipe in plan.order if not waiting[recipe.key])
        running = 0
        while startable or self.ready or running:
            while startable and len(self.ready) < self.engine.slots:
                finished = self.start(startable.popleft())
                self._unlock(finished, waiting, dependents, startable)
            while self.ready and running < self.engine.slots and not self.events.should_stop():
                task = self.ready.popleft()
                self.events.doing(task)
                self.engine.submit(task)
                running += 1
            if self.events.should_stop() and not running:
                raise Paused("stopped between shards")
            if running:
                done = self.engine.wait()
                running -= 1
                finished = self.finish(done)
                self._unlock(finished, waiting, dependents, startable)
        self.rates.save()
        return Counts(self.records, self.tasks, self.reused)

    def _unlock(
        self,
        finished: Work | None,
        waiting: dict[str, set[str]],
        dependents: dict[str, list[Work]],
        startable: deque[Work],
    ) -> None:
        for recipe in dependents.get(finished.key, []) if finished else []:
            waiting[recipe.key].discard(finished.key if finished else "")
            if not waiting[recipe.key]:
                startable.appendleft(recipe)

    def start(self, recipe: Work) -> Work | None:
        """Queue the recipe's tasks; the recipe itself if all its shards were ready already."""
        made_from = {}
        for source in inputs(recipe):
            record = self.store.find(source)
            if record is None:
                raise UserError(str(self.store.place(source)), "vanished during the run", "run the same command again")
            made_from[source.key] = record.seal
        digest = hashlib.sha256(repr(sorted(made_from.items())).encode()).hexdigest()[:8]
        folder = self.store.scratch / "parts" / f"{recipe.key[:24]}-{digest}"
        wanted: list[int | None] = list(shards(recipe)) or [None]
        todo = {shard for shard in wanted if shard is None or read_part(folder / f"{shard:05d}") is None}
        for left in set(wanted) - todo:
            self.reused += 1
            self.events.done(Task(recipe, left, folder), share_of(recipe, left))
        job = Job(recipe, folder, made_from, todo, [])
        self.jobs[recipe.key] = job
        for shard in wanted:
            if shard in todo:
                with writing(folder):
                    if shard is None and folder.exists():
                        shutil.rmtree(folder)
                    folder.mkdir(parents=True, exist_ok=True)
                self.ready.append(Task(recipe, shard, folder))
        return None if todo else self.seal(job)

    def finish(self, done: Done) -> Work | None:
        """Note a finished task; the recipe if that was its last."""
        job = self.jobs[done.task.recipe.key]
        job.todo.discard(done.task.shard)
        job.about.append(done)
        self.tasks += 1
        share = share_of(job.recipe, done.task.shard)
        self.rates.learn(job.recipe, done.seconds, share)
        for note in done.notes:
            self.events.note(note)
        self.events.done(done.task, share)
        return None if job.todo else self.seal(job)

    def seal(self, job: Job) -> Work:
        """Gather a job's parts into its record."""
        place = self.store.place(job.recipe)
        if place.exists():
            self.store.discard(place)
        self.store.seal(job.recipe, lambda folder: gather(job, folder), job.made_from, self.provenance(job))
        shutil.rmtree(job.folder, ignore_errors=True)
        del self.jobs[job.recipe.key]
        self.records += 1
        return job.recipe

    def provenance(self, job: Job) -> dict[str, Any]:
        about: dict[str, Any] = {}
        for done in job.about:
            for name, value in done.provenance.items():
                adds = name in ("forward_passes", "backward_passes") and isinstance(value, int)
                about[name] = about.get(name, 0) + value if adds else value
        return about | {
            "made": now(),
            "seconds": round(sum(done.seconds for done in job.about), 2),
            "commit": self.commit,
            "parts_from_an_earlier_run": len(shards(job.recipe) or [None]) - len(job.about),
        }


def gather(job: Job, folder: Path) -> None:
    """Write the files of a record from the parts of its shards."""
    match job.recipe:
        case Outcomes():
            from bench.votes import concatenate, from_parquet, to_parquet

            votes = [from_parquet(data) for data in parts(job)]
            write(folder / "votes.parquet", to_parquet(concatenate(votes)))
        case Examples():
            for shard, data in enumerate(parts(job)):
                write(folder / f"{shard:05d}.safetensors", data)
        case _:
            for path in sorted(job.folder.iterdir()):
                shutil.move(path, folder / path.name)


def parts(job: Job) -> Iterator[bytes]:
    """The shards' bytes, in order."""
    for shard in shards(job.recipe):
        data = read_part(job.folder / f"{shard:05d}")
        if data is None:
            raise UserError(str(job.folder), f"shard {shard} was damaged meanwhile", "run the same command again")
        yield data


def share_of(recipe: Work, shard: int | None) -> float:
    """The share of a recipe's work that one of its tasks is."""
    if shard is None or not isinstance(recipe, Examples | Outcomes):
        return 1.0
    part = rows(recipe, shard)
    return (part.stop - part.start) / max(1, images_in(recipe))


def commit_of(root: Path) -> str:
    """The commit of the checkout the run is made in, "+" if it was changed; "unknown" outside one."""
    ask: Callable[..., Any] = lambda *words: subprocess.run(  # noqa: E731
        ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, env=dict(os.environ)
    )
    try:
        head, changed = ask("rev-parse", "--short=12", "HEAD"), ask("status", "--porcelain", "-uno", "--", "*.py")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    if head.returncode:
        return "unknown"
    return str(head.stdout.strip()) + ("+" if changed.stdout.strip() else "")

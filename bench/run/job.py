"""A recipe under way: its parts, what is known of their makers, and how they become a record."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bench import Refused
from bench.recipes import Examples, Outcomes, Work
from bench.store.disk import now, read_part, write
from bench.store.tasks import Done, Task, images_in, rows, shards


class Job(NamedTuple):
    """One recipe under way: its folder of parts, the shards still missing, what was learnt of it.

    `lock` is the handle that keeps other runs from training the same weights meanwhile.
    """

    recipe: Work
    folder: Path
    made_from: dict[str, str]
    todo: set[int | None]
    about: list[Done]
    makers: dict[str, set[str]]
    lock: int | None

    def made_by(self, about: Mapping[str, object]) -> None:
        """Note what a part was computed with, in an earlier run or this one: not all need be the same."""
        for name in ("precision", "device", "arithmetic", "microbatch", "compiled"):
            if name in about:
                self.makers.setdefault(name, set()).add(str(about[name]))


class Lost(Exception):
    """A shard that was there is not: damaged, or another run sealed the record and tidied up."""


def gather(job: Job, folder: Path) -> None:
    """Write the files of a record from the parts of its shards."""
    match job.recipe:
        case Outcomes():
            from bench.votes.votes import concatenate, from_parquet, to_parquet

            votes = [from_parquet(data) for data in parts(job)]
            write(folder / "votes.parquet", to_parquet(concatenate(votes)), lasting=False)
        case Examples():
            for shard, data in enumerate(parts(job)):
                write(folder / f"{shard:05d}.safetensors", data, lasting=False)
        case _:
            for path in sorted(job.folder.iterdir()):
                shutil.move(path, folder / path.name)


def parts(job: Job) -> Iterator[bytes]:
    """The shards' bytes, in order."""
    for shard in shards(job.recipe):
        part = read_part(job.folder / f"{shard:05d}")
        if part is None:
            raise Lost(shard)
        yield part[0]


def release(job: Job) -> None:
    """Let other runs have the job's weights."""
    if job.lock is not None:
        os.close(job.lock)


def together(errors: list[Refused]) -> Refused:
    """What was refused, as one mistake."""
    first, more = errors[0], [f"{error.where}: {error.what}\n  fix: {error.fix or 'see above'}" for error in errors[1:]]
    if not more:
        return first
    return Refused(first.where, "\n".join([first.what, f"  fix: {first.fix or 'see above'}", *more]))


def share_of(recipe: Work, shard: int | None) -> float:
    """The share of a recipe's work that one of its tasks is."""
    if shard is None or not isinstance(recipe, Examples | Outcomes):
        return 1.0
    part = rows(recipe, shard)
    return float(part.stop - part.start) / max(1, images_in(recipe))


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


class Counts(NamedTuple):
    """What a run did: records made, tasks done, and shards that an earlier run had left ready."""

    records: int
    tasks: int
    reused: int


def provenance(job: Job, commit: str) -> dict[str, Any]:
    """What a record's manifest says of how it was made, over all its tasks."""
    about: dict[str, Any] = {}
    for done in job.about:
        for name, value in done.provenance.items():
            adds = name in ("forward_passes", "backward_passes") and isinstance(value, int)
            about[name] = about.get(name, 0) + value if adds else value
    for name, said in job.makers.items():
        if said != {str(about.get(name))}:
            about[name] = ", ".join(sorted(said))
    return about | {
        "made": now(),
        "seconds": round(sum(done.seconds for done in job.about), 2),
        "commit": commit,
        "parts_from_an_earlier_run": len(shards(job.recipe) or [None]) - len(job.about),
    }

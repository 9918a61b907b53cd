"""A recipe under way: its parts, what is known of their makers, and how they become a record."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bench import Refused
from bench.recipes import Examples, Outcomes, Work
from bench.store.disk import read_part, write
from bench.store.tasks import Done, shards


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
        for name in ("precision", "device", "arithmetic"):
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

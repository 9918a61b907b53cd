"""The memory of the house: key -> sealed record. Alone touches results/ and .bench/.

A record is a folder holding its files and a manifest.json, written beside its place under a
temporary name, synced, and renamed: it is there whole or not at all. The manifest names every
file's SHA-256, and itself carries one. A record that does not match is damaged: `find` says so in
`faults` and answers None, so that it is made again and never believed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench import UserError
from bench.recipes import Distilled, Examples, Fetched, Outcomes, Trained, Work, inputs, summary
from bench.store.disk import sync, write, writing
from bench.store.sealed import FORMAT, Damaged, Record, checked, load, opened, seal_of, whole

ABANDONED = 3600.0  # seconds after which a temporary folder is one that a killed process left


class Stale(NamedTuple):
    """A record made from an input that has since been made anew with other bytes."""

    record: Record
    key: str
    then: str
    now: str


@dataclass
class Store:
    """The records under `root`: results/records (small, committed), models/weights (published),
    .bench (large, can be made again)."""

    root: Path
    faults: list[str] = field(default_factory=list)
    _published: dict[str, Path] | None = None

    @property
    def scratch(self) -> Path:
        """The folder of work in progress."""
        return self.root / ".bench"

    @property
    def images(self) -> Path:
        """The folder of decoded images."""
        return self.scratch / "images"

    def place(self, recipe: Work) -> Path:
        """Where the recipe's record is, or would be."""
        match recipe:
            case Outcomes():
                shelf = self.root / "results" / "records"
            case Examples():
                shelf = self.scratch / "examples"
            case Trained() | Distilled() | Fetched():
                shelf = self.scratch / "weights"
        return shelf / recipe.key[:2] / recipe.key

    def find(self, recipe: Work, *, thorough: bool = False) -> Record | None:
        """The recipe's record if it is there and whole; damage is noted in `faults`.

        The manifest is checked always, the files' bytes when they are read or if `thorough`;
        votes are small enough that theirs are always checked.
        """
        for path in self.places(recipe):
            try:
                if record := whole(path, recipe.key, thorough or isinstance(recipe, Outcomes)):
                    return record
            except Damaged as damage:
                self.faults.append(str(damage))
        return None

    def places(self, recipe: Work) -> Iterator[Path]:
        """Where a record of the recipe may stand, in the order in which it is looked for."""
        yield self.place(recipe)
        if isinstance(recipe, Trained | Distilled):
            if self._published is None:
                self._published = {}
                for manifest in sorted((self.root / "models" / "weights").glob("*/manifest.json")):
                    with contextlib.suppress(Damaged, KeyError, TypeError):
                        self._published[opened(manifest)["key"]] = manifest.parent
            if recipe.key in self._published:
                yield self._published[recipe.key]

    def stale(self, recipe: Work, record: Record) -> Stale | None:
        """Whether something the record was made from now has another seal."""
        for source in inputs(recipe):
            then = record.manifest["made_from"].get(source.key)
            for path in self.places(source) if then else ():
                try:
                    now = load(path, source.key)
                except Damaged:
                    continue
                if now and now.seal != then:
                    return Stale(record, source.key, then, now.seal)
                if now:
                    break
        return None

    def seal(
        self,
        recipe: Work,
        fill: Callable[[Path], None],
        made_from: Mapping[str, str],
        provenance: Mapping[str, Any],
    ) -> Record:
        """Make the recipe's record: `fill` writes its files into an empty folder.

        Whatever was in the place and is not whole makes room; a whole record that another process
        sealed meanwhile stays, and is the one returned. UserError if the disk refuses.
        """
        place = self.place(recipe)
        with writing(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = place.parent / f".{recipe.key[:12]}-{uuid.uuid4().hex[:8]}"
            _sweep(place.parent)
            temporary.mkdir()
            try:
                fill(temporary)
                files = {}
                for path in sorted(temporary.rglob("*")):
                    if path.is_file():
                        sync(path)
                        data = path.read_bytes()
                        name = path.relative_to(temporary).as_posix()
                        files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
                body = {
                    "format": FORMAT,
                    "key": recipe.key,
                    "kind": type(recipe).__name__,
                    "recipe": summary(recipe),
                    "files": files,
                    "made_from": dict(sorted(made_from.items())),
                    "seal": seal_of(files, made_from),
                    "provenance": dict(provenance),
                }
                write(temporary / "manifest.json", checked(body))
                self._settle(recipe, temporary, place)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        record = self.find(recipe)
        if record is None:
            raise UserError(str(place), "was written and cannot be read back", "check the disk")
        return record

    def _settle(self, recipe: Work, temporary: Path, place: Path) -> None:
        for _ in range(3):
            try:
                os.rename(temporary, place)
                sync(place.parent)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
            with contextlib.suppress(Damaged):
                if whole(place, recipe.key, thorough=True):
                    return
            self.discard(place)

    def discard(self, place: Path) -> None:
        """Remove a record or whatever stands in its place, at once even if deleting takes time."""
        aside = place.parent / f".gone-{uuid.uuid4().hex[:8]}"
        with writing(place):
            with contextlib.suppress(FileNotFoundError):
                os.rename(place, aside)
            if aside.is_dir() and not aside.is_symlink():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.unlink(missing_ok=True)


def _sweep(shelf: Path) -> None:
    """Remove what processes that were killed while sealing left behind."""
    for left in shelf.glob(".*-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED:
                shutil.rmtree(left)



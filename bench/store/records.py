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
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench import UserError
from bench.recipes import Distilled, Examples, Fetched, Outcomes, Trained, Work, inputs, summary
from bench.store.disk import sync, write, writing

FORMAT = 2
NOTES = {"model.toml"}  # tells of time and machine, so it is checked but is not part of the seal
LARGEST_MANIFEST, LARGEST_FILE, MOST_FILES = 4 << 20, 4 << 30, 100_000
ABANDONED = 3600.0  # seconds after which a temporary folder is one that a killed process left


class Record(NamedTuple):
    """A sealed record: where it is, what it says of itself, and its seal (64 hex digits)."""

    key: str
    path: Path
    manifest: dict[str, Any]
    seal: str

    def read(self, name: str) -> bytes:
        """One file's bytes, checked against the manifest; Damaged if they differ."""
        data = _bytes(os.path.join(self.path, name), LARGEST_FILE)
        if hashlib.sha256(data).hexdigest() != self.manifest["files"][name]["sha256"]:
            raise Damaged(f"{self.path / name}: the checksum differs from the manifest's")
        return data


class Damaged(ValueError):
    """A record whose bytes are not the ones that were sealed; the message names the file."""


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


def whole(path: Path, key: str, thorough: bool) -> Record | None:
    """`load`, and if `thorough` every file's bytes checked too."""
    record = load(path, key)
    if record and thorough:
        for name in record.manifest["files"]:
            record.read(name)
    return record


def load(path: Path, key: str) -> Record | None:
    """The record in this folder, its manifest checked; None if nothing is there, Damaged if not whole.

    A manifest may come from a stranger, its checksum made to fit: so every name stays in the
    folder, sizes are the files' own, no file is a link, and the seal follows from the digests.
    """
    if not os.path.lexists(path):
        return None
    body = opened(path / "manifest.json")
    if body.get("key") != key:
        raise Damaged(f"{path}: holds the record {str(body.get('key'))[:12]}, not {key[:12]}")
    files, made_from = body.get("files"), body.get("made_from")
    if not (isinstance(files, dict) and len(files) <= MOST_FILES and isinstance(made_from, dict)):
        raise Damaged(f"{path}: its manifest lists no files")
    for name, about in files.items():
        if not _inside(name):
            raise Damaged(f"{path}: names a file outside its folder: {name[:80]!r}")
        if not (isinstance(about, dict) and isinstance(about.get("sha256"), str)):
            raise Damaged(f"{path}: its manifest has no digest for {name[:80]!r}")
        if "/" in name and not (path / name).resolve().is_relative_to(path.resolve()):
            raise Damaged(f"{path}: a link leads {name[:80]!r} outside its folder")
        size = _size(os.path.join(path, name))
        if size is None or size != about.get("bytes"):
            there = "missing" if size is None else f"{size} bytes"
            raise Damaged(f"{path / name}: {there}, sealed with {about.get('bytes')!r}")
    if body.get("seal") != seal_of(files, made_from):
        raise Damaged(f"{path}: its seal is not that of its files")
    return Record(key, path, body, body["seal"])


def _inside(name: str) -> bool:
    """Whether a name from a manifest is that of a file below the manifest's folder."""
    plain = name.isprintable() and not any(sign in name for sign in "\\:")
    return plain and not {"..", ".", ""} & {*name.split("/")}


def _size(path: str) -> int | None:
    """Bytes of a regular file; None if there is none, or a link, which may lead anywhere."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _sweep(shelf: Path) -> None:
    """Remove what processes that were killed while sealing left behind."""
    for left in shelf.glob(".*-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED:
                shutil.rmtree(left)


CHECK, CHECKED = b'{"check": "', b'",\n'


def checked(body: Mapping[str, Any]) -> bytes:
    """A manifest as it is written: JSON whose first value is the SHA-256 of all the text that follows it."""
    rest = json.dumps(body, indent=1).encode()[1:]
    return CHECK + hashlib.sha256(rest).hexdigest().encode() + CHECKED + rest


def opened(path: Path) -> dict[str, Any]:
    """What `checked` wrote; Damaged if the file is not there, of another format, or not as it was written."""
    data = _bytes(os.fspath(path), LARGEST_MANIFEST)
    begin = len(CHECK) + 64 + len(CHECKED)
    digest = hashlib.sha256(data[begin:]).hexdigest().encode()
    fits = data[:begin] == CHECK + digest + CHECKED
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise Damaged(f"{path}: not JSON ({len(data)} bytes)") from None
    if isinstance(body, dict) and body.get("format") != FORMAT:
        raise Damaged(f"{path}: a record of format {body.get('format')!r}, this version reads {FORMAT}")
    if not fits or not isinstance(body, dict):
        raise Damaged(f"{path}: does not match its own checksum")
    return body


def seal_of(files: Mapping[str, Mapping[str, Any]], made_from: Mapping[str, str]) -> str:
    """SHA-256 over the files' digests and the seals of what they were made from."""
    lines = [f"{name!r} {about['sha256']!r}" for name, about in sorted(files.items()) if name not in NOTES]
    lines += ["made from", *(f"{key!r} {seal!r}" for key, seal in sorted(made_from.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _bytes(path: str, most: int) -> bytes:
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            raise Damaged(f"{path}: a link stands where a file belongs")
        if found.st_size > most:
            raise Damaged(f"{path}: {found.st_size} bytes, more than such a file can have")
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        raise Damaged(f"{path}: missing") from None
    except IsADirectoryError:
        raise Damaged(f"{path}: a folder stands where a file belongs") from None
    except PermissionError:
        raise UserError(str(path), "no permission to read it", "mend the file's permissions") from None
    except OSError as error:
        raise Damaged(f"{path}: cannot be read: {error.strerror}") from None

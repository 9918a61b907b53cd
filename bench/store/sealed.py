"""One sealed record on the disk: read, checked, and never believed where it does not match."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bench import UserError

FORMAT = 2


NOTES = {"model.toml"}  # tells of time and machine, so it is checked but is not part of the seal

LARGEST_MANIFEST, LARGEST_FILE, MOST_FILES = 4 << 20, 4 << 30, 100_000
CHECK, CHECKED = b'{"check": "', b'",\n'


class Record(NamedTuple):
    """A sealed record: where it is, what it says of itself, and its seal (64 hex digits)."""

    key: str
    path: Path
    manifest: dict[str, Any]
    seal: str

    def read(self, name: str) -> bytes:
        """One file's bytes, checked against the manifest; Damaged if they differ."""
        data = bytes_of(os.path.join(self.path, name), LARGEST_FILE)
        if hashlib.sha256(data).hexdigest() != self.manifest["files"][name]["sha256"]:
            raise Damaged(f"{self.path / name}: the checksum differs from the manifest's")
        return data


class Damaged(ValueError):
    """A record whose bytes are not the ones that were sealed; the message names the file."""


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
        if not inside(name):
            raise Damaged(f"{path}: names a file outside its folder: {name[:80]!r}")
        if not (isinstance(about, dict) and isinstance(about.get("sha256"), str)):
            raise Damaged(f"{path}: its manifest has no digest for {name[:80]!r}")
        if "/" in name and not (path / name).resolve().is_relative_to(path.resolve()):
            raise Damaged(f"{path}: a link leads {name[:80]!r} outside its folder")
        size = size_of(os.path.join(path, name))
        if size is None or size != about.get("bytes"):
            there = "missing" if size is None else f"{size} bytes"
            raise Damaged(f"{path / name}: {there}, sealed with {about.get('bytes')!r}")
    if body.get("seal") != seal_of(files, made_from):
        raise Damaged(f"{path}: its seal is not that of its files")
    return Record(key, path, body, body["seal"])


def inside(name: str) -> bool:
    """Whether a name from a manifest is that of a file below the manifest's folder."""
    plain = name.isprintable() and not any(sign in name for sign in "\\:")
    return plain and not {"..", ".", ""} & {*name.split("/")}


def size_of(path: str) -> int | None:
    """Bytes of a regular file; None if there is none, or a link, which may lead anywhere."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def checked(body: Mapping[str, Any]) -> bytes:
    """A manifest as it is written: JSON whose first value is the SHA-256 of all the text that follows it."""
    rest = json.dumps(body, indent=1).encode()[1:]
    return CHECK + hashlib.sha256(rest).hexdigest().encode() + CHECKED + rest


def seal_of(files: Mapping[str, Mapping[str, Any]], made_from: Mapping[str, str]) -> str:
    """SHA-256 over the files' digests and the seals of what they were made from."""
    lines = [f"{name!r} {about['sha256']!r}" for name, about in sorted(files.items()) if name not in NOTES]
    lines += ["made from", *(f"{key!r} {seal!r}" for key, seal in sorted(made_from.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def bytes_of(path: str, most: int) -> bytes:
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


def opened(path: Path) -> dict[str, Any]:
    """What `checked` wrote; Damaged if the file is not there, of another format, or not as it was written."""
    data = bytes_of(os.fspath(path), LARGEST_MANIFEST)
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

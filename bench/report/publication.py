"""The seal of what people read: results/<suite>/published.json names every file there, and what they were made from."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

from bench.report.unchanged import program
from bench.run.session import Session
from bench.store.disk import write
from bench.store.sealed import FORMAT, Damaged, checked, opened

NAME = "published.json"
OURS = re.compile(
    r"(tables|claims|certificates|strong|numbers|protocols|robustbench)\.md|protocols\.tex|tables\.json|index\.html|cells/\w+\.html|figures/[^/]+\.(svg|png|pdf|json)"
)
FREE = ("diagnosis",)  # folders whose files other verbs write, later


def seal(session: Session, here: str) -> None:
    """Seal the folder as it is now. `here` is the device that the tables were written for."""
    suite = session.suite
    body = {
        "format": FORMAT,
        "suite": suite.name,
        "scale": suite.scale,
        "limit": suite.limit,
        "why": session.why,
        "here": here,
        "program": program(),
        "findings": digest(session.findings()),
        "records": sources(session),
        "files": files(session.folder),
    }
    data = checked(body)
    path = session.folder / NAME
    if not path.is_file() or path.read_bytes() != data:
        write(path, data)


def current(session: Session, here: str) -> bool:
    """Whether the folder's page was made from what is here now: records, findings, program."""
    try:
        body = opened(session.folder / NAME)
    except Damaged:
        return False
    now = {"findings": digest(session.findings()), "records": sources(session), "program": program(), "here": here}
    return all(body.get(name) == value for name, value in now.items())


def files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in the folder that a run publishes, by its name there."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names(folder) if ours(name)}


def names(folder: Path) -> list[str]:
    """The names of all files in the folder but for the seal, the diagnosis, and what is being written."""
    found = []
    for at, folders, several in os.walk(folder):
        folders[:] = [name for name in folders if os.path.relpath(f"{at}/{name}", folder) not in FREE]
        below = (Path(os.path.relpath(f"{at}/{name}", folder)).as_posix() for name in several if name[0] != ".")
        found += [name for name in below if name != NAME]
    return sorted(found)


def ours(name: str) -> bool:
    """Whether a run publishes a file of this name; a reader may keep others in the folder."""
    return OURS.fullmatch(name) is not None


def sources(session: Session) -> dict[str, str]:
    """By key, the seals of the records that tables, figures and page follow from."""
    works = [*session.wanted(), *session.suite.weights.values()]
    return {work.key: record.seal for work in works if (record := session.store.find(work)) is not None}


def digest(value: object) -> str:
    """SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

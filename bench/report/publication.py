"""The seal of what people read: results/<suite>/published.json names every file there, and what they were made from."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from bench.report.unchanged import program
from bench.run.session import Session
from bench.store.disk import write
from bench.store.sealed import FORMAT, Damaged, checked, opened

NAME = "published.json"
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
    """SHA-256 of every file that is published in the folder, by its name there."""
    found = {}
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if os.path.relpath(f"{at}/{name}", folder) not in FREE)
        for name in sorted(names):
            below = os.path.relpath(f"{at}/{name}", folder)
            if not name.startswith(".") and below != NAME:
                found[Path(below).as_posix()] = hashlib.sha256(Path(at, name).read_bytes()).hexdigest()
    return found


def sources(session: Session) -> dict[str, str]:
    """By key, the seals of the records that tables, figures and page follow from."""
    works = [*session.wanted(), *session.suite.weights.values()]
    return {work.key: record.seal for work in works if (record := session.store.find(work)) is not None}


def digest(value: object) -> str:
    """SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

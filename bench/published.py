"""Whether what people read in results/<suite> was made from the records that are here, so that it can stay."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from bench.disk import write
from bench.session import Session

Stamps = dict[str, list[int]]


def state(session: Session, strong: str, here: str) -> str | None:
    """SHA-256 over all that tables, figures and page follow from; None if a record is missing.

    That is the suite at its scale, the records' seals, what `bench diagnose` found, the ladders in
    words (`strong`), this machine's device (`here`), and this program.
    """
    seals = []
    for outcomes in session.wanted():
        record = session.found.get(outcomes.key) or session.store.find(outcomes)
        if record is None:
            return None
        seals.append(record.seal)
    suite = session.suite
    told = [
        suite.path.read_text("utf-8"), suite.scale, suite.limit, session.why, seals, session.findings(), strong, here,
        _program(),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def unchanged(session: Session, state: str) -> bool:
    """Whether the folder's files are those that an earlier run wrote in this state."""
    try:
        kept = json.loads(_place(session).read_text("utf-8"))
        return bool(kept["state"] == state and kept["files"] == _stamps(session.folder))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def remember(session: Session, state: str) -> None:
    """Keep which files were written in this state."""
    write(_place(session), json.dumps({"state": state, "files": _stamps(session.folder)}).encode())


def _place(session: Session) -> Path:
    return session.store.scratch / "published" / f"{session.suite.name}.json"


def _stamps(folder: Path) -> Stamps:
    """Size and time of change of every file in the folder."""
    found: Stamps = {}
    for at, _, names in os.walk(folder):
        below = os.path.relpath(at, folder)
        for name in names:
            about = os.stat(f"{at}/{name}")
            found[f"{below}/{name}"] = [about.st_size, about.st_mtime_ns]
    return found


def _program() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.*")):
        if path.suffix in (".py", ".html", ".css", ".js", ".mplstyle", ".json", ".toml"):
            digest.update(path.relative_to(Path(__file__).parent).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()

"""Whether what people read in results/<suite> was made from the records that are here, so that it can stay."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

import bench
from bench.report import published
from bench.run.session import Session
from bench.store.disk import write

Stamps = dict[str, list[int]]


def state(session: Session, here: str) -> str | None:
    """SHA-256 over what tables, figures and page follow from; None if a record is missing.

    That is the suite as it was read, the records' manifests, the weights that are here (their training
    curves are drawn), what `bench diagnose` found, this machine's device
    (`here`), and this program.
    """
    suite, manifests = session.suite, []
    for outcomes in session.wanted():
        record = session.record(outcomes)
        if record is None:
            return None
        manifests.append(record.manifest["check"])
    trained = [session.store.find(weights) for weights in suite.weights.values()]
    told = [
        suite.text, suite.scale, suite.limit, session.why, manifests,
        [record and record.seal for record in trained], session.findings(), here, program(),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def unchanged(session: Session, state: str) -> bool:
    """Whether the folder's files are those that an earlier run wrote in this state."""
    try:
        kept = json.loads(_place(session).read_text("utf-8"))
        return bool(kept["state"] == state and kept["files"] == _stamps(session.folder))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def remember(session: Session, state: str, tables: bytes) -> None:
    """Keep which files were written in this state; not if another run has written its own `tables` meanwhile."""
    with contextlib.suppress(OSError):
        if (session.folder / "tables.md").read_bytes() == tables:
            kept = {"state": state, "files": _stamps(session.folder)}
            write(_place(session), json.dumps(kept).encode(), lasting=False)


def _place(session: Session) -> Path:
    return session.store.scratch / "published" / f"{session.suite.name}.json"


def _stamps(folder: Path) -> Stamps:
    """Size and time of change of every file in the folder."""
    found: Stamps = {}
    for at, _, names in os.walk(folder):
        below = os.path.relpath(at, folder)
        for name in names:
            if name.startswith("."):  # another process is writing it
                continue
            about = os.lstat(f"{at}/{name}")
            found[f"{below}/{name}"] = [about.st_size, about.st_mtime_ns]
    return found


def program() -> str:
    """SHA-256 over this program: its code, styles and templates, and the published claims that it knows."""
    digest = hashlib.sha256()
    top = Path(bench.__file__).parent  # all of the harness, wherever this module stands in it
    for path in sorted(top.rglob("*.*")):
        if path.suffix in (".py", ".html", ".css", ".js", ".mplstyle", ".json", ".toml"):
            digest.update(path.relative_to(top).as_posix().encode() + path.read_bytes())
    with contextlib.suppress(bench.UserError):
        for path in sorted(published.folder().glob("*.toml")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()

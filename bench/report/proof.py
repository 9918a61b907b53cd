"""Does what people read follow from the records? Tables, claims, page and figures are made anew and compared.

Checksums alone would not do: whoever edits a page can edit them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import UserError
from bench.recipes import Outcomes
from bench.report import draw, publish
from bench.report.publication import NAME, digest, files, names, ours, sources
from bench.report.seals import Seal
from bench.report.unchanged import program
from bench.run.session import WHY, Session
from bench.store.sealed import Damaged, opened

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


def check(session: Session) -> list[Seal]:
    """What is said of each published file that is not as the records have it, or of all of them together."""
    there = files(session.folder)
    if not there:
        return []
    suite, where = session.suite, str(session.folder)
    try:
        body: Mapping[str, Any] = opened(session.folder / NAME)
        sealed = dict(body["files"])
        of, why = (body["scale"], body["limit"]), body["why"]
    except (Damaged, KeyError, TypeError, ValueError) as damage:
        return [Seal("published", where, "inconsistent", f"without a seal: {damage}; `bench run` writes it anew")]
    if why not in WHY:
        return [Seal("published", where, "inconsistent", f"its scale was chosen for no reason that is known: {why!r}")]
    if of != (suite.scale, suite.limit):
        said = f"it is of scale {of[0] or 'as written'}" + (f", the first {of[1]} images" if of[1] else "")
        return [Seal("published", where, "cannot be checked here", f"{said}: name that to have it checked")]
    wrong = {name: "was changed after it was written" for name in there if sealed.get(name) != there[name]}
    wrong |= {name: "is not part of what was written" for name in there.keys() - sealed.keys()}
    wrong |= {name: "is missing" for name in sealed.keys() - there.keys()}
    found = [Seal(name, where, "inconsistent", said) for name, said in sorted(wrong.items())]
    records = sources(session)
    then = body["records"]
    other = sorted(key for key in then.keys() | records.keys() if then.get(key) != records.get(key))
    if other:
        said = f"made from other records than those here ({other[0][:12]}{' and others' * (len(other) > 1)})"
        found.append(Seal("published", where, "inconsistent", f"{said}; `bench run` writes it anew if that is right"))
    try:
        made, unknown = again(replace(session, why=why), body["here"])
    except UserError as error:
        return [*found, Seal("published", where, "cannot be checked here", str(error))]
    except (ValueError, TypeError, AttributeError, LookupError) as error:  # a record that says what no run says
        return [*found, Seal("published", where, "inconsistent", f"cannot be made from these records: {error}")]
    unlike = [name for name in sorted(made) if name not in wrong and _bytes(session, name) != made[name]]
    if unlike and (body["program"] != program() or body["findings"] != digest(session.findings())):
        since = "another version of bench" if body["program"] != program() else "what `bench diagnose` found since"
        said = f"{', '.join(unlike[:3])}{' and others' * (len(unlike) > 3)}: would read otherwise by {since}"
        found.append(Seal("published", where, "cannot be checked here", f"{said}; `bench run` writes it anew"))
    else:
        found += [Seal(name, where, "inconsistent", "does not follow from the records") for name in unlike]
    unchecked = sorted(set(sealed) - made.keys() - wrong.keys() - set(unknown) - {"figures/figures.json"})
    found += [Seal(name, where, "inconsistent", "does not follow from the records") for name in unchecked]
    found += [Seal(name, where, "cannot be checked here", said) for name, said in unknown.items()]
    others = [name for name in names(session.folder) if not ours(name)]
    if others:
        said = f"{', '.join(others[:3])}{' and others' * (len(others) > 3)}: not written by bench"
        found.append(Seal("published", where, "cannot be checked here", said))
    return found or [Seal("published", where, "consistent", f"{len(there)} files")]


def again(session: Session, here: str) -> tuple[dict[str, bytes], dict[str, str]]:
    """By name: every published file's bytes as the records give them; and which cannot be made here, and why."""
    suite = session.suite
    whole = publish.views(session, where=here)
    made = publish.texts(session, whole)
    absent: set[str] = set()

    def pictures(outcomes: Outcomes, count: int) -> Pair | None:
        if kept := session.pictured(outcomes, count):
            return kept
        absent.add(outcomes.key)
        return np.zeros((count, 3, 32, 32), np.float32), np.zeros((count, 3, 32, 32), np.float32)

    unknown: dict[str, str] = {}
    there = files(session.folder)
    shown = []
    for one in draw.figures(suite, session.votes, session.curves, pictures):
        names = [f"figures/{name}" for name in draw.names(one)]
        sheet = suite.figures[one.name].kind == "sheet"
        if sheet and absent and not there.keys() & set(names):
            one = one._replace(about=f"{one.title}. No data yet.", missing=("the images or their votes",), make=None)
        shown.append(draw.as_shown(one))
        if one.make is None:
            continue
        if sheet and absent:
            unknown |= dict.fromkeys(names, "its images are not here (they can be made again)")
            continue
        made |= {f"figures/{name}": content for name, content in draw.written(one).items()}
    made |= publish.pages(session, whole, shown)
    return made, unknown


def _bytes(session: Session, name: str) -> bytes | None:
    path = session.folder / name
    return path.read_bytes() if path.is_file() else None

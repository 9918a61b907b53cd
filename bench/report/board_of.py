"""One board of randomised defences out of several suites' records, in every form that it is wanted in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import UserError
from bench.report import protocols_text
from bench.report.cell_page import link
from bench.report.forms import Answer, written
from bench.report.protocols import Row, joined, protocols
from bench.report.render import gfm
from bench.run.session import Session
from bench.store.disk import write

START, END = "<!-- board -->", "<!-- end of the board -->"
MARKED = ("as_published", "as_judged_here")


def board(sessions: Sequence[Session], form: str) -> Answer:
    """The suites' rows as one board, in words of the form; UserError if nothing is recorded of any of them."""
    by_suite = [(session, protocols(session.suite, session.votes)) for session in sessions]
    rows = joined(row for _, several in by_suite for row in several)
    if not rows:
        names = " and ".join(session.suite.path.as_posix() for session in sessions)
        raise UserError(names, "no randomised model is recorded under attack", f"python -m bench run {names}")
    said = gfm(protocols_text.finding(rows))
    text = (f"{said}\n\n" if said else "") + protocols_text.markdown(rows)
    other = protocols_text.latex(rows) if form == "latex" else _html(by_suite, rows) if form == "html" else ""
    return Answer([_values(row) for row in rows], text, form_text=other)


def _values(row: Row) -> dict[str, Any]:
    """A row as plain values: accuracies and differences as shares, what the paper says in percent."""
    found: dict[str, Any] = {"suite": row.suite, "defence": row.name, "noise_in": list(row.places), "eps": str(row.eps)}
    for name, mark in zip(("clean", *MARKED), (row.clean, row.published, row.ours), strict=True):
        number = mark and mark.number
        found |= {
            name: number and number.value, f"{name}_low": number and number.low, f"{name}_high": number and number.high,
            f"{name}_images": number and number.n, f"{name}_by": mark and mark.words, f"{name}_key": mark and mark.key,
        }  # fmt: skip
    gap = row.gap
    found |= {
        "difference": gap and gap.value, "difference_low": gap and gap.low, "difference_high": gap and gap.high,
        "difference_images": row.shared, "paper_percent": row.told and 100 * row.told.value,
        "paper_of": row.told and f"{row.told.whose}: {row.told.words}",
    }  # fmt: skip
    return found


def _html(by_suite: Sequence[tuple[Session, Sequence[Row]]], rows: Sequence[Row]) -> str:
    """Numbers lead to the pages of their records, for a file that lies beside the suites' folders in results/."""
    from bench.report.page import board as page

    places = {}
    for session, several in by_suite:
        for row in several:
            for mark in (row.clean, row.published, row.ours):
                if mark is not None and (session.folder / link(mark.key)).is_file():
                    places[mark.key] = f"{session.folder.name}/{link(mark.key)}"
    suites = " ".join(session.suite.path.name for session, _ in by_suite)
    about = "; ".join(
        f"{s.suite.header.title or s.suite.name}, scale {s.suite.scale or 'as written'}" for s, _ in by_suite
    )
    return page(rows, about + ".", f"freshdraws published {suites}", lambda key: places.get(key, ""))


def put(path: Path, answer: Answer, form: str) -> None:
    """Write the answer into a file: between its marks if it has them, else as the whole file."""
    text = written(answer, form) + "\n"
    try:
        before = path.read_text("utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(str(path), f"cannot be read: {error}", "name another file") from None
    head, start, rest = before.partition(START)
    _, end, tail = rest.partition(END)
    if before and not (start and end) and path.parent.name == "docs":  # prose that nobody wants to lose
        raise UserError(str(path), "has no place for the board", f"put {START} and {END} where it belongs")
    whole = f"{head}{START}\n{text}{END}{tail}" if start and end else text
    if not path.resolve().parent.is_dir() or path.is_dir():
        raise UserError(str(path), "cannot be written", "name a file in a folder that exists")
    write(path, whole.encode())

"""What a run leaves for people: tables.md and its companions, the plan in words, lists."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench import UserError, nearest
from bench.report import bought, certificates, numbers, places, protocols_text, publication, unchanged
from bench.report import claims as claim_words
from bench.report.claims import claims
from bench.report.listing import short
from bench.report.protocols import protocols
from bench.report.render import render
from bench.report.tables import TableView, tables
from bench.run.job import Counts
from bench.run.session import Session
from bench.store.disk import write
from bench.store.machine import here
from bench.votes.numbers import Number

if TYPE_CHECKING:
    from bench.report.draw import Shown

COMPANIONS = {
    "claims.md", "certificates.md", "strong.md", "numbers.md", "robustbench.md", "protocols.md", "protocols.tex",
}  # fmt: skip
FORMATS = {"md": "md", "csv": "csv", "html": "html", "latex": "tex"}


class Report(NamedTuple):
    """The tables of a session and the folder in which they were written.

    `views` is None if all that is there was written by an earlier run from the same records.
    """

    session: Session
    views: list[TableView] | None
    folder: Path

    def json(self) -> str:
        """Every cell as a JSON object: shares in [0, 1], keys of the records behind each."""
        if self.views is None:
            return (self.folder / "tables.json").read_text("utf-8").rstrip("\n")
        cells = [
            {
                "table": view.name,
                "row": cell.cell.row,
                "column": cell.cell.column,
                "source": cell.cell.source,
                "target": cell.cell.target,
                "attack": cell.cell.attack,
                "number": cell.cell.number,
                "value": cell.number.value if isinstance(cell.number, Number) else None,
                "low": cell.number.low if isinstance(cell.number, Number) else None,
                "high": cell.number.high if isinstance(cell.number, Number) else None,
                "images": cell.number.n if isinstance(cell.number, Number) else 0,
                "missing": None if isinstance(cell.number, Number) else cell.number.reason,
                "paper_percent": cell.cell.paper,
                "record": cell.cell.outcomes.key,
                "label": ", ".join(filter(None, row.heads)),
                "column_label": view.columns[cell.cell.column],
                "access": cell.access,
                "eps": None if (eps := getattr(attacked, "eps", None)) is None else str(eps),
                "norm": None if eps is None else getattr(attacked, "norm", "Linf"),
            }
            for view in self.views
            for row in view.rows
            for cell in row.cells
            if cell is not None
            for attacked in (cell.cell.outcomes.examples.attack,)
        ]
        about = {"suite": self.session.suite.name, "scale": self.session.suite.scale, "why": self.session.why}
        return json.dumps(about | {"cells": cells}, indent=1)


def about(session: Session) -> str:
    """The line above the tables: which scale, why, and what it is."""
    suite = session.suite
    scale = suite.scales.get(suite.scale)
    words = f"Scale: {suite.scale or 'as written'}"
    if scale and scale.about:
        words += f" ({scale.about})"
    words += f"; {session.why}." if session.why != "as asked" else "."
    if suite.limit:
        words += f" Only the first {suite.limit} images of the fixed shuffle."
    return words


def views(session: Session, only: str | None = None, where: str | None = None) -> list[TableView]:
    """The session's tables as far as there are records, as they read on the device `where` (None: this one)."""
    where = here(session.settings.device) if where is None else where
    return tables(session.suite, session.votes, session.manifest, here=where, warn=session.warning, only=only)


def rendered(session: Session, only: str | None, form: str) -> str:
    """The tables in one format."""
    if form == "json":
        return Report(session, views(session, only), session.folder).json()
    if form not in FORMATS:
        raise UserError("--format", f"unknown format {form!r}", nearest(form, FORMATS))
    title = session.suite.header.title or session.suite.name
    return render(views(session, only), form, title, about(session))  # type: ignore[arg-type]


def publish(session: Session, only: str | None = None, made: bool = True) -> Report:
    """Write what people read into results/<suite>: tables.md (of the whole suite, also after --only) and its
    index tables.json, claims.md, certificates.md, strong.md, numbers.md, robustbench.md and protocols.md (.tex) where
    there is something to say, figures and page.

    All of it is left alone if no record was `made` and nothing that it is made from has changed; figures and
    page after --only, too, if the tables are as they were.
    """
    folder, device = session.folder, here(session.settings.device)
    state = unchanged.state(session, device) if only is None else None
    if state is not None and not made and unchanged.unchanged(session, state):
        return Report(session, None, folder)
    whole = views(session)
    words = texts(session, whole)
    tables_ = folder / "tables.md"
    same = tables_.is_file() and tables_.read_bytes() == words["tables.md"]
    for name in COMPANIONS - words.keys():
        (folder / name).unlink(missing_ok=True)
    for name, text in words.items():
        write(folder / name, text)
    if state is not None or made or not same or not publication.current(session, device):
        illustrate(session, whole)
    publication.seal(session, device)
    if state is not None:
        unchanged.remember(session, state, words["tables.md"])
    return Report(session, [view for view in whole if only in (None, view.name)], folder)


def texts(session: Session, whole: list[TableView]) -> dict[str, bytes]:
    """The tables, their index and companions by file name; a companion with nothing to say is left out."""
    suite, folder = session.suite, session.folder
    both = protocols(suite, session.votes)
    words = {
        "tables.md": render(whole, "md", suite.header.title or suite.name, about(session)),
        "tables.json": Report(session, whole, folder).json() + "\n",
        "claims.md": claim_words.markdown(claims(suite, session.votes)) if suite.claims else "",
        "certificates.md": certificates.markdown(certificates.certificates(suite, session.votes)),
        "strong.md": bought.markdown(suite, session.manifest),
        "numbers.md": numbers.numbers(suite, session.votes),
        places.NAME: places.whole(suite, session.votes),
        "protocols.md": protocols_text.markdown(both),
        "protocols.tex": protocols_text.latex(both),
    }
    return {name: text.encode() for name, text in words.items() if text}


def illustrate(session: Session, whole: list[TableView]) -> Path:
    """Draw the figures and write the page; returns its index.html."""
    from bench.report import draw, page

    suite, folder = session.suite, session.folder
    shown = draw.publish(suite, folder / "figures", session.votes, session.curves, session.pictures)
    return page.publish(folder, pages(session, whole, shown))


def pages(session: Session, whole: list[TableView], shown: Sequence[Shown]) -> dict[str, bytes]:
    """The page's files by name, with the figures as `shown`."""
    from bench.report.page import page

    verdicts, found = claims(session.suite, session.votes), session.findings()
    return page(
        session.suite, about(session), session.votes, session.manifest, whole, shown, verdicts=verdicts, findings=found
    )


def show(report: Report, counts: Counts) -> None:
    """The tables on the terminal, and where they are."""
    from rich.console import Console

    from bench.report.forms import readable
    from bench.report.render import terminal

    console, shown, suite = Console(), report.views, report.session.suite
    if console.is_terminal:
        console.print(about(report.session), highlight=False, markup=False)
        for view in views(report.session) if shown is None else shown:
            console.print(terminal(view))
    elif shown is None:
        print((report.folder / "tables.md").read_text("utf-8"))
    else:
        print(render(shown, "md", suite.header.title or suite.name, about(report.session)))
    only = shown[0].name if shown and len(shown) == 1 else None
    if text := bought.markdown(suite, report.session.manifest, only):
        print(readable(text) if console.is_terminal else text)
    main = suite.header.main
    if shown is None or not main or any(view.name in main for view in shown):
        first = places.first(report.folder)
        print(readable(first) if console.is_terminal else first, end="\n\n")
    made = "nothing was missing" if not counts.records else f"{counts.records} records made in {counts.tasks} tasks"
    again = f", {counts.reused} shards found from an earlier run" if counts.reused else ""
    console.print(f"{made}{again}; tables in {short(report.folder / 'tables.md')}", highlight=False, markup=False)
    if (report.folder / "index.html").is_file():
        console.print(f"page: {short(report.folder / 'index.html')}", highlight=False, markup=False)

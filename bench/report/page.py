"""A static folder that shows a suite: leaderboard, tables, figures, claims, and a page for each number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from bench.report.board import leaderboard
from bench.report.cell_page import cell_page, command, link
from bench.report.claims import Verdict, sentence
from bench.report.draw import Shown
from bench.report.footnotes import CellView
from bench.report.leaderboard import ours, words
from bench.report.render import difference, letter, papers
from bench.report.tables import About, Lookup, TableView
from bench.store.disk import write
from bench.suite.cells import Suite
from bench.votes.numbers import Number

TEMPLATES = Path(__file__).with_name("templates")


class Figure(NamedTuple):
    """A number of the leaderboard, in percent."""

    value: float
    half: float | None = None
    link: str = ""


class Standing(NamedTuple):
    """A row of the leaderboard."""

    name: str
    ours: bool
    architecture: str
    venue: str
    extra: str
    clean: Figure | None
    robust: Figure | None
    pgd: Figure | None
    images: int
    note: str = ""


def page(
    suite: Suite,
    about: str,
    lookup: Lookup,
    manifest: About,
    views: Sequence[TableView],
    shown: Sequence[Shown] = (),
    *,
    verdicts: Sequence[Verdict] = (),
    findings: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> dict[str, bytes]:
    """The files of the page by their names in its folder, but for the figures' own.

    `about` is the line on scale and why; `views` the tables; `shown` the figures as written into
    the folder's figures/; `findings` by model: check, verdict, figure, advice. Equal arguments give
    equal bytes.
    """
    import jinja2

    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"letter": letter, "papers": papers, "difference": difference, "value_of": value_of}
    title = suite.header.title or suite.name
    cells = gathered(views)
    parts = {"leaderboard": True, "tables": True, "figures": shown, "claims": verdicts, "diagnosis": findings}
    index = {
        "title": title,
        "source": suite.header.source,
        "about": about,
        "sections": [(name, name.capitalize()) for name, there in parts.items() if there],
        "board": standings(suite, lookup, set(cells)),
        "board_source": leaderboard().source,
        "board_words": [said.replace("**", "") for model in ours(suite, lookup) for said in words(model)],
        "views": views,
        "figures": [one._asdict() | {"shape": shape(suite, one.name)} for one in shown],
        "claims": [(one, sentence(one), " ".join(one.claim.holds.split())) for one in verdicts],
        "findings": findings or {},
        "command": command(suite),
    }
    files = {"index.html": environment.get_template("index.html").render(index).encode()}
    for key, several in cells.items():
        context = cell_page(suite, title, several, lookup, manifest)
        files[link(key)] = environment.get_template("cell.html").render(context).encode()
    return files


def publish(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write the page's files; pages of cells that are no more go. Returns the path of index.html."""
    for name, content in files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            write(path, content)
    for path in (folder / "cells").glob("*.html"):
        if f"cells/{path.name}" not in files:
            path.unlink()
    return folder / "index.html"


def shape(suite: Suite, name: str) -> str:
    """How much room a figure takes on the page: a class of the style sheet."""
    figure = suite.figures[name]
    if figure.kind == "sheet":
        return "tower"
    return "wide" if figure.kind == "steps" and len(figure.eps) * len(figure.sources) > 1 else ""


def gathered(views: Sequence[TableView]) -> dict[str, list[tuple[TableView, CellView]]]:
    """Every place at which a record is shown, by the record's key."""
    found: dict[str, list[tuple[TableView, CellView]]] = {}
    for view in views:
        for cell in (cell for row in view.rows for cell in row.cells if cell):
            found.setdefault(cell.cell.outcomes.key, []).append((view, cell))
    return found


def value_of(cell: CellView) -> Markup:
    """A table's number as a link to its page."""
    if not isinstance(cell.number, Number):
        return Markup('<a href="{}" aria-label="missing: {}">\N{EM DASH}</a>').format(
            link(cell.cell.outcomes.key), cell.number.reason
        )
    return Markup('<a href="{}">{:.2f}</a><span class="range"> ± {:.2f}</span>').format(
        link(cell.cell.outcomes.key), 100 * cell.number.value, 100 * cell.number.half
    )


# -- leaderboard -------------------------------------------------------------------------------


def standings(suite: Suite, lookup: Lookup, linked: set[str]) -> list[Standing]:
    """RobustBench's rows and ours, the most robust first; those without such a number last, by PGD-10."""

    def figure(number: Number | None) -> Figure | None:
        if number is None:
            return None
        to = link(number.keys[0]) if number.keys and number.keys[0] in linked else ""
        return Figure(100 * number.value, 100 * number.half, to)

    rows = []
    for model in ours(suite, lookup):
        numbers = [number for number in (model.clean, model.autoattack, model.pgd) if number]
        published = leaderboard().named(model.baseline) if model.baseline else None
        extra = "yes" if published and published.extra_data else "no"
        rows.append(
            Standing(
                model.name,
                True,
                model.architecture,
                "this suite",
                extra,
                figure(model.clean),
                figure(model.autoattack),
                figure(model.pgd),
                min(number.n for number in numbers),
                "randomised" if model.stochastic else "",
            )
        )
    for entry in leaderboard().entries:
        note = "flagged as unreliable" if entry.unreliable else ""
        rows.append(
            Standing(
                entry.id,
                False,
                entry.architecture,
                entry.venue,
                "yes" if entry.extra_data else "no",
                Figure(100 * entry.clean),
                Figure(100 * entry.robust),
                None,
                10_000,
                note,
            )
        )
    low = Figure(-1.0)
    return sorted(rows, key=lambda row: (-(row.robust or low).value, -(row.pgd or low).value))

"""A static folder that shows a suite: leaderboard, tables, figures, claims, and a page for each number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from bench.report import protocols_text
from bench.report.board import leaderboard
from bench.report.cell_page import cell_page, command, link
from bench.report.claims import Verdict, sentence
from bench.report.draw import Shown
from bench.report.dumbbell import dumbbell
from bench.report.footnotes import CellView
from bench.report.leaderboard import ours, words
from bench.report.protocols import Row, protocols
from bench.report.protocols_text import finding
from bench.report.render import difference, interval, letter, papers
from bench.report.tables import About, Lookup, TableView
from bench.report.white_box import FEWEST
from bench.store.disk import write
from bench.suite.cells import Suite
from bench.votes.numbers import Number

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).with_name("templates")


class Figure(NamedTuple):
    """A number of the leaderboard, in percent, its interval in words."""

    value: float
    range: str = ""
    link: str = ""
    low: float = 0.0
    high: float = 0.0


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
    title = suite.header.title or suite.name
    cells = gathered(views)

    environment = templates(lambda key: link(key) if key in cells else "")
    both = protocols(suite, lookup)
    parts = {"claims": verdicts, "protocols": both, "leaderboard": True, "tables": True, "figures": shown}
    parts["diagnosis"] = findings
    index = {
        "title": title,
        "source": suite.header.source,
        "about": about,
        "sections": [(name, name.capitalize()) for name, there in parts.items() if there],
        "finding": [said for said in (finding(both), counted(verdicts)) if said],
        "protocols": both,
        "places": places_of(both),
        "board": standings(suite, lookup, set(cells)),
        "board_source": leaderboard().source,
        "board_words": [said.replace("**", "") for model in ours(suite, lookup) for said in words(model)],
        "views": views,
        "figures": [one._asdict() | {"shape": shape(suite, one.name), "column": one.column} for one in shown],
        "claims": [(one, sentence(one), " ".join(one.claim.holds.split())) for one in verdicts],
        "findings": findings or {},
        "command": command(suite),
    }
    files = {"index.html": environment.get_template("index.html").render(index).encode()}
    for key, several in cells.items():
        context = cell_page(suite, title, several, lookup, manifest)
        files[link(key)] = environment.get_template("cell.html").render(context).encode()
    return files


def templates(there: Callable[[str], str]) -> Environment:
    """The page's templates; `there` says where a record's page is by its key, "" if it has none."""
    import jinja2

    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {
        "letter": letter, "papers": papers, "difference": difference, "value_of": value_of, "bar": bar,
        "gap": protocols_text.difference, "about_mark": protocols_text.about, "interval": interval, "there": there,
        "dumbbell": lambda row: dumbbell(row, there), "few": protocols_text.few,
    }  # fmt: skip
    return environment


def board(rows: Sequence[Row], about: str, command: str, there: Callable[[str], str]) -> str:
    """Rows of several suites as one page of HTML that stands by itself."""
    context = {
        "title": "Randomised defences, as published and as judged here", "about": about, "command": command,
        "finding": [said for said in (finding(rows),) if said], "protocols": rows, "places": places_of(rows),
    }  # fmt: skip
    return templates(there).get_template("board.html").render(context) + "\n"


def places_of(rows: Sequence[Row]) -> list[str]:
    """Where the rows' noise sits, each once."""
    return sorted({place for row in rows for place in row.places})


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
    return Markup('<a href="{}">{:.2f}</a><span class="range"> {}</span>').format(
        link(cell.cell.outcomes.key), 100 * cell.number.value, interval(cell.number)
    )


def bar(cell: CellView) -> Markup:
    """The whisker of a table's number."""
    return whisker(cell.number) if isinstance(cell.number, Number) else Markup("")


def whisker(number: Number) -> Markup:
    """An interval as a bar from its low to its high end, the value a tick on it."""
    ends = (100 * one for one in (number.low, number.high, number.value))
    return Markup('<span class="whisker" style="--low:{:.2f};--high:{:.2f};--at:{:.2f}"></span>').format(*ends)


def counted(verdicts: Sequence[Verdict]) -> str:
    """How many of the suite's sentences the images reproduce, contradict and leave open."""
    if not verdicts:
        return ""
    said = [one.verdict for one in verdicts]
    parts = [f"{said.count(word)} {word}" for word in ("reproduced", "contradicted", "undecided") if word in said]
    return f"Of {len(said)} claim{'s' * (len(said) > 1)}: {', '.join(parts)}."


# -- leaderboard -------------------------------------------------------------------------------


def standings(suite: Suite, lookup: Lookup, linked: set[str]) -> list[Standing]:
    """Our rows, then RobustBench's; each the most robust first, those without such a number last, by PGD-10."""

    def figure(number: Number | None) -> Figure | None:
        if number is None:
            return None
        to = link(number.keys[0]) if number.keys and number.keys[0] in linked else ""
        return Figure(100 * number.value, interval(number), to, 100 * number.low, 100 * number.high)

    rows = []
    for model in ours(suite, lookup):
        numbers = [number for number in (model.clean, model.autoattack, model.pgd) if number]
        published = leaderboard().named(model.baseline) if model.baseline else None
        extra = "yes" if published and published.extra_data else "no"
        notes = ["randomised"] if model.stochastic else []
        least = model.lowest.robust if model.autoattack and model.lowest else None
        notes += [f"no place below {FEWEST:,} images"] if least and least.n < FEWEST else []
        rows.append(
            Standing(
                model.name,
                True,
                model.architecture,
                "this suite",
                extra,
                figure(model.clean),
                figure(least),
                figure(model.pgd),
                min(number.n for number in numbers),
                ", ".join(notes),
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
    return sorted(rows, key=lambda row: (not row.ours, -(row.robust or low).value, -(row.pgd or low).value))

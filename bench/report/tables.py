"""Tables as values: the suite's rows and columns, each cell a number with all that must be said of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from bench.recipes import Outcomes
from bench.report.access import access
from bench.report.doubts import believed, computed_in, shy, suspicions
from bench.report.footnotes import CellView, label_of, provenance
from bench.report.white_box import FEWEST
from bench.suite.cells import Cell, Suite
from bench.votes.numbers import Missing, Number, fold
from bench.votes.votes import Votes

Lookup = Callable[[Outcomes], Votes | None]
"""The votes of a recipe, None if no whole record is there."""

About = Callable[[Outcomes], Mapping[str, Any] | None]
"""The manifest of a recipe's record; of its "provenance" device and versions are printed."""

Warn = Callable[[Outcomes], str | None]
"""What else makes a number suspicious (a stale record, a finding of the diagnosis); None if nothing."""


class RowView(NamedTuple):
    """heads: the row's words; cells: one a column, None where the table asks for none."""

    heads: tuple[str, ...]
    access: str
    cells: tuple[CellView | None, ...]


class TableView(NamedTuple):
    """A table ready to be rendered. `legend` explains the marks, `notes` hold for every cell."""

    name: str
    title: str
    caption: str
    heads: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[RowView, ...]
    legend: tuple[str, ...]
    notes: tuple[str, ...]
    provenance: str

    @property
    def attacked(self) -> bool:
        """Whether any row has an attack, and so an access to speak of."""
        return any(row.access for row in self.rows)

    def compared(self, column: int) -> bool:
        """Whether the paper has a value in this column."""
        return any(cell and cell.cell.paper is not None for cell in (row.cells[column] for row in self.rows))


def tables(
    suite: Suite,
    lookup: Lookup,
    about: About,
    *,
    here: str | None = None,
    warn: Warn | None = None,
    only: str | None = None,
) -> list[TableView]:
    """Every table of the suite (or one), as far as there are records.

    `here` is this machine's device as manifests name it: numbers recorded on another are marked.
    The same records and the same `here` give the same tables.
    """
    views = []
    for name in suite.tables if only is None else [only]:
        cells = list(suite.cells(name))
        votes = {cell.outcomes: lookup(cell.outcomes) for cell in cells}
        manifests = {outcomes: about(outcomes) for outcomes, found in votes.items() if found is not None}
        numbers = [number_of(suite, cell, votes[cell.outcomes]) for cell in cells]
        said = [
            [*remarks(suite, cell, number, manifests.get(cell.outcomes), here), *_warned(warn, cell)]
            for cell, number in zip(cells, numbers, strict=True)
        ]
        for at, remark in dict.fromkeys(suspicions(cells, numbers, votes)):
            said[at].append(remark)
        views.append(_view(suite, name, cells, numbers, said, votes, manifests=manifests))
    return views


def number_of(suite: Suite, cell: Cell, votes: Votes | None) -> Number | Missing:
    """The cell's number from its record."""
    if votes is None:
        return Missing("no record: not run yet, or stopped before its end")
    if cell.number == "claimed":
        if suite.models[cell.target].rule and cell.outcomes.target.stochastic and cell.outcomes.examples.claim == 1:
            return Missing("the attack believed by single draws, which are no vote")
        return believed(cell.outcomes, votes)
    return fold(votes, cell.number, (cell.outcomes.key,))


def remarks(
    suite: Suite, cell: Cell, number: Number | Missing, manifest: Mapping[str, Any] | None, here: str | None
) -> list[str]:
    """What must be said of one number, apart from suspicions."""
    outcomes, said = cell.outcomes, []
    if isinstance(number, Missing):
        return [number.reason]
    data = outcomes.examples.data
    whole = data.total or number.n
    if number.n < whole:
        shuffled = f"{data.start + 1} to {data.start + number.n} of a fixed shuffle"
        if data.indices is not None or data.order == "original":
            shuffled = "chosen by index" if data.indices is not None else shuffled.replace("a fixed shuffle", "them")
        said.append(f"a subset: {number.n:,} of the {whole:,} {data.split} images ({shuffled})")
    precisions = sorted(computed_in(outcomes, manifest) - {"float32"})
    said += [f"computed in {precision}, not float32" for precision in precisions]
    if shy(outcomes):
        said.append("returns the clean image where no draw was wrong: on fresh draws it looks weaker than it is")
    about = (manifest or {}).get("provenance", {})
    if about.get("outputs") == "probabilities":
        said.append("the model's outputs are probabilities: cross-entropy of a softmax hides gradients")
    device = about.get("device")
    if here is not None and device not in (None, here):
        said.append(f"recorded elsewhere, on {device}")
    entry = suite.models[cell.target]
    row = suite.tables[cell.table].rows[cell.row]
    if entry.note:
        said.append(f"{label_of(suite, cell.target)}: {entry.note}")
    if row.note:
        said.append(row.note)
    return said


def _rival(cell: Cell) -> tuple[int, str, str]:
    examples = cell.outcomes.examples
    return cell.column, cell.target, access(examples.source, cell.outcomes.target, examples.attack)


def _warned(warn: Warn | None, cell: Cell) -> list[str]:
    text = warn(cell.outcomes) if warn else None
    return [f"suspicious: {text}"] if text else []


def _heads(suite: Suite, name: str, row: int) -> tuple[str, ...]:
    table = suite.tables[name]
    asked = table.rows[row]
    target = asked.label or label_of(suite, asked.target)
    source = label_of(suite, asked.source or asked.target)
    if len(table.heads) > 1:
        return (source, target, *[""] * (len(table.heads) - 2))
    return (target if asked.source in (None, asked.target) else f"{target}, attacked through {source}",)


def _view(
    suite: Suite,
    name: str,
    cells: list[Cell],
    numbers: list[Number | Missing],
    said: list[list[str]],
    votes: Mapping[Outcomes, Votes | None],
    *,
    manifests: Mapping[Outcomes, Mapping[str, Any] | None],
) -> TableView:
    table = suite.tables[name]
    spoken = [texts for number, texts in zip(numbers, said, strict=True) if isinstance(number, Number)]
    everywhere = [text for text in spoken[0] if all(text in texts for texts in spoken)] if spoken else []
    legend = list(dict.fromkeys(text for texts in said for text in texts if text not in everywhere))
    rivals: dict[tuple[int, str, str], list[float]] = {}  # only one target's numbers of one access compare
    for cell, number in zip(cells, numbers, strict=True):
        if isinstance(number, Number):
            rivals.setdefault(_rival(cell), []).append(number.value)
    shown: dict[tuple[int, int], CellView] = {}
    for cell, number, texts in zip(cells, numbers, said, strict=True):
        found = votes[cell.outcomes]
        examples = cell.outcomes.examples
        shown[cell.row, cell.column] = CellView(
            cell, number, access(examples.source, cell.outcomes.target, examples.attack),
            float(found.drawn.mean()) if found is not None else 0.0,
            tuple(sorted(legend.index(text) for text in texts if text not in everywhere)),
            isinstance(number, Number) and number.n >= FEWEST and number.value == max(near := rivals[_rival(cell)])
            and len(near) > 1,
        )  # fmt: skip
    views = []
    for i in range(len(table.rows)):
        line = tuple(shown.get((i, j)) for j in range(len(table.columns)))
        said_access = dict.fromkeys(cell.access for cell in line if cell and cell.access)
        views.append(RowView(_heads(suite, name, i), "; ".join(said_access), line))
    notes = [text[0].upper() + text[1:] + "." for text in everywhere]
    computed = [
        sorted({
            one for cell in cells if cell.column == j and votes[cell.outcomes] is not None
            for one in computed_in(cell.outcomes, manifests.get(cell.outcomes))
        })
        for j in range(len(table.columns))
    ]  # fmt: skip
    heads = [
        (column.label or column.attack) + ("" if precisions in ([], ["float32"]) else f" ({', '.join(precisions)})")
        for column, precisions in zip(table.columns, computed, strict=True)
    ]
    said_of_numbers = "Accuracy in percent [its 95 % interval]"
    bold = any(view.best for view in shown.values())
    said_of_numbers += "; bold: the highest of a column's numbers of one target and one access." if bold else "."
    return TableView(
        name, table.title or name, table.caption, table.heads, tuple(heads), tuple(views), tuple(legend),
        (said_of_numbers, *notes),
        provenance(suite, [view for view in shown.values() if isinstance(view.number, Number)], manifests),
    )  # fmt: skip

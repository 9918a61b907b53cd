"""Tables as text: GitHub's markdown, CSV, HTML, LaTeX, and the terminal."""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from bench.report.footnotes import CellView
from bench.report.tables import TableView
from bench.votes.numbers import Number

if TYPE_CHECKING:
    from rich.table import Table as RichTable

Format = Literal["md", "csv", "html", "latex"]
MINUS = "\N{MINUS SIGN}"


def render(views: Sequence[TableView], form: Format, title: str = "", about: str = "") -> str:
    """All tables in one of the formats, under a title and a line on the suite, ending in a newline."""
    match form:
        case "md":
            head = [f"# {gfm(title)}"] if title else []
            return "\n\n".join([*head, *([gfm(about)] if about else []), *map(markdown, views)]) + "\n"
        case "html":
            return "\n".join(map(html_table, views)) + "\n"
        case "latex":
            return "\n\n".join(map(latex, views)) + "\n"
        case "csv":
            return comma_separated(views)
    raise ValueError(f"no format {form!r}")


# -- what a cell says --------------------------------------------------------------------------


def measured(cell: CellView | None) -> str:
    """The value and its interval's ends in percent, a dash if there is none."""
    if cell is None:
        return ""
    if not isinstance(cell.number, Number):
        return "\N{EM DASH}"
    return share(cell.number)


def share(number: Number) -> str:
    """A share in percent with its interval's ends."""
    return f"{100 * number.value:.2f} {interval(number)}"


def interval(number: Number) -> str:
    """An interval by its ends: it is rarely as long on both sides, so a ± would lie."""
    return f"[{100 * number.low:.1f}, {100 * number.high:.1f}]"


def papers(cell: CellView | None) -> str:
    """The paper's value in its own digits."""
    return "" if cell is None or cell.cell.paper is None else f"{cell.cell.paper:g}"


def difference(cell: CellView | None) -> str:
    """Measured less the paper's, in points."""
    if cell is None or cell.difference is None:
        return ""
    return f"{cell.difference:+.2f}".replace("-", MINUS)


def letter(mark: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    return (letter(mark // 26 - 1) if mark >= 26 else "") + chr(ord("a") + mark % 26)


def heads(view: TableView) -> list[str]:
    """The header: the paper's heads, the access, and for each of its columns ours, its own, the difference."""
    line = [*view.heads, *(["Access"] if view.attacked else [])]
    for j, column in enumerate(view.columns):
        line += [column, "paper", "Δ"] if view.compared(j) else [column]
    return line


def lines(view: TableView, value: Callable[[CellView | None], str], text: Callable[[str], str]) -> Iterator[list[str]]:
    """The rows as strings, one for each head; `value` renders a measured cell, `text` a user's words."""
    for row in view.rows:
        line = [*map(text, row.heads), *([text(row.access)] if view.attacked else [])]
        for j, cell in enumerate(row.cells):
            line += [value(cell), papers(cell), difference(cell)] if view.compared(j) else [value(cell)]
        yield line


def _dressed(text: Callable[[str], str], bold: str, mark: str, small: str = "{}") -> Callable[[CellView | None], str]:
    """A renderer of measured cells from templates for the best value, for the marks and for the interval."""

    def value(cell: CellView | None) -> str:
        number, _, rest = measured(cell).partition(" ")
        if cell is None or not number:
            return ""
        body = (bold.format(number) if cell.best else text(number)) + (f" {small.format(rest)}" if rest else "")
        return body + (mark.format(",".join(map(letter, cell.marks))) if cell.marks else "")

    return value


# -- markdown ----------------------------------------------------------------------------------


def plain(text: str) -> str:
    """On one line, without control characters or ones that turn the direction of writing."""
    spaced = "".join(" " if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") else char for char in text)
    return re.sub(r"\s+", " ", spaced).strip()


def gfm(text: str) -> str:
    """Text that GitHub's markdown shows as it is, in a table's cell too: what has a meaning becomes an entity."""
    return re.sub(r"[&<>|`\\*~\[\]$#@]|(?<![^\W_])_|_(?![^\W_])", lambda match: f"&#{ord(match[0])};", plain(text))


def markdown(view: TableView) -> str:
    """One table in GitHub-flavoured markdown with its legend and provenance."""
    words = len(view.heads) + view.attacked
    head = heads(view)
    rule = ["---" if i < words else "---:" for i in range(len(head))]
    body = [list(map(gfm, head)), rule, *lines(view, _dressed(str, "**{}**", " <sup>{}</sup>"), gfm)]
    text = [f"## {gfm(view.title)}", *([gfm(view.caption)] if view.caption else [])]
    text.append("\n".join("| " + " | ".join(line) + " |" for line in body))
    if view.legend:
        text.append("<br>\n".join(f"<sup>{letter(i)}</sup> {gfm(line)}" for i, line in enumerate(view.legend)))
    text.append("<br>\n".join(map(gfm, view.notes)))
    text.append(f"<sub>{gfm(view.provenance)}</sub>")
    return "\n\n".join(text)


# -- other formats -----------------------------------------------------------------------------


def quoted(text: str) -> str:
    """Text that HTML shows as it is, in attributes too."""
    return html.escape(plain(text))


def html_table(view: TableView) -> str:
    """One table as a <figure> of plain HTML."""
    value = _dressed(str, "<strong>{}</strong>", " <sup>{}</sup>")
    head = "".join(f'<th scope="col">{quoted(text)}</th>' for text in heads(view))
    rows = ("".join(f"<td>{cell}</td>" for cell in line) for line in lines(view, value, quoted))
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    legend = "<br>\n".join(f"<sup>{letter(i)}</sup> {quoted(text)}" for i, text in enumerate(view.legend))
    notes = "<br>\n".join(map(quoted, (*view.notes, view.provenance)))
    return (
        f'<figure id="{quoted(view.name)}">\n<table>\n<caption>{quoted(view.title)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"
        f"<figcaption>{legend}{'<br>' if legend else ''}{notes}</figcaption>\n</figure>"
    )


SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"\textasciigrave{}", "Δ": r"$\Delta$", "±": r"$\pm$",
    MINUS: "$-$", "\N{EM DASH}": "---", '"': r"\textquotedbl{}",
} | {char: f"\\{char}" for char in "&%$#_{}"}  # fmt: skip


def tex(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(SPECIAL.get(char, char) for char in plain(text))


def latex(view: TableView) -> str:
    """One table as a LaTeX `table` of the package booktabs; where its numbers are from is a comment after it."""
    words = len(view.heads) + view.attacked
    head = heads(view)
    value = _dressed(tex, r"\textbf{{{}}}", r"$^{{{}}}$", r"{{\scriptsize {}}}")
    body = "\n".join(" & ".join(line) + r" \\" for line in lines(view, value, tex)).replace(MINUS, "$-$")
    notes = [*(f"$^{{{letter(i)}}}$ {tex(text)}" for i, text in enumerate(view.legend)), *map(tex, view.notes)]
    label = re.sub("[^A-Za-z0-9-]", "-", view.name)
    return "\n".join([
        r"\begin{table}  % needs \usepackage{booktabs}", r"\centering", rf"\caption{{{tex(view.title)}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{@{{}}{'l' * words}{'r' * (len(head) - words)}@{{}}}}", r"\toprule",
        " & ".join(map(tex, head)) + r" \\", r"\midrule", body, r"\bottomrule", r"\end{tabular}", "",
        rf"{{\footnotesize {' '.join(notes)}}}", r"\end{table}", f"% {plain(view.provenance)}",
    ])  # fmt: skip


FIELDS = (
    "table", "title", "row", "column", "source", "target", "attack", "access", "kind", "value", "low", "high", "images",
    "paper", "difference", "draws", "best", "remarks", "key",
)  # fmt: skip


def records(views: Sequence[TableView]) -> list[dict[str, Any]]:
    """Every cell as plain values: shares in [0, 1], the paper's value and the difference in percent and points."""
    rows = []
    for view in views:
        for cell in (cell for row in view.rows for cell in row.cells if cell):
            number = cell.number if isinstance(cell.number, Number) else None
            asked = cell.cell
            values = (
                view.name, view.title, asked.row, view.columns[asked.column], asked.source, asked.target, asked.attack,
                cell.access, asked.number, number and number.value, number and number.low, number and number.high,
                number and number.n, asked.paper, cell.difference, cell.draws if number else None, cell.best,
                "; ".join(view.legend[mark] for mark in cell.marks), asked.outcomes.key,
            )  # fmt: skip
            rows.append(dict(zip(FIELDS, values, strict=True)))
    return rows


def comma_separated(views: Sequence[TableView]) -> str:
    """Every cell as a line of CSV (RFC 4180) under one header."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, FIELDS)
    writer.writeheader()
    writer.writerows(records(views))
    return sink.getvalue()


def terminal(view: TableView) -> RichTable:
    """One table for rich's console, its notes in the caption."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(plain(view.title)), title_justify="left", caption_justify="left")
    words = len(view.heads) + view.attacked
    for i, head in enumerate(heads(view)):
        table.add_column(Text(plain(head)), justify="left" if i < words else "right", overflow="fold")

    for row in view.rows:
        line: list[Text] = [Text(plain(text)) for text in (*row.heads, *([row.access] if view.attacked else []))]
        for j, cell in enumerate(row.cells):
            value = Text(measured(cell), style="bold" if cell and cell.best else "")
            if cell and cell.marks:
                value.append(f" ({','.join(map(letter, cell.marks))})", style="dim")
            line.append(value)
            if view.compared(j):
                line += [Text(papers(cell), style="dim"), Text(difference(cell))]
        table.add_row(*line)
    said = [*(f"({letter(i)}) {text}" for i, text in enumerate(view.legend)), *view.notes, view.provenance]
    table.caption = Text("\n".join(map(plain, said)), style="dim")
    return table

"""One answer in every format: rows as CSV, JSON, LaTeX, HTML or Markdown, and Markdown as a terminal can show it."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench import UserError, nearest
from bench.report.render import gfm, quoted, tex

FORMS = ("md", "csv", "json", "latex", "html")
Row = Mapping[str, Any]


class Answer(NamedTuple):
    """What a verb has to say: `text` for people (Markdown), the same as `rows`, and `data` where JSON says more.

    An empty `text` is a table of the rows. Rows share their keys. `form_text` is LaTeX or HTML better than theirs.
    """

    rows: Sequence[Row]
    text: str = ""
    data: Any = None
    form_text: str = ""


def checked(form: str | None) -> str | None:
    """The format if there is such a one; UserError, before any work, if not."""
    if form is not None and form not in FORMS:
        raise UserError("--format", f"unknown format {form!r}", nearest(form, FORMS))
    return form


def written(answer: Answer, form: str) -> str:
    """The answer in a format, without a newline at its end."""
    if answer.form_text and form in ("latex", "html"):
        return answer.form_text.rstrip("\n")
    match form:
        case "json":
            return json.dumps(list(answer.rows) if answer.data is None else answer.data, indent=1, ensure_ascii=False)
        case "csv":
            return _csv(answer.rows)
        case "latex":
            return _latex(answer.rows)
        case "html":
            return _html(answer.rows)
    return (answer.text or _markdown(answer.rows)).rstrip("\n")


def readable(text: str) -> str:
    """GitHub's Markdown as a terminal shows it: no entities, no tags."""
    text = re.sub(r"[ \t]*<sup>(.*?)</sup>", r" (\1)", text)
    text = re.sub(r"^ \((\w+)\)", r"(\1)", text, flags=re.M)
    return html.unescape(re.sub(r"<br>|</?su[bp]>", "", text))


def word(value: Any) -> str:
    """A value as a table shows it: a dash for nothing, shares to four digits."""
    match value:
        case None:
            return "\N{EM DASH}"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case list() | tuple():
            return ", ".join(map(word, value))
    return str(value)


def _heads(rows: Sequence[Row]) -> list[str]:
    return list(rows[0]) if rows else []


def _csv(rows: Sequence[Row]) -> str:
    sink = io.StringIO()
    writer = csv.writer(sink)
    writer.writerow(_heads(rows))
    for row in rows:
        writer.writerow(["; ".join(map(str, one)) if isinstance(one, list | tuple) else one for one in row.values()])
    return sink.getvalue().rstrip("\r\n")


def _markdown(rows: Sequence[Row]) -> str:
    if not rows:
        return "nothing is there"
    lines = [_heads(rows), ["---:" if isinstance(one, int | float) else "---" for one in rows[0].values()]]
    lines += [[gfm(word(one)) for one in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _latex(rows: Sequence[Row]) -> str:
    body = "\n".join(" & ".join(tex(word(one)) for one in row.values()) + r" \\" for row in rows)
    head = " & ".join(tex(name.replace("_", " ")) for name in _heads(rows)) + r" \\"
    columns = "".join("r" if isinstance(one, int | float) else "l" for one in rows[0].values()) if rows else "l"
    return "\n".join([
        "% needs \\usepackage{booktabs}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", body,
        r"\bottomrule", r"\end{tabular}",
    ])  # fmt: skip


def _html(rows: Sequence[Row]) -> str:
    head = "".join(f'<th scope="col">{quoted(name)}</th>' for name in _heads(rows))
    body = "\n".join(f"<tr>{''.join(f'<td>{quoted(word(one))}</td>' for one in row.values())}</tr>" for row in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"

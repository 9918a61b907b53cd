"""The board of randomised defences as text: GitHub's markdown, LaTeX, and a sentence on top."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report.protocols import Mark, Row, Told
from bench.report.render import MINUS, gfm, interval, letter, plain, share, tex
from bench.report.white_box import FEWEST

HEADS = ("Defence", "Noise in", "Clean", "As published", "As judged here", "Difference, points", "The paper says")
NOTE = (
    "Accuracy in percent [its 95 % interval]. As published: the protocol by which such defences were published, on "
    "these weights. As judged here: the white-box attack that leaves least, on fresh draws. The difference is paired "
    "over the images of both. What the paper says is of its own network unless it says otherwise, so no difference "
    "is taken."
)


class Legend:
    """Remarks by letter, each once."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}

    def __call__(self, words: str) -> str:
        return self.said.setdefault(words, letter(len(self.said)))


def markdown(rows: Sequence[Row]) -> str:
    """The board as a GitHub-flavoured table, its remarks below; "" without rows."""
    if not rows:
        return ""
    legend = Legend()
    lines = [f"| {' | '.join(HEADS)} |", "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows:
        numbers = [_md(mark, legend) for mark in (row.clean, row.published, row.ours)]
        cells = [gfm(row.name), gfm(", ".join(row.places)), *numbers, difference(row), _told(row.told, legend)]
        lines.append(f"| {' | '.join(cells)} |")
    notes = "<br>\n".join(f"<sup>{mark}</sup> {gfm(words)}" for words, mark in legend.said.items())
    return "\n\n".join(["\n".join(lines), notes, NOTE, *([FEW] if few(rows) else [])]) + "\n"


FEW = f"Below {FEWEST:,} images the order of the rows is no ranking."


def few(rows: Sequence[Row]) -> bool:
    """Whether any row rests on too few images to be ranked."""
    return any(row.ours.number.n < FEWEST for row in rows)


def _md(mark: Mark | None, legend: Legend) -> str:
    if mark is None:
        return "\N{EM DASH}"
    said = share(mark.number)
    return said + (f" <sup>{legend(about(mark))}</sup>" if mark.words != "clean" else "")


def about(mark: Mark) -> str:
    """What made a number, on how many images."""
    return f"{mark.words}; {mark.number.n:,} images" if mark.words != "clean" else f"{mark.number.n:,} images"


def _told(told: Told | None, legend: Legend) -> str:
    return "\N{EM DASH}" if told is None else f"{100 * told.value:g} <sup>{legend(f'{told.whose}: {told.words}')}</sup>"


def difference(row: Row) -> str:
    """Published less ours in points, with its paired interval."""
    if row.gap is None:
        return "\N{EM DASH}"
    value, low, high = (f"{100 * one:+.1f}".replace("-", MINUS) for one in row.gap[:3])
    return f"{value} [{low}, {high}]"


def latex(rows: Sequence[Row]) -> str:
    """The board as a LaTeX table of the package booktabs; "" without rows."""
    if not rows:
        return ""
    legend = Legend()

    def number(mark: Mark | None) -> str:
        if mark is None:
            return "---"
        said = rf"{100 * mark.number.value:.2f} {{\scriptsize {interval(mark.number)}}}"
        return said + (f"$^{{{legend(about(mark))}}}$" if mark.words != "clean" else "")

    body = []
    for row in rows:
        numbers = [number(mark) for mark in (row.clean, row.published, row.ours)]
        told = "---" if row.told is None else f"{100 * row.told.value:g}"
        if row.told:
            told += f"$^{{{legend(f'{row.told.whose}: {row.told.words}')}}}$"
        cells = [tex(row.name), tex(", ".join(row.places)), *numbers, tex(difference(row)), told]
        body.append(" & ".join(cells) + r" \\")
    notes = [rf"$^{{{mark}}}$~{tex(words)}." for words, mark in legend.said.items()]
    return "\n".join([
        r"\begin{table*}  % needs \usepackage{booktabs}", r"\centering\small",
        rf"\caption{{Randomised defences on the same weights, at {eps_of(rows)}. {tex(NOTE)}}}",
        r"\label{tab:randomised}", r"\begin{tabular}{@{}llrrrrr@{}}", r"\toprule",
        " & ".join(map(tex, HEADS)) + r" \\", r"\midrule", *body, r"\bottomrule", r"\end{tabular}", "",
        rf"{{\footnotesize {' '.join(notes)}}}", r"\end{table*}",
        f"% records {', '.join(mark.key[:8] for row in rows for mark in (row.clean, row.published, row.ours) if mark)}",
    ]) + "\n"  # fmt: skip


def eps_of(rows: Sequence[Row]) -> str:
    """The radii of the rows."""
    return " and ".join(dict.fromkeys(f"{float(row.eps * 255):g}/255" for row in rows))


def finding(rows: Sequence[Row]) -> str:
    """One sentence: how many lose by our protocol what theirs left, and the widest difference."""
    both = [row for row in rows if row.gap is not None and row.published is not None]
    if not both:
        return ""
    less = [row for row in both if row.gap and row.gap.low > 0]
    widest = max(both, key=lambda row: row.gap.value if row.gap else 0)
    assert widest.published is not None
    theirs, here = (
        f"{100 * mark.number.value:.1f} % {interval(mark.number)} on {mark.number.n:,} images ({mark.words})"
        for mark in (widest.published, widest.ours)
    )
    told = f"{widest.name}: {theirs} as published, {here} as judged here."
    if len(both) == 1:
        return plain(told)
    return plain(
        f"{len(less)} of {len(both)} randomised defences keep clearly less as judged here than as published, on the "
        f"same weights. The widest difference: {told}"
    )

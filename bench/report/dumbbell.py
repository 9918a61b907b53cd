"""One defence as a picture of a line: what the published protocol leaves, what ours leaves, and what the paper says."""

from __future__ import annotations

from collections.abc import Callable

from markupsafe import Markup

from bench.report.protocols import Mark, Row
from bench.report.protocols_text import about
from bench.report.render import interval

WIDTH, HEIGHT, EDGE = 320, 34, 10
MIDDLE = HEIGHT / 2


def at(share: float) -> float:
    """Where a share of [0, 1] lies on the line."""
    return round(EDGE + (WIDTH - 2 * EDGE) * share, 1)


def dumbbell(row: Row, link: Callable[[str], str]) -> Markup:
    """An SVG: a square for the published protocol, a disc for ours, joined; a hollow diamond for the paper, unjoined.

    Intervals are whiskers. Marks lead to their records (`link` of a key; "" for none); a reader of the page hears
    the row's numbers instead, so that the picture is hidden from it.
    """
    parts = [_axis()]
    if row.published is not None:
        ends = at(row.ours.number.value), at(row.published.number.value)
        parts.append(
            Markup('<line class="joined" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(ends[0], MIDDLE, ends[1], MIDDLE)
        )
    if row.told is not None:
        x = at(row.told.value)
        shape = f"M{x} {MIDDLE - 7}L{x + 7} {MIDDLE}L{x} {MIDDLE + 7}L{x - 7} {MIDDLE}Z"
        title = f"{100 * row.told.value:g} %: {row.told.whose} ({row.told.words})"
        parts.append(Markup('<path class="told" d="{}"><title>{}</title></path>').format(shape, title))
    for name, mark in (("published", row.published), ("here", row.ours)):
        if mark is not None:
            parts.append(_mark(name, mark, link(mark.key)))
    head = Markup('<svg class="dumbbell" viewBox="0 0 {} {}" aria-hidden="true" focusable="false">').format(
        WIDTH, HEIGHT
    )
    return head + Markup("").join(parts) + Markup("</svg>")


def _axis() -> Markup:
    ticks = [
        Markup('<line class="tick" x1="{0}" y1="4" x2="{0}" y2="{1}"/>').format(at(x), HEIGHT - 4) for x in (0, 0.5, 1)
    ]
    line = Markup('<line class="axis" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(at(0), MIDDLE, at(1), MIDDLE)
    return Markup("").join([line, *ticks])


def _mark(name: str, mark: Mark, to: str) -> Markup:
    number = mark.number
    x, low, high = at(number.value), at(number.low), at(number.high)
    title = f"{100 * number.value:.2f} % {interval(number)}: {about(mark)}"
    shape = (
        Markup('<circle cx="{}" cy="{}" r="6"/>').format(x, MIDDLE) if name == "here"
        else Markup('<rect x="{}" y="{}" width="11" height="11"/>').format(round(x - 5.5, 1), MIDDLE - 5.5)
    )  # fmt: skip
    whisker = Markup('<line class="whisker-line" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(low, MIDDLE, high, MIDDLE)
    inner = Markup('<g class="{}"><title>{}</title>{}{}</g>').format(name, title, whisker, shape)
    return Markup('<a href="{}" tabindex="-1">{}</a>').format(to, inner) if to else inner

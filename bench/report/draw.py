"""Figures as SVG, PNG and PDF: what bench/report/figures.py gathered, in one style and the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.report.figures import Curves, Lookup, Pictures, data, sheet
from bench.report.plots import draw
from bench.report.setting import of_sheet
from bench.report.sheet import contact
from bench.store.disk import write
from bench.suite.cells import Suite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("bench.mplstyle")
CODE = [Path(__file__).with_name(name) for name in ("draw.py", "plots.py", "sheet.py")]
__all__ = ["Drawn", "Shown", "as_shown", "draw", "figures", "files", "pdf", "publish", "written"]


class Drawn(NamedTuple):
    """A figure: its words for those who cannot see it, what it lacks, and how to draw it (None: nothing to show).

    `make` draws it as wide as a page, `narrow` as a column. `print` is a fingerprint of all that it depends on.
    """

    name: str
    title: str
    about: str
    missing: tuple[str, ...]
    print: str
    make: Callable[[], Figure] | None
    narrow: Callable[[], Figure] | None = None


class Shown(NamedTuple):
    """A figure as written: `files` are NAME.svg, .png, .pdf, -column.svg and .pdf; none if there is nothing to show."""

    name: str
    title: str
    about: str
    missing: tuple[str, ...]
    files: tuple[str, ...]

    @property
    def column(self) -> str:
        """The SVG as wide as a column, "" if there is none."""
        return next((name for name in self.files if name.endswith("-column.svg")), "")


def figures(suite: Suite, lookup: Lookup, curves: Curves, pictures: Pictures) -> list[Drawn]:
    """Every figure of the suite, as far as there are records. Nothing is drawn yet."""
    made = []
    for name, figure in suite.figures.items():
        title = figure.title or name
        if figure.kind == "sheet":
            rows = sheet(suite, name, lookup, pictures)
            about = f"{title}. Rows: {'; '.join(label for label, _ in rows)}." if rows else f"{title}. No data yet."
            tiles = [(label, *(part for tile in row for part in tile)) for label, row in rows]
            missing = () if rows else ("the images or their votes",)
            said = of_sheet(suite, figure)
            make = partial(contact, said, rows) if rows else None
            made.append(Drawn(name, title, about, missing, fingerprint(title, said, tiles), make))
        else:
            drawing = data(suite, name, lookup, curves)
            make, narrow = (partial(draw, drawing, column) if drawing.panels else None for column in (False, True))
            made.append(Drawn(name, title, drawing.about, drawing.missing, fingerprint(*drawing), make, narrow))
    return made


def publish(suite: Suite, folder: Path, lookup: Lookup, curves: Curves, pictures: Pictures) -> list[Shown]:
    """Write every figure into `folder` in all its forms, and figures.json; one that has not changed is left alone."""
    index = folder / "figures.json"
    try:
        before = json.loads(index.read_text())
    except (OSError, ValueError):
        before = {}
    shown, prints = [], {}
    for one in figures(suite, lookup, curves, pictures):
        if one.make is not None:
            prints[one.name] = one.print
            if before.get(one.name) != one.print or not all((folder / name).is_file() for name in names(one)):
                for name, content in written(one).items():
                    write(folder / name, content)
        shown.append(as_shown(one))
    if prints != before:
        write(index, (json.dumps(prints, indent=1) + "\n").encode())
    return shown


def as_shown(one: Drawn) -> Shown:
    """A figure as it is, or would be, written."""
    return Shown(one.name, one.title, one.about, one.missing, names(one))


def names(one: Drawn) -> tuple[str, ...]:
    """The names of a figure's files."""
    if one.make is None:
        return ()
    forms = ("svg", "png", "pdf")
    return (
        *(f"{one.name}.{form}" for form in forms),
        *(f"{one.name}-column.{form}" for form in ("svg", "pdf") if one.narrow),
    )


def written(one: Drawn) -> dict[str, bytes]:
    """A figure's files by name."""
    if one.make is None:
        return {}
    narrow = [svg(one.narrow), pdf(one.narrow)] if one.narrow else []
    return dict(zip(names(one), [*files(one.make), pdf(one.make), *narrow], strict=True))


def fingerprint(*values: Any) -> str:
    """SHA-256 over values, arrays by their bytes, with the style and the code that draws."""
    texts = b"".join(path.read_bytes() for path in (STYLE, *CODE))
    digest = hashlib.sha256(texts + version("matplotlib").encode())

    def add(value: Any) -> None:
        if isinstance(value, np.ndarray):
            digest.update(repr(value.shape).encode() + value.tobytes())
        elif isinstance(value, tuple | list):
            digest.update(b"(")
            for item in value:
                add(item)
            digest.update(b")")
        else:
            digest.update(repr(value).encode())

    add(values)
    return digest.hexdigest()


def files(make: Callable[[], Figure]) -> tuple[bytes, bytes]:
    """The SVG and PNG bytes of the figure that `make()` returns, without dates or versions in them."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    png = io.BytesIO()
    with matplotlib.rc_context(fname=STYLE):
        FigureCanvasAgg(make()).print_png(png, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return svg(make), png.getvalue()


def svg(make: Callable[[], Figure]) -> bytes:
    """The SVG of the figure that `make()` returns, its words as text, without a date in it."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    sink = io.BytesIO()
    with matplotlib.rc_context(fname=STYLE):
        FigureCanvasSVG(make()).print_svg(sink, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    return sink.getvalue()


def pdf(make: Callable[[], Figure]) -> bytes:
    """The PDF of the figure that `make()` returns, its words as text, without a date in it."""
    import matplotlib
    from matplotlib.backends.backend_pdf import FigureCanvasPdf

    with matplotlib.rc_context(fname=STYLE):
        sink = io.BytesIO()
        about = {"CreationDate": None, "Creator": None, "Producer": None}
        FigureCanvasPdf(make()).print_pdf(sink, metadata=about)  # type: ignore[no-untyped-call]
    return sink.getvalue()

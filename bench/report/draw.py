"""Figures as SVG and PNG: what bench/report/figures.py gathered, drawn with one style and the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import json
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.report.figures import Curves, Drawing, Lookup, Panel, Pictures, data, sheet
from bench.report.sheet import contact, title_of
from bench.store.disk import write
from bench.suite.cells import Suite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("bench.mplstyle")
WIDTH = 3.3  # inches of one panel


class Drawn(NamedTuple):
    """A figure: its words for those who cannot see it, what it lacks, and how to draw it (None: nothing to show).

    `print` is a fingerprint of all that the drawing depends on.
    """

    name: str
    title: str
    about: str
    missing: tuple[str, ...]
    print: str
    make: Callable[[], Figure] | None


class Shown(NamedTuple):
    """A figure as written: `files` are NAME.svg and NAME.png, none if there is nothing to show yet."""

    name: str
    title: str
    about: str
    missing: tuple[str, ...]
    files: tuple[str, ...]


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
            make = partial(contact, title, rows) if rows else None
            made.append(Drawn(name, title, about, missing, fingerprint(title, tiles), make))
        else:
            drawing = data(suite, name, lookup, curves)
            make = partial(draw, drawing) if drawing.panels else None
            made.append(Drawn(name, title, drawing.about, drawing.missing, fingerprint(*drawing), make))
    return made


def publish(suite: Suite, folder: Path, lookup: Lookup, curves: Curves, pictures: Pictures) -> list[Shown]:
    """Write every figure into `folder` as SVG and PNG, and figures.json; one that has not changed is left alone."""
    index = folder / "figures.json"
    try:
        before = json.loads(index.read_text())
    except (OSError, ValueError):
        before = {}
    shown, prints = [], {}
    for one in figures(suite, lookup, curves, pictures):
        paths = [folder / f"{one.name}.{form}" for form in ("svg", "png")]
        if one.make is not None:
            prints[one.name] = one.print
            if before.get(one.name) != one.print or not all(path.is_file() for path in paths):
                for path, data_ in zip(paths, files(one.make), strict=True):
                    write(path, data_)
        shown.append(as_shown(one))
    if prints != before:
        write(index, (json.dumps(prints, indent=1) + "\n").encode())
    return shown


def as_shown(one: Drawn) -> Shown:
    """A figure as it is, or would be, written."""
    names = (f"{one.name}.svg", f"{one.name}.png") if one.make else ()
    return Shown(one.name, one.title, one.about, one.missing, names)


def fingerprint(*values: Any) -> str:
    """SHA-256 over values, arrays by their bytes, with the style and this module's own text."""
    digest = hashlib.sha256(STYLE.read_bytes() + Path(__file__).read_bytes() + version("matplotlib").encode())

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
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with matplotlib.rc_context(fname=STYLE):
        figure = make()
        svg, png = io.BytesIO(), io.BytesIO()
        # the PNG first: print_svg leaves the figure at 72 dots an inch
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})  # type: ignore[no-untyped-call]
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    return svg.getvalue(), png.getvalue()


def draw(drawing: Drawing) -> Figure:
    """One figure from its data."""
    match drawing.kind:
        case "transfer":
            figure = _heat(drawing)
        case "draws" | "agreement":
            figure = _histograms(drawing)
        case _:
            figure = _lines(drawing)
    few = "; ".join(drawing.missing[:3]) + (f" and {len(drawing.missing) - 3} more" if len(drawing.missing) > 3 else "")
    title_of(figure, drawing.title + (f" (not recorded yet: {few})" if few else ""))
    return figure


def _legend(figure: Figure, names: dict[str, Any], **options: Any) -> None:
    longest = max(map(len, names))
    columns = max(1, min(len(names), int(figure.get_figwidth() * 14 / (longest + 8))))
    figure.legend(names.values(), names.keys(), loc="outside lower center", ncols=columns, **options)


def _lines(drawing: Drawing) -> Figure:
    from matplotlib.ticker import MaxNLocator

    labels = {"curves": "epoch", "steps": "attack step k", "eps": "\N{GREEK SMALL LETTER EPSILON} in 1/255"}
    figure, axes = _panels(drawing.panels, share=drawing.kind != "curves")
    names: dict[str, Any] = {}
    styles = _styles(drawing)
    for panel, axis in zip(drawing.panels, axes, strict=True):
        for line in panel.series:
            y, low, high = (100 * np.asarray(values) for values in (line.y, line.low, line.high))
            (handle,) = axis.plot(line.x, y, markevery=max(1, len(y) // 12), **styles[line.name])
            if (low != high).any():
                axis.fill_between(line.x, low, high, color=styles[line.name]["color"], alpha=0.15, linewidth=0)
            names.setdefault(line.name, handle)
        axis.set_title(panel.title)
        axis.set_xlabel(labels[drawing.kind])
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_ylim(0, 100 if drawing.kind != "curves" else None)
    axes[0].set_ylabel("accuracy, %")
    _legend(figure, names)
    return figure


def _histograms(drawing: Drawing) -> Figure:
    figure, axes = _panels(drawing.panels, share=True)
    names: dict[str, Any] = {}
    styles = _styles(drawing)
    most = max((max(line.x, default=1) for panel in drawing.panels for line in panel.series), default=1)
    bins = np.linspace(0, 1, 21) if drawing.kind == "agreement" else np.linspace(0, most, 33)
    for panel, axis in zip(drawing.panels, axes, strict=True):
        for line in panel.series:
            style = {name: styles[line.name][name] for name in ("color", "linestyle")}
            counts, _ = np.histogram(line.x, bins)
            handle = axis.stairs(counts, bins, linewidth=1.6, **style)
            axis.stairs(counts, bins, fill=True, alpha=0.15, color=style["color"])
            names.setdefault(line.name, handle)
        axis.set_title(panel.title)
        axis.set_xlabel("share of draws that agree" if drawing.kind == "agreement" else "draws until it was settled")
    axes[0].set_ylabel("images")
    if drawing.kind == "agreement":
        _legend(figure, names, title="the vote is")
    return figure


def _heat(drawing: Drawing) -> Figure:
    from matplotlib.figure import Figure

    sources = [panel.title for panel in drawing.panels]
    targets = list(dict.fromkeys(line.name for panel in drawing.panels for line in panel.series))
    table = np.full((len(sources), len(targets)), np.nan)
    for i, panel in enumerate(drawing.panels):
        for line in panel.series:
            if line.y:
                table[i, targets.index(line.name)] = 100 * line.y[0]
    figure = Figure(figsize=(2.6 + 1.1 * len(targets), 1.7 + 0.62 * len(sources)))
    axis = figure.add_subplot()
    image = axis.imshow(table, vmin=0, vmax=100, aspect="auto")
    axis.grid(False)
    axis.set_xticks(range(len(targets)), [_wrapped(name) for name in targets])
    axis.set_yticks(range(len(sources)), [_wrapped(name) for name in sources])
    axis.set_xlabel("target")
    axis.set_ylabel("attack crafted on")
    for (i, j), value in np.ndenumerate(table):
        word = "\N{EM DASH}" if np.isnan(value) else f"{value:.1f}"
        axis.text(j, i, word, ha="center", va="center", color="white" if np.isnan(value) or value < 55 else "black")
    figure.colorbar(image, ax=axis, label="accuracy, %")
    return figure


def _panels(panels: Sequence[Panel], share: bool) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(max(5.6, WIDTH * across), 0.9 + 2.6 * down))
    axes = np.ravel(figure.subplots(down, across, squeeze=False, sharey=share))
    for spare in axes[len(panels) :]:
        spare.set_visible(False)
    return figure, list(axes[: len(panels)])


def _styles(drawing: Drawing) -> dict[str, dict[str, Any]]:
    """One colour, dash and marker for each name, the same in every panel."""
    import matplotlib

    cycle = list(matplotlib.rcParams["axes.prop_cycle"])
    names = dict.fromkeys(line.name for panel in drawing.panels for line in panel.series)
    return {name: dict(cycle[i % len(cycle)]) for i, name in enumerate(names)}


def _wrapped(name: str) -> str:
    return "\n".join(textwrap.wrap(name, 16)) or name

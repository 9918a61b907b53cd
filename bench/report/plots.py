"""The pictures of figures: lines, histograms and maps, a model in one colour and marker wherever it is shown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.report.figures import Drawing, Panel, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE, COLUMN = 6.9, 3.35
"""Inches: the width of a page's text, which is both columns of a two-column paper, and of one of its columns."""
MANY = 16  # points of a line above which whiskers stand at some only
LEAST = 20.0  # points that a map's colours reach over, so that no noise looks like a finding
WRONG = "#555555"


def draw(drawing: Drawing, narrow: bool = False) -> Figure:
    """One figure from its data, as wide as a page or as a column; its title is left to the caption."""
    match drawing.kind:
        case "transfer":
            figure = _heat(drawing, narrow)
        case "draws" | "agreement":
            figure = _histograms(drawing, narrow)
        case _:
            figure = _lines(drawing, narrow)
    few = "; ".join(drawing.missing[:3]) + (f" and {len(drawing.missing) - 3} more" if len(drawing.missing) > 3 else "")
    said = drawing.setting + (f" (not recorded yet: {few})" if few else "")
    setting_of(figure, said)
    return figure


def setting_of(figure: Figure, said: str) -> None:
    """Attack, eps, images and level above the picture, small: what a reader needs whom its caption does not reach."""
    if said:
        wide = textwrap.wrap(said, int(17 * figure.get_figwidth()))
        figure.suptitle("\n".join(wide), fontsize=7, color="#444444")


def styles(drawing: Drawing) -> dict[str, dict[str, Any]]:
    """Colour, dash and marker by a model's place in the suite, so that no two figures give it another."""
    import matplotlib

    cycle = list(matplotlib.rcParams["axes.prop_cycle"])
    names = [*drawing.models, *(line.name for panel in drawing.panels for line in panel.series)]
    found = {}
    for i, name in enumerate(dict.fromkeys(names)):
        again = i // len(cycle)  # the colours begin anew with another marker
        found[name] = dict(cycle[i % len(cycle)]) | {"marker": cycle[(i + 3 * again) % len(cycle)]["marker"]}
    return found


def _legend(figure: Figure, names: dict[str, Any], **options: Any) -> None:
    longest = max(map(len, names))
    columns = max(1, min(len(names), int(figure.get_figwidth() * 15 / (longest + 8))))
    figure.legend(names.values(), names.keys(), loc="outside lower center", ncols=columns, **options)


def limits(panels: Sequence[Panel]) -> tuple[float, float]:
    """From below the lowest whisker to above the highest, in whole tens of percent."""
    lows = [low for panel in panels for line in panel.series for low in line.low]
    highs = [high for panel in panels for line in panel.series for high in line.high]
    low, high = 10 * np.floor(10 * min(lows)), 10 * np.ceil(10 * max(highs))
    return float(max(low, 0) - 0.02 * (high - low)), float(min(max(high, low + 10), 100) + 0.02 * (high - low))


def _lines(drawing: Drawing, narrow: bool) -> Figure:
    from matplotlib.ticker import MaxNLocator

    labels = {"curves": "epoch", "steps": "attack step k", "eps": "\N{GREEK SMALL LETTER EPSILON} in 1/255"}
    shown = [panel for panel in drawing.panels if any(line.y for line in panel.series)]
    figure, axes = _panels(shown, narrow, share=True)
    names: dict[str, Any] = {}
    of = styles(drawing)
    for panel, axis in zip(shown, axes, strict=True):
        apart, order = _apart(panel), list(of)
        for i, line in enumerate(sorted(panel.series, key=lambda line: order.index(line.name))):
            handle = _line(axis, line, of[line.name], apart * (i - (len(panel.series) - 1) / 2))
            names.setdefault(line.name, handle)
        axis.set_title(panel.title)
        axis.set_xlabel(labels[drawing.kind])
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if drawing.kind == "eps":
            axis.set_xticks(sorted({x for line in panel.series for x in line.x}))
        axis.set_ylim(*limits(shown))
        axis.label_outer()
        axis.xaxis.set_tick_params(labelbottom=True)
    for axis in axes[:: _across(shown, narrow)]:
        axis.set_ylabel("accuracy, %")
    _legend(figure, names)
    return figure


def _apart(panel: Panel) -> float:
    """How far the lines of a panel are moved from each other, so that their whiskers can be told apart."""
    places = sorted({x for line in panel.series for x in line.x})
    nearest = min((b - a for a, b in pairwise(places)), default=0.0)
    return 0.5 * nearest / max(4, len(panel.series))


def _line(axis: Axes, line: Series, style: dict[str, Any], moved: float) -> Any:
    y, low, high = (100 * np.asarray(values) for values in (line.y, line.low, line.high))
    x, every = np.asarray(line.x) + moved, -(-len(y) // MANY) if len(y) > MANY else 1
    (handle,) = axis.plot(x, y, markevery=every, **style)
    if (low != high).any():
        axis.errorbar(
            x, y, (y - low, high - y), fmt="none", ecolor=style["color"], elinewidth=0.8, alpha=0.75,
            errorevery=every, capsize=1.5, capthick=0.8,
        )  # fmt: skip
    return handle


def _histograms(drawing: Drawing, narrow: bool) -> Figure:
    from matplotlib.lines import Line2D

    figure, axes = _panels(drawing.panels, narrow, share=True)
    of = styles(drawing)
    values = [value for panel in drawing.panels for line in panel.series for value in line.x]
    shares = drawing.kind == "agreement"
    bins = np.linspace(0, 1, 21) if shares else np.linspace(0, max(values, default=1), 33)
    bins = bins[max(0, int(np.searchsorted(bins, min(values, default=0), "right")) - 2) :]
    for panel, axis in zip(drawing.panels, axes, strict=True):
        own = of.get(panel.title, of[panel.series[0].name])
        for line in panel.series:
            style = {"color": WRONG, "linestyle": "--"} if line.name == "wrong" else {"color": own["color"]}
            counts, _ = np.histogram(line.x, bins)
            axis.stairs(counts, bins, linewidth=1.4, **style)
            axis.stairs(counts, bins, fill=True, alpha=0.15, color=style["color"])
        axis.set_title(panel.title)
        axis.set_xlabel("share of draws that agree" if shares else "draws until it was settled")
    for axis in axes[:: _across(drawing.panels, narrow)]:
        axis.set_ylabel("images")
    if shares:
        wrong = Line2D([], [], color=WRONG, linestyle="--")
        _legend(figure, {"right": Line2D([], [], color="black"), "wrong": wrong}, title="the vote is")
    return figure


def _heat(drawing: Drawing, narrow: bool) -> Figure:
    from matplotlib.figure import Figure

    sources = [panel.title for panel in drawing.panels]
    targets = list(dict.fromkeys(line.name for panel in drawing.panels for line in panel.series))
    table, ends = np.full((len(sources), len(targets)), np.nan), {}
    for i, panel in enumerate(drawing.panels):
        for line in panel.series:
            if line.y:
                at = i, targets.index(line.name)
                table[at], ends[at] = 100 * line.y[0], f"[{100 * line.low[0]:.0f}, {100 * line.high[0]:.0f}]"
    width = COLUMN if narrow else PAGE
    figure = Figure(figsize=(width, (1.6 if narrow else 1.1) + 0.5 * len(sources)))
    axis = figure.add_subplot()
    low, high = (np.nanmin(table), np.nanmax(table)) if ends else (0.0, 100.0)
    high = max(high, low + LEAST)
    image = axis.imshow(table, vmin=low, vmax=high, aspect="auto")
    axis.grid(False)
    axis.set_xticks(range(len(targets)), [_wrapped(name, 16) for name in targets])
    if narrow:
        for tick in axis.get_xticklabels():
            tick.set(rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(sources)), [_wrapped(name, 10 if narrow else 16) for name in sources])
    axis.set_xlabel("target")
    axis.set_ylabel("attack crafted on")
    for (i, j), value in np.ndenumerate(table):
        word = "\N{EM DASH}" if np.isnan(value) else f"{value:.1f}\n{ends[i, j]}"
        dark = not np.isnan(value) and value < (low + high) / 2
        axis.text(j, i, word, ha="center", va="center", color="white" if dark else "black", fontsize=6 if narrow else 7)
    figure.colorbar(image, ax=axis, label="accuracy, %")
    return figure


def _across(panels: Sequence[Panel], narrow: bool) -> int:
    return 1 if narrow else min(3, len(panels))


def _panels(panels: Sequence[Panel], narrow: bool, share: bool) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    across = _across(panels, narrow)
    down = -(-len(panels) // across)
    figure = Figure(figsize=(COLUMN if narrow else PAGE, 0.8 + (1.7 if narrow else 1.9) * down))
    axes = np.ravel(figure.subplots(down, across, squeeze=False, sharey=share))
    for spare in axes[len(panels) :]:
        spare.set_visible(False)
    return figure, list(axes[: len(panels)])


def _wrapped(name: str, room: int) -> str:
    return "\n".join(textwrap.wrap(name, room, break_long_words=False)) or name

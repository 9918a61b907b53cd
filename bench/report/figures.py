"""Figures as data: the series that each shows, from what bench/suite/figures.py asks for.

Torch- and matplotlib-free: bench/report/draw.py draws what `data` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.recipes import Fetched, Outcomes
from bench.report.setting import of_curves, of_records
from bench.suite.cells import Suite
from bench.suite.figures import Asked, asks, label
from bench.suite.schema import Figure
from bench.votes.intervals import share
from bench.votes.numbers import Number, agreement, fold, predicted
from bench.votes.votes import Votes

Lookup = Callable[[Outcomes], Votes | None]
Curves = Callable[[Any], bytes | None]
"""The bytes of a weights recipe's curves.parquet, None if it is not trained here."""

Pictures = Callable[[Outcomes, int], "tuple[NDArray[np.float32], NDArray[np.float32]] | None"]
"""The first n images (n, 3, h, w) of an outcome as they were and as the attack left them, in [0, 1]."""

SHEET = 6  # images on a contact sheet


class Series(NamedTuple):
    """A named line or histogram; low and high are the interval's ends, equal to y where there is none."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class Panel(NamedTuple):
    title: str
    series: tuple[Series, ...]


class Drawing(NamedTuple):
    """A figure's data. `missing` says what has no record yet; `about` is the text a blind reader gets; `setting` stands
    above the picture; `models` are all that the suite's figures show, in the suite's order: each has one colour."""

    name: str
    kind: str
    title: str
    panels: tuple[Panel, ...]
    missing: tuple[str, ...] = ()
    about: str = ""
    setting: str = ""
    models: tuple[str, ...] = ()


def data(suite: Suite, name: str, lookup: Lookup, curves: Curves) -> Drawing:
    """One figure's series from the records; what is not there is named in `missing`."""
    figure = suite.figures[name]
    title = figure.title or name
    if figure.kind == "curves":
        return _curves(suite, name, title, figure, curves)._replace(models=models_of(suite))
    asked = list(asks(suite, name, figure))
    votes = {one.outcomes: lookup(one.outcomes) for one in asked}
    there = [(one, found) for one in asked if (found := votes[one.outcomes]) is not None]
    missing = tuple(dict.fromkeys(f"{one.series}, {one.panel or name}" for one in asked if votes[one.outcomes] is None))
    grouped: dict[str, dict[str, list[tuple[Asked, Votes]]]] = {}
    for one, found in there:
        grouped.setdefault(one.panel, {}).setdefault(one.series, []).append((one, found))
    shape = {"draws": _draws, "agreement": _agreement}.get(figure.kind, _accuracy)
    panels = tuple(
        Panel(panel, tuple(line for series, found in lines.items() for line in shape(series, found)))
        for panel, lines in grouped.items()
    )
    about = _about(title, panels, figure.kind)
    return Drawing(
        name, figure.kind, title, panels, missing, about, of_records(suite, figure, there), models_of(suite)
    )  # fmt: skip


def models_of(suite: Suite) -> tuple[str, ...]:
    """The labels of all models that any figure of the suite shows, in the suite's order."""
    shown = {name for figure in suite.figures.values() for name in (*figure.models, *figure.sources)}
    return tuple(dict.fromkeys(label(suite, name) for name in suite.models if name in shown))


def _accuracy(name: str, found: list[tuple[Asked, Votes]]) -> Iterator[Series]:
    numbers = [(one.x, number) for one, votes in found if isinstance(number := fold(votes, one.kind), Number)]
    x, y = tuple(at for at, _ in numbers), tuple(number.value for _, number in numbers)
    yield Series(name, x, y, tuple(n.low for _, n in numbers), tuple(n.high for _, n in numbers))


def _draws(name: str, found: list[tuple[Asked, Votes]]) -> Iterator[Series]:
    """After how many draws each image's vote was settled: the values of the histogram as x, no y."""
    for _, votes in found:
        yield Series(name, tuple(votes.settled.tolist()), (), (), ())


def _agreement(name: str, found: list[tuple[Asked, Votes]]) -> Iterator[Series]:
    """The winner's share of the draws, apart for images that the vote gets right and wrong."""
    for _, votes in found:
        winner = predicted(votes, "vote")
        agreed = agreement(votes, winner)
        right = winner == votes.labels
        for word, chosen in (("right", right), ("wrong", ~right)):
            yield Series(word, tuple(agreed[chosen].tolist()), (), (), ())


def _curves(suite: Suite, name: str, title: str, figure: Figure, curves: Curves) -> Drawing:
    panels: dict[str, list[Series]] = {"clean": [], "under attack": []}
    missing, there = [], []
    for model in figure.models:
        weights = suite.models[model].weights
        found = None if isinstance(weights, Fetched) else curves(weights)
        if found is None:
            missing.append(f"training curves of {label(suite, model)}")
            continue
        assert not isinstance(weights, Fetched)
        there.append(weights)
        columns = read_curves(found)
        for panel, column in (("clean", "clean"), ("under attack", "attacked")):
            rows = [(x, y) for x, y in zip(columns["epoch"], columns[column], strict=True) if np.isfinite(y)]
            x, y = tuple(float(at) for at, _ in rows), tuple(float(value) for _, value in rows)
            n = weights.training.validation
            ends = [share(round(value * n), n) for value in y]
            low, high = tuple(one.low for one in ends), tuple(one.high for one in ends)
            panels[panel].append(Series(label(suite, model), x, y, low, high))
    shown = tuple(Panel(panel, tuple(lines)) for panel, lines in panels.items() if any(line.x for line in lines))
    setting = of_curves(there) if there else ""
    return Drawing(name, "curves", title, shown, tuple(missing), _about(title, shown, "curves"), setting)


def read_curves(found: bytes) -> dict[str, NDArray[np.float64]]:
    """The columns of a curves.parquet: epoch, loss, clean and attacked accuracy (NaN where not measured)."""
    import io

    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(found))
    return {name: np.asarray(table[name].to_numpy(), np.float64) for name in ("epoch", "loss", "clean", "attacked")}


def _about(title: str, panels: tuple[Panel, ...], kind: str) -> str:
    if not panels:
        return f"{title}. No data yet."
    said = []
    for panel in panels:
        for line in panel.series:
            where = f"{panel.title}: " if panel.title else ""
            if line.y:
                said.append(f"{where}{line.name} from {100 * line.y[0]:.1f} % to {100 * line.y[-1]:.1f} %")
            elif line.x:
                said.append(f"{where}{line.name}, mean {np.mean(line.x):.3g}")
    return f"{title}. " + "; ".join(said) + "."


# -- contact sheet -----------------------------------------------------------------------------


class Tile(NamedTuple):
    """One image of a contact sheet: (c, h, w) before and after in [0, 1], its label and the prediction, and how the
    data set names its classes."""

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    label: int
    predicted: int
    share: float
    names: tuple[str, ...] = ()


def sheet(suite: Suite, name: str, lookup: Lookup, pictures: Pictures) -> list[tuple[str, list[Tile]]]:
    """Rows of a contact sheet, a row an outcome: who was attacked, and the first images."""
    found = []
    for one in asks(suite, name, suite.figures[name]):
        votes, images = lookup(one.outcomes), pictures(one.outcomes, SHEET)
        if votes is None or images is None:
            continue
        winner = predicted(votes, one.kind)
        share = agreement(votes, winner)
        tiles = [
            Tile(before, after, int(votes.labels[i]), int(winner[i]), float(share[i]), one.outcomes.examples.data.names)
            for i, (before, after) in enumerate(zip(*images, strict=True))
        ]
        source = "" if one.source == one.target else f", attacked through {label(suite, one.source)}"
        found.append((one.series + source, tiles))
    return found

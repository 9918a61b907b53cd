"""Figures as recipes and data: what each kind of figure asks for, and the series it shows.

Torch- and matplotlib-free: bench/report/draw.py draws what `data` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError
from bench.folds import Number, correct, fold, predicted
from bench.grammar import Figure
from bench.recipes import PGD, Clean, Fetched, Outcomes
from bench.suite import Suite
from bench.votes import Votes

Lookup = Callable[[Outcomes], Votes | None]
Curves = Callable[[Any], bytes | None]
"""The bytes of a weights recipe's curves.parquet, None if it is not trained here."""

Pictures = Callable[[Outcomes, int], "tuple[NDArray[np.float32], NDArray[np.float32]] | None"]
"""The first n images (n, 3, h, w) of an outcome as they were and as the attack left them, in [0, 1]."""

SHEET = 6  # images on a contact sheet


class Asked(NamedTuple):
    """One number a figure needs: in which panel, of which series, at which x."""

    panel: str
    series: str
    x: float
    outcomes: Outcomes
    kind: str
    target: str
    source: str


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
    """A figure's data. `missing` says what has no record yet; `about` is the text a blind reader gets."""

    name: str
    kind: str
    title: str
    panels: tuple[Panel, ...]
    missing: tuple[str, ...] = ()
    about: str = ""


def needed(suite: Suite) -> list[Outcomes]:
    """Every outcome that the suite's figures read, once, in their order."""
    asked = (one.outcomes for name, figure in suite.figures.items() for one in asks(suite, name, figure))
    return list(dict.fromkeys(asked))


def asks(suite: Suite, name: str, figure: Figure) -> Iterator[Asked]:
    """What one figure reads; UserError if the figure lacks what its kind needs."""
    match figure.kind:
        case "curves":
            return
        case "steps":
            for source in figure.sources:
                for eps in sweep(suite, name, figure):
                    for target in figure.models:
                        for k in range(attack_of(suite, name, figure).steps + 1):
                            yield step(suite, name, figure, source, target, eps, k)
        case "eps":
            for target in figure.models:
                for eps in sweep(suite, name, figure):
                    attack = Clean() if eps == 0 else scaled(attack_of(suite, name, figure), eps)
                    source = figure.sources[0] if figure.sources else target
                    yield _ask(suite, figure, "", target, source, attack, float(eps * 255))
        case "transfer":
            for i, source in enumerate(figure.sources or figure.models):
                for target in figure.models:
                    attack = _named(suite, name, figure)
                    yield _ask(suite, figure, label(suite, source), target, source, attack, float(i))
        case "draws" | "agreement" | "sheet":
            for source in figure.sources or ("",):
                for target in figure.models:
                    attack = _named(suite, name, figure)
                    yield _ask(suite, figure, label(suite, target), target, source or target, attack, 0.0)


def step(suite: Suite, name: str, figure: Figure, source: str, target: str, eps: Fraction, k: int) -> Asked:
    """Accuracy of `target` on the images that an attack on `source` has reached after k steps."""
    attack = scaled(attack_of(suite, name, figure), eps).model_copy(update={"keep_iterates": True})
    on = f"attack on {label(suite, source)}, " if len(figure.sources) > 1 else ""
    panel = f"{on}\N{GREEK SMALL LETTER EPSILON} = {pixels(eps)}"
    return _ask(suite, figure, panel, target, source, attack, float(k), iterate=k)


def scaled(attack: PGD, eps: Fraction) -> PGD:
    """The attack at another eps, its step the same part of eps as declared."""
    step = attack.step * eps / attack.eps if attack.eps else attack.step
    return attack.model_copy(update={"eps": eps, "step": step})


def sweep(suite: Suite, name: str, figure: Figure) -> tuple[Fraction, ...]:
    """The figure's eps, or its attack's own."""
    return figure.eps or (attack_of(suite, name, figure).eps,)


def attack_of(suite: Suite, name: str, figure: Figure) -> PGD:
    """The figure's attack, which must be a PGD."""
    attack = _named(suite, name, figure)
    if not isinstance(attack, PGD):
        raise UserError(f"{suite.path}: figures.{name}.attack", f'a figure of kind "{figure.kind}" needs a PGD')
    return attack


def _named(suite: Suite, name: str, figure: Figure) -> Any:
    if figure.attack is None:
        if figure.kind in ("draws", "agreement"):
            return Clean()
        raise UserError(f"{suite.path}: figures.{name}", f'a figure of kind "{figure.kind}" needs an attack')
    return suite.attacks[figure.attack]


def label(suite: Suite, model: str) -> str:
    return suite.models[model].label or model if model else ""


def pixels(eps: Fraction) -> str:
    """An eps as people write it: in 255ths where it is a whole number of them."""
    return f"{eps * 255}/255" if (eps * 255).denominator == 1 else str(eps)


def _ask(
    suite: Suite,
    figure: Figure,
    panel: str,
    target: str,
    source: str,
    attack: Any,
    x: float,
    iterate: int | None = None,
) -> Asked:
    entry = suite.models[target]
    draws = figure.samples if entry.rule else figure.draws
    if not entry.model.stochastic or draws is None:
        draws = entry.judged_draws
    outcomes = suite.outcomes(target, attack, source, figure.data, iterate=iterate, draws=draws)
    return Asked(panel, label(suite, target), x, outcomes, entry.number, target, source)


# -- data --------------------------------------------------------------------------------------


def data(suite: Suite, name: str, lookup: Lookup, curves: Curves) -> Drawing:
    """One figure's series from the records; what is not there is named in `missing`."""
    figure = suite.figures[name]
    title = figure.title or name
    if figure.kind == "curves":
        return _curves(suite, name, title, figure, curves)
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
    return Drawing(name, figure.kind, title, panels, missing, _about(title, panels, figure.kind))


def _accuracy(name: str, found: list[tuple[Asked, Votes]]) -> Iterator[Series]:
    numbers = [(one.x, number) for one, votes in found if isinstance(number := fold(votes, one.kind), Number)]
    x, y = tuple(at for at, _ in numbers), tuple(number.value for _, number in numbers)
    yield Series(name, x, y, tuple(n.low for _, n in numbers), tuple(n.high for _, n in numbers))


def _draws(name: str, found: list[tuple[Asked, Votes]]) -> Iterator[Series]:
    """How many draws the images had: the values of the histogram as x, no y."""
    for _, votes in found:
        yield Series(name, tuple(votes.drawn.tolist()), (), (), ())


def _agreement(name: str, found: list[tuple[Asked, Votes]]) -> Iterator[Series]:
    """The winner's share of the draws, apart for images that the vote gets right and wrong."""
    for _, votes in found:
        agreed = votes.counts.max(1) / votes.drawn
        right = correct(votes, "vote") > 0
        for word, chosen in (("right", right), ("wrong", ~right)):
            yield Series(word, tuple(agreed[chosen].tolist()), (), (), ())


def _curves(suite: Suite, name: str, title: str, figure: Figure, curves: Curves) -> Drawing:
    panels: dict[str, list[Series]] = {"clean": [], "under attack": []}
    missing = []
    for model in figure.models:
        weights = suite.models[model].weights
        found = None if isinstance(weights, Fetched) else curves(weights)
        if found is None:
            missing.append(f"training curves of {label(suite, model)}")
            continue
        columns = read_curves(found)
        for panel, column in (("clean", "clean"), ("under attack", "attacked")):
            rows = [(x, y) for x, y in zip(columns["epoch"], columns[column], strict=True) if np.isfinite(y)]
            x, y = tuple(float(at) for at, _ in rows), tuple(float(value) for _, value in rows)
            panels[panel].append(Series(label(suite, model), x, y, y, y))
    shown = tuple(Panel(panel, tuple(lines)) for panel, lines in panels.items() if any(line.x for line in lines))
    return Drawing(name, "curves", title, shown, tuple(missing), _about(title, shown, "curves"))


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
    """One image of a contact sheet: (3, h, w) before and after in [0, 1], its label and the prediction."""

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    label: int
    predicted: int
    share: float


def sheet(suite: Suite, name: str, lookup: Lookup, pictures: Pictures) -> list[tuple[str, list[Tile]]]:
    """Rows of a contact sheet, a row an outcome: who was attacked, and the first images."""
    found = []
    for one in asks(suite, name, suite.figures[name]):
        votes, images = lookup(one.outcomes), pictures(one.outcomes, SHEET)
        if votes is None or images is None:
            continue
        winner = predicted(votes, one.kind)
        share = votes.counts.max(1) / votes.drawn
        tiles = [
            Tile(before, after, int(votes.labels[i]), int(winner[i]), float(share[i]))
            for i, (before, after) in enumerate(zip(*images, strict=True))
        ]
        source = "" if one.source == one.target else f", attacked through {label(suite, one.source)}"
        found.append((one.series + source, tiles))
    return found

"""What a suite's figures ask for: each kind of figure as the outcomes it reads."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

from bench import UserError
from bench.recipes import PGD, Clean, Outcomes
from bench.suite.cells import Suite
from bench.suite.schema import Figure


class Asked(NamedTuple):
    """One number a figure needs: in which panel, of which series, at which x."""

    panel: str
    series: str
    x: float
    outcomes: Outcomes
    kind: str
    target: str
    source: str


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
                            yield step(suite, name, figure, source, target, eps, k=k)
        case "eps":
            for target in figure.models:
                for eps in sweep(suite, name, figure):
                    attack = Clean() if eps == 0 else scaled(attack_of(suite, name, figure), eps)
                    source = figure.sources[0] if figure.sources else target
                    yield _ask(suite, figure, "", target, source, attack, x=float(eps * 255))
        case "transfer":
            for i, source in enumerate(figure.sources or figure.models):
                for target in figure.models:
                    attack = _named(suite, name, figure)
                    yield _ask(suite, figure, label(suite, source), target, source, attack, x=float(i))
        case "draws" | "agreement" | "sheet":
            for source in figure.sources or ("",):
                for target in figure.models:
                    attack = _named(suite, name, figure)
                    yield _ask(suite, figure, label(suite, target), target, source or target, attack, x=0.0)


def step(suite: Suite, name: str, figure: Figure, source: str, target: str, eps: Fraction, *, k: int) -> Asked:
    """Accuracy of `target` on the images that an attack on `source` has reached after k steps."""
    attack = scaled(attack_of(suite, name, figure), eps).model_copy(update={"keep_iterates": True})
    on = f"attack on {label(suite, source)}, " if len(figure.sources) > 1 else ""
    panel = f"{on}\N{GREEK SMALL LETTER EPSILON} = {pixels(eps)}"
    return _ask(suite, figure, panel, target, source, attack, x=float(k), iterate=k)


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
    *,
    x: float,
    iterate: int | None = None,
) -> Asked:
    entry = suite.models[target]
    draws = figure.samples if entry.rule else figure.draws
    if not entry.model.stochastic or draws is None:
        draws = entry.judged_draws
    outcomes = suite.outcomes(target, attack, source, figure.data, iterate=iterate, draws=draws)
    return Asked(panel, label(suite, target), x, outcomes, entry.number, target, source)

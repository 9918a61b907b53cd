"""What stands above a figure: the attack, its eps, how many images, and the level of the intervals."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from bench.recipes import Clean, Distilled, Trained
from bench.report.white_box import named
from bench.suite.cells import Suite
from bench.suite.figures import Asked, label, pixels
from bench.suite.schema import Figure
from bench.votes.numbers import LEVEL
from bench.votes.votes import Votes

WHISKERS = f"whiskers: {100 * LEVEL:g} % intervals"


def of_records(suite: Suite, figure: Figure, found: Sequence[tuple[Asked, Votes]]) -> str:
    """The setting of a figure that shows records."""
    images = sorted({len(votes.labels) for _, votes in found})
    several = f"{', '.join(f'{n:,}' for n in images)} images"
    said = [_attack(suite, figure), several]
    if figure.kind in ("draws", "agreement"):
        return "; ".join(said)
    return "; ".join(
        [*said, "in brackets" + WHISKERS.removeprefix("whiskers") if figure.kind == "transfer" else WHISKERS]
    )


def of_curves(weights: Sequence[Trained | Distilled]) -> str:
    """The setting of training curves: what checked the network after an epoch."""
    each: dict[str, None] = {}
    for one in weights:
        training = one.training
        attack = training.validation_attack
        said = f"{named(attack)}, \N{GREEK SMALL LETTER EPSILON} = {pixels(attack.eps)}" if attack else "no attack"
        each[f"{said}; {training.validation:,} held-out training images"] = None
    return "; ".join([*each, WHISKERS])


def of_sheet(suite: Suite, figure: Figure) -> str:
    """The setting of a contact sheet."""
    return _attack(suite, figure)


def _attack(suite: Suite, figure: Figure) -> str:
    attack = suite.attacks[figure.attack] if figure.attack else Clean()
    if isinstance(attack, Clean):
        return "clean images"
    eps = getattr(attack, "eps", None)
    norm = getattr(attack, "norm", "Linf").replace("Linf", "L\N{INFINITY}")
    size = norm
    if isinstance(eps, Fraction) and not (figure.kind in ("steps", "eps") and len(figure.eps) > 1):
        size += f", \N{GREEK SMALL LETTER EPSILON} = {pixels(eps)}"
    source = ", ".join(label(suite, one) for one in figure.sources) or "the model itself"
    on = "" if figure.kind == "transfer" else f", crafted on {source}"
    return f"{named(attack)} ({size}){on}"

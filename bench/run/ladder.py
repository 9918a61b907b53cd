"""`strong`: a ladder of ever stronger PGDs, climbed until a rung takes less than its own interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from bench import UserError
from bench.recipes import PGD, Outcomes
from bench.run.session import Session
from bench.store.cost import gradients
from bench.suite.schema import Ladder
from bench.votes.numbers import Missing, Number, fold


class Rung(NamedTuple):
    """One attack tried: the accuracy it left, and its cost in gradients to the input an image."""

    attack: PGD
    accuracy: Number
    gradients: float


def rungs(ladder: Ladder) -> tuple[PGD, ...]:
    """The attacks of a ladder, weakest first: first more draws a step, then more steps, other losses, restarts.

    The values are the ladder that the literature's broken randomised defences suggest: EoT 1, 4, 20;
    20, 100, 200 steps; CE, DLR, mean softmax; 5 restarts chosen by mean loss on selection draws.
    Steps shrink as their number grows, so that the ball's corner stays within reach: steps x step >= 2.5 eps.
    """
    eps = ladder.eps

    def rung(steps: int, eot: int, **other: object) -> PGD:
        step = max(Fraction(5, 2) * eps / steps, eps / 20)
        return PGD(eps=eps, step=step, steps=steps, eot=eot, **other)  # type: ignore[arg-type]

    climb = (
        rung(10, 1),
        rung(20, 1),
        rung(20, 4),
        rung(20, 20),
        rung(20, 20, gradient="mean-softmax"),
        rung(100, 20),
        rung(100, 20, loss="dlr", pick="best"),
        rung(100, 20, restarts=5, pick="best"),
        rung(200, 20, restarts=5, pick="best"),
    )
    return tuple(attack for attack in climb if gradients(attack)[1] <= ladder.budget)


def climb(ladder: Ladder, judge: Callable[[PGD], Number]) -> list[Rung]:
    """Try rung after rung; stop when two in a row move the lowest accuracy by less than its half-interval.

    Two, because one rung may change the wrong thing: a model whose noise hides the gradient does not
    yield to more steps, but does to more draws.
    """
    tried: list[Rung] = []
    still = 0
    lowest: Number | None = None
    for attack in rungs(ladder):
        number = judge(attack)
        tried.append(Rung(attack, number, gradients(attack)[1]))
        if lowest is not None:
            still = still + 1 if number.value > lowest.value - lowest.half else 0
        if lowest is None or number.value < lowest.value:
            lowest = number
        if still == 2:
            break
    return tried


def ladders(session: Session, make: Callable[[list[Outcomes]], None]) -> str:
    """Climb every ladder of the session's suite; `make` sees to it that outcomes are recorded. Markdown."""
    suite, parts = session.suite, []
    for ladder in suite.ladders.values():
        for model in ladder.models:

            def judge(attack: PGD, model: str = model, ladder: Ladder = ladder) -> Number:
                base = suite.outcomes(model, "clean", data=ladder.data)
                examples = suite.examples(attack, model, ladder.data)
                outcomes = Outcomes(**(dict(base) | {"examples": examples}))
                make([outcomes])
                votes = session.votes(outcomes)
                number = fold(votes, suite.models[model].number) if votes else Missing("no record")
                if isinstance(number, Missing):
                    raise UserError(f"{suite.path}: ladders", number.reason, "run the same command again")
                return number

            tried = climb(ladder, judge)
            parts.append(markdown(model, tried, len(tried) < len(rungs(ladder))))
    return "\n".join(parts)


def markdown(model: str, tried: Sequence[Rung], complete: bool) -> str:
    """The ladder with its cost: which rung left the least, and whether climbing had stopped paying."""
    lines = [
        f"## strong: {model}",
        "",
        "| attack | accuracy, % | gradients an image |",
        "| :--- | ---: | ---: |",
    ]
    lowest = min(tried, key=lambda rung: rung.accuracy.value)
    for rung in tried:
        a = rung.attack
        words = [f"PGD-{a.steps}", f"EoT {a.eot}" if a.eot > 1 else "", a.loss if a.loss != "ce" else ""]
        words += ["mean softmax" if a.gradient == "mean-softmax" else "", f"{a.restarts} restarts" * (a.restarts > 1)]
        mark = "**" if rung is lowest else ""
        value = f"{mark}{100 * rung.accuracy.value:.2f} ± {100 * rung.accuracy.half:.2f}{mark}"
        lines.append(f"| {', '.join(word for word in words if word)} | {value} | {rung.gradients:g} |")
    end = "two rungs in a row moved it by less than its interval" if complete else "the ladder's end was reached"
    lines += ["", f"{lowest.accuracy.n} images; {end}; {sum(r.gradients for r in tried):g} gradients an image in all."]
    return "\n".join(lines) + "\n"

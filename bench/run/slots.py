"""The full record in steps that fit time slots: what each makes, what is left, and how long it takes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from bench.recipes import Distilled, Trained, Work
from bench.run.session import Session, planned
from bench.store.cost import Rates
from bench.store.disk import writing
from bench.store.sealed import Damaged, Record, whole


class Step(NamedTuple):
    """One publishable piece of the record: its title, what it makes, and how much of that is missing."""

    title: str
    wanted: list[Work]
    missing: int
    seconds: float


def steps(session: Session, rates: Rates) -> list[Step]:
    """Every training in the order in which they need each other, then each table, then the rest.

    `seconds` is an estimate: from earlier tasks on this machine where there were any.
    """
    suite = session.suite
    trained = [(name, w) for name, w in suite.weights.items() if isinstance(w, Trained | Distilled)]
    order = sorted(trained, key=lambda item: _depth(item[1]))
    wanted: list[tuple[str, list[Work]]] = [(f"train {name}", [recipe]) for name, recipe in order]
    wanted += [(name, list(session.wanted(name))) for name in suite.tables]
    wanted += [("figures and certificates", list(session.wanted()))]
    made: list[Step] = []
    counted: set[str] = set()
    for title, works in wanted:
        left = [recipe for recipe in planned(session, works, False).order if recipe.key not in counted]
        counted |= {recipe.key for recipe in left}
        made.append(Step(title, works, len(left), sum(rates.seconds(recipe) for recipe in left)))
    return made


def _depth(recipe: Trained | Distilled) -> int:
    match recipe:
        case Distilled(teacher=teacher) if isinstance(teacher.weights, Trained | Distilled):
            return 1 + _depth(teacher.weights)
        case _:
            return 0


def publish_weights(session: Session) -> list[str]:
    """Copy finished weights to models/weights/<suite>-<scale>-<name>, from where a fresh clone uses them; the names
    copied. Two scales of one suite call different weights by one name, hence the scale."""
    copied, suite = [], session.suite
    shelf = session.settings.root / "models" / "weights"
    for name, recipe in session.suite.weights.items():
        if not isinstance(recipe, Trained | Distilled):
            continue
        record = session.store.find(recipe, thorough=True)
        place = shelf / "-".join(filter(None, (suite.name, suite.scale, name)))
        if record is None or record.path == place or _same(place, record):
            continue
        with writing(place):
            fresh = place.with_name(f".{place.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(record.path, fresh)
            if place.exists():
                session.store.discard(place)
            fresh.rename(place)
        copied.append(name)
    return copied


def _same(place: Path, record: Record) -> bool:
    """Whether `place` holds the record already: copying it again would take it away for a moment."""
    try:
        there = whole(place, record.key, thorough=True)
    except Damaged:
        return False
    return there is not None and there.seal == record.seal


def text(made: list[Step]) -> str:
    """The steps, a line each: done, or what is missing and how long it may take."""
    lines = []
    for step in made:
        left = "done" if not step.missing else f"{step.missing:>4} records to make, about {step.seconds / 60:.1f} min"
        lines.append(f"{step.title:<28} {left}")
    total = sum(step.seconds for step in made)
    lines.append(
        "everything is recorded" if not any(s.missing for s in made) else f"about {total / 60:.0f} min are left"
    )
    return "\n".join(lines)

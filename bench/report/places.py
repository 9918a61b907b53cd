"""Where RobustBench's leaderboard would have a suite's models: the short word of it under a run's tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.report.board import leaderboard, place
from bench.report.leaderboard import Ours, compare, ours
from bench.report.render import share
from bench.report.tables import Lookup
from bench.report.white_box import FEWEST
from bench.suite.cells import Suite

NAME = "robustbench.md"
MEANS = (
    "A place is where the model's lowest white-box number at eps 8/255 (L-inf) would stand among published ones. "
    "Those are AutoAttack's or lower, on all 10,000 test images; one more attack can only take places. The leaderboard "
    "admits deterministic models alone: a randomised model's place is for orientation."
)


def whole(suite: Suite, lookup: Lookup) -> str:
    """robustbench.md: first what `first` takes of it, then the leaderboard with the suite's models among its rows.

    Empty where no model could stand there: none has a white-box number at the leaderboard's eps.
    """
    models = ours(suite, lookup)
    able = [model for model in models if model.lowest]
    return f"{_brief(able)}\n\n{compare(models)}" if able else ""


def first(folder: Path) -> str:
    """What a run prints: the part of the written robustbench.md that is of the suite's own models."""
    try:
        return (folder / NAME).read_text("utf-8").split("\n\n# ")[0]
    except FileNotFoundError:
        return ""


def _brief(models: Sequence[Ours]) -> str:
    placed = [model for model in models if model.lowest and model.lowest.robust.n >= FEWEST]
    if not placed:
        return f"RobustBench: no model was attacked at eps 8/255 on {FEWEST:,} images, so none has a place ({NAME})."
    rows = [line for model in sorted(placed, key=_at) for line in _rows(model)]
    head = ["| Place | Model | Clean | Robust | Attack |", "| --: | --- | --: | --: | --- |"]
    return "\n".join(["## RobustBench beside ours", "", *head, *dict.fromkeys(rows), "", f"{MEANS} More in {NAME}."])


def _at(model: Ours) -> int:
    assert model.lowest
    return place(model.lowest.clean.value, model.lowest.robust.value)


def _rows(model: Ours) -> Sequence[str]:
    """The published model above, the model, and the one below."""
    assert model.lowest
    at, (clean, robust) = _at(model), (model.lowest.clean, model.lowest.robust)
    name = model.name + (", randomised" if model.stochastic else "")
    own = f"| **({at})** | **{name}** | {share(clean)} | {share(robust)} | {model.lowest.attack} |"
    around = [
        (rank, f"| {rank} | {entry.id} | {100 * entry.clean:.2f} | {100 * entry.robust:.2f} | AutoAttack |")
        for rank, entry in enumerate(leaderboard().entries, 1)
        if rank in (at - 1, at)
    ]
    return [*(line for rank, line in around if rank < at), own, *(line for rank, line in around if rank >= at)]

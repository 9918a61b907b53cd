"""RobustBench's leaderboard as it was read, and the place that a pair of numbers would have."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).parent / "data" / "robustbench" / "cifar10-linf.json"


class Baseline(NamedTuple):
    """One published model. Accuracies are shares in [0, 1] of CIFAR-10's test images; eps as stated."""

    id: str
    title: str
    authors: str
    venue: str
    link: str
    architecture: str
    extra_data: bool
    passes: int
    eps: str
    clean: float
    autoattack: float
    external: float | None
    reported: float
    unreliable: bool
    footnote: str

    @property
    def robust(self) -> float:
        """What the leaderboard sorts by: AutoAttack, or another evaluation that found less."""
        return self.autoattack if self.external is None else min(self.autoattack, self.external)


class Leaderboard(NamedTuple):
    """The entries from the most robust to the least, and where they are from."""

    source: str
    entries: tuple[Baseline, ...]

    def named(self, id: str) -> Baseline | None:
        """The entry of this id."""
        return next((entry for entry in self.entries if entry.id == id), None)

    def rank(self, id: str) -> int:
        """An entry's place, from 1."""
        return next(place for place, entry in enumerate(self.entries, 1) if entry.id == id)


@cache
def leaderboard() -> Leaderboard:
    """RobustBench's CIFAR-10 L-inf leaderboard, shipped with the package (bench/lab/images/data/robustbench)."""
    raw = json.loads(FILE.read_text("utf-8"))
    entries = [
        Baseline(
            id=model["id"],
            title=model["name"],
            authors=model["authors"],
            venue=plain_text(model["venue"]),
            link=model["link"],
            architecture=model["architecture"],
            extra_data=bool(model["additional_data"]),
            passes=int(model["number_forward_passes"]),
            eps=model["eps"],
            clean=share_of(model["clean_acc"]),
            autoattack=share_of(model["autoattack_acc"]),
            external=share_of(model["external"]) if model.get("external") else None,
            reported=share_of(model["reported"]),
            unreliable=bool(model.get("unreliable")),
            footnote=plain_text(model.get("footnote", "")),
        )
        for model in raw["models"]
    ]
    return Leaderboard(raw["source"], tuple(sorted(entries, key=lambda e: (-e.robust, -e.clean, e.id))))


def place(clean: float, robust: float, entries: Sequence[Baseline] | None = None) -> int:
    """The place, from 1, that a model of these accuracies (shares) would have; clean accuracy breaks ties."""
    entries = leaderboard().entries if entries is None else entries
    return 1 + sum((entry.robust, entry.clean) > (robust, clean) for entry in entries)


def is_wrn28(architecture: str) -> bool:
    return architecture.startswith("WideResNet-28-")


def plain_text(html: str) -> str:
    """Text without the leaderboard's markup."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def share_of(percent: str) -> float:
    return float(Fraction(percent) / 100)

"""The line under a table: where its numbers are from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from bench.recipes import Examples, Outcomes
from bench.suite.cells import Cell, Suite
from bench.suite.libraries import used as libraries_of
from bench.votes.numbers import Missing, Number


def provenance(suite: Suite, cells: list[CellView], manifests: Mapping[Outcomes, Mapping[str, Any] | None]) -> str:
    """One line: the scale, where and with what the numbers were made, the draws used, the records."""
    if not cells:
        return "Nothing is recorded yet."
    about = [dict((manifests.get(view.cell.outcomes) or {}).get("provenance", {})) for view in cells]
    devices = sorted({str(one["device"]) for one in about if one.get("device")})
    versions = sorted({
        f"{name} {number}" for view, one in zip(cells, about, strict=True)
        for name, number in one.get("versions", {}).items() if name in libraries_of([view.cell.outcomes])
    })  # fmt: skip
    images = sorted({view.number.n for view in cells if isinstance(view.number, Number)})
    draws: dict[str, list[float]] = {}
    for view in cells:
        if view.cell.outcomes.target.stochastic:
            draws.setdefault(label_of(suite, view.cell.target), []).append(view.draws)
    used = [f"{label} {sum(each) / len(each):.1f}" for label, each in draws.items()]
    keys = dict.fromkeys(view.cell.outcomes.key[:8] for view in cells)
    protocol = suite.protocol
    parts = [
        f"protocol {protocol_of(cells)}",
        f"scale {suite.scale}" if suite.scale else "",
        f"{', '.join(f'{n:,}' for n in images)} images",
        f"seed {protocol.seed}",
        f"shards of {protocol.shard}",
        "precision auto" if protocol.precision == "auto" else protocol.precision,
        f"on {' and '.join(devices)}" if devices else "",
        f"draws an image (mean): {', '.join(used)}" if used else "",
        ", ".join(versions),
        f"records {', '.join(keys)}",
    ]
    return "; ".join(part for part in parts if part) + "."


def protocol_of(cells: list[CellView]) -> str:
    """The version of what the numbers mean: of crafting and of judging, and of each attack that was ever changed.

    They are the `rev` of the recipes, so tables of unlike versions are of unlike records.
    """
    changed = {type(view.cell.outcomes.examples.attack) for view in cells}
    more = sorted(f"{kind.__name__.lower()} {kind.rev}" for kind in changed if kind.rev != 1)
    return ", ".join([f"{Examples.rev}.{Outcomes.rev}", *more])


class CellView(NamedTuple):
    """One cell as shown: `marks` are positions in the table's legend; paper is in percent."""

    cell: Cell
    number: Number | Missing
    access: str
    draws: float
    marks: tuple[int, ...]
    best: bool

    @property
    def difference(self) -> float | None:
        """Measured less the paper's, in percentage points."""
        if isinstance(self.number, Missing) or self.cell.paper is None:
            return None
        return 100 * self.number.value - self.cell.paper


def label_of(suite: Suite, model: str) -> str:
    return suite.models[model].label or model

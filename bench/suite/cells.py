"""A suite with every name resolved: which recipe answers which cell of which table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.recipes import Clean, Data, Examples, Outcomes, Recipe
from bench.suite.schema import Claim, Entry, Figure, Header, Protocol, Scale, Table


class Cell(NamedTuple):
    """One number of a table: where it stands, what answers it, and what the paper says (percent)."""

    table: str
    row: int
    column: int
    outcomes: Outcomes
    number: str
    target: str
    source: str | None
    attack: str
    paper: float | None


class Suite(NamedTuple):
    """A suite at one scale, every name resolved."""

    name: str
    path: Path
    scale: str
    scales: dict[str, Scale]
    header: Header
    protocol: Protocol
    attacks: dict[str, Any]
    datasets: dict[str, Data]
    weights: dict[str, Any]
    models: dict[str, Entry]
    tables: dict[str, Table]
    figures: dict[str, Figure]
    claims: tuple[Claim, ...]
    limit: int | None
    text: str = ""

    def outcomes(
        self, target: str, attack: str, source: str | None = None, data: str = "test", **changes: Any
    ) -> Outcomes:
        """The recipe that answers "how does `target` do under `attack` crafted on `source`?"."""
        entry, protocol = self.models[target], self.protocol
        return Outcomes(
            examples=self.examples(attack, source or target, data),
            target=entry.model,
            draws=changes.get("draws", entry.judged_draws),
            stopping=changes.get("stopping", entry.judged_stopping),
            iterate=changes.get("iterate"),
            seed=protocol.seed,
            precision=protocol.precision,
        )

    def examples(self, attack: str | Recipe, source: str, data: str = "test") -> Examples:
        """The recipe of `attack` (a name, or an attack itself) on `source`; clean ones have none."""
        recipe: Any = self.attacks[attack] if isinstance(attack, str) else attack
        protocol, images = self.protocol, self.images(data)
        if isinstance(recipe, Clean):
            return Examples(data=images, shard=protocol.shard, precision=protocol.precision)
        return Examples(
            data=images, source=self.models[source].model, attack=recipe,
            seed=protocol.seed, shard=protocol.shard, precision=protocol.precision,
        )  # fmt: skip

    def certificates(self) -> Iterator[tuple[str, Outcomes, Outcomes]]:
        """For each model that declares `certify`: its name, the draws that choose, the others that bound."""
        for name, entry in self.models.items():
            if entry.certify:
                about, examples = entry.certify, self.examples("clean", name, entry.certify.data)
                chosen, bound = (
                    Outcomes(
                        examples=examples, target=entry.model, draws=draws, seed=self.protocol.seed + seed,
                        precision=self.protocol.precision,
                    )
                    for draws, seed in ((about.n0, 1), (about.n, 2))
                )  # fmt: skip
                yield name, chosen, bound

    def images(self, data: str) -> Data:
        """A dataset of the suite, under the run's --images."""
        images = self.datasets[data]
        if self.limit is None:
            return images
        stop = images.start + self.limit
        return images.model_copy(update={"stop": min(stop, images.stop or stop)})

    def main(self) -> list[Cell]:
        """The cells of the main tables: of all, where the suite names none."""
        return [cell for cell in self.cells() if not self.header.main or cell.table in self.header.main]

    def cells(self, only: str | None = None) -> Iterator[Cell]:
        """Every cell of every table (or of one), row by row."""
        made: dict[tuple[Any, ...], Outcomes] = {}
        for name, table in self.tables.items():
            if only not in (None, name):
                continue
            for i, row in enumerate(table.rows):
                for j, column in enumerate(table.columns):
                    if column.only is not None and row.target not in column.only:
                        continue
                    source = row.source or row.target
                    asked = (row.target, column.attack, source, column.data or table.data)
                    entry = self.models[row.target]
                    voted = column.number == "claimed" and entry.rule == "vote" and source == row.target
                    if (*asked, voted) not in made:
                        outcomes = self.outcomes(*asked)
                        made[*asked, voted] = _voted(outcomes, entry.samples) if voted else outcomes
                    number = entry.number if column.number == "auto" else column.number
                    if number == "accuracy" and entry.model.stochastic and made[*asked, voted].draws == 1:
                        number = "expected"  # that of one draw, whose interval knows that others may be unlike it
                    paper = table.paper[i][j] if table.paper else ""
                    yield Cell(
                        name, i, j, made[*asked, voted], number, row.target,
                        None if isinstance(self.attacks[column.attack], Clean) else source,
                        column.attack, None if paper == "" else float(paper),
                    )  # fmt: skip


def _voted(outcomes: Outcomes, draws: int) -> Outcomes:
    """The outcomes where the attack believes by a vote of so many draws, as a vote's belief must be made."""
    if outcomes.examples.source is None or not outcomes.examples.source.stochastic:
        return outcomes
    return outcomes.model_copy(update={"examples": outcomes.examples.model_copy(update={"claim": draws})})

"""What the page of one number shows: all that its votes say, its images, its provenance, how to remake it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.recipes import Clean, Outcomes
from bench.report.doubts import believed
from bench.report.footnotes import CellView
from bench.report.tables import About, Lookup, TableView
from bench.suite.cells import Suite
from bench.suite.writer import toml
from bench.votes import numbers as folds
from bench.votes.numbers import Bounds, Number, fold
from bench.votes.votes import Votes


def link(key: str) -> str:
    """Where a record's page is, from the folder."""
    return f"cells/{key[:16]}.html"


def command(suite: Suite, only: str | None = None) -> str:
    """What remakes the suite's numbers (or one table's)."""
    path = suite.path
    if path.is_absolute():  # where this machine keeps it is nobody's business
        path = Path(*path.parts[-2:]) if path.parent.name == "suites" else Path(path.name)
    words = ["python -m bench run", path.as_posix()]
    words += ["--scale", suite.scale] if suite.scale else []
    words += ["--only", only] if only else []
    words += ["--images", str(suite.limit)] if suite.limit else []
    return " ".join(words)


def cell_page(
    suite: Suite, title: str, several: list[tuple[TableView, CellView]], lookup: Lookup, manifest: About
) -> dict[str, Any]:
    """What the page of one record shows."""
    cell = several[0][1]
    outcomes, asked = cell.cell.outcomes, cell.cell
    votes = lookup(outcomes)
    target = suite.models[asked.target].label or asked.target
    column = suite.tables[asked.table].columns[asked.column]
    attack = (column.label or asked.attack) if not isinstance(outcomes.examples.attack, Clean) else "no attack"
    source = "" if asked.source in (None, asked.target) else suite.models[str(asked.source)].label or str(asked.source)
    number = cell.number
    said = dict.fromkeys(text for shown, one in several for text in (*(shown.legend[mark] for mark in one.marks),))
    about = dict(manifest(outcomes) or {})
    return {
        "title": f"{target} under {attack}" + (f" crafted on {source}" if source else ""),
        "suite_title": title,
        "where": [f"{shown.title}, row {one.cell.row + 1}" for shown, one in several],
        "main": _percent(number) if isinstance(number, Number) else None,
        "reason": "" if isinstance(number, Number) else number.reason,
        "papers": [
            f"{one.cell.paper:g} % ({one.difference:+.2f} points)" for _, one in several if one.difference is not None
        ],
        "remarks": [*said] if isinstance(number, Number) else [],
        "numbers": quantities(suite, cell, lookup) if votes is not None else [],
        "rows": images(votes, asked.number) if votes is not None else [],
        "classes": [*(outcomes.examples.data.names or map(str, range(0 if votes is None else len(votes.counts[0]))))],
        "facts": facts(outcomes, about),
        "record": f"results/records/{outcomes.key[:2]}/{outcomes.key}/votes.parquet",
        "command": command(suite, asked.table),
        "toml": toml(outcomes, asked.number),
        "key": outcomes.key,
    }


def _percent(number: Number) -> dict[str, Any]:
    return {
        "value": 100 * number.value, "low": 100 * number.low, "high": 100 * number.high,
        "n": number.n,
    }  # fmt: skip


MEANINGS = {
    "accuracy": "of the one prediction a deterministic model has",
    "expected": "mean probability that one fresh draw is right",
    "vote": "of the class that won most draws; ties go to the lowest",
    "soft": "of the class with the largest mean softmax",
    "claimed": "what the attack believed it had left of its source, by single draws of its own",
}


def quantities(suite: Suite, cell: CellView, lookup: Lookup) -> list[tuple[str, str, str, str, str]]:
    """Every number that these votes can give, with its meaning."""
    outcomes = cell.cell.outcomes
    votes = lookup(outcomes)
    assert votes is not None
    found: list[tuple[str, Any, str]] = []
    random = outcomes.target.stochastic
    for kind in ("expected", "vote", "soft") if random else ("accuracy",):
        found.append((f"{kind} accuracy" if kind != "accuracy" else kind, fold(votes, kind), MEANINGS[kind]))
    if random:
        for times in (2, 5):
            what = f"right {times} times in a row, for an attacker who may try so often"
            found.append((f"resubmission, {times} times", folds.resubmission(votes, times), what))
    if not isinstance(outcomes.examples.attack, Clean):
        found.append(("claimed by the attack", believed(outcomes, votes), MEANINGS["claimed"]))
        clean = lookup(suite.outcomes(cell.cell.target, Clean(), data=_data(suite, cell)))  # type: ignore[arg-type]
        if clean is not None:
            kind = ("expected" if random else "accuracy") if cell.cell.number == "claimed" else cell.cell.number
            number = folds.given_clean(votes, clean, kind)
            found.append((f"{kind} accuracy, given clean", number, "among the images that are right without an attack"))
    lines = [
        (name, f"{100 * one.value:.2f}", f"{100 * one.low:.2f}", f"{100 * one.high:.2f}", meaning)
        for name, one, meaning in found
        if isinstance(one, Number)
    ]
    if random and isinstance(bounds := folds.infinite(votes), Bounds):
        value = f"{100 * bounds.sure:.2f} to {100 * (bounds.sure + bounds.undecided):.2f}"
        meaning = f"of infinitely many draws; {100 * bounds.undecided:.1f} % of the images are undecided"
        lines.append(("infinite-vote accuracy", value, f"{100 * bounds.low:.2f}", f"{100 * bounds.high:.2f}", meaning))
    return lines


def _data(suite: Suite, cell: CellView) -> str:
    table = suite.tables[cell.cell.table]
    return table.columns[cell.cell.column].data or table.data


def images(votes: Votes, kind: str) -> list[list[float | int]]:
    """A row an image: index, label, prediction, the winner's share of its draws, draws, distance x 255."""
    winner = folds.predicted(votes, "soft" if kind == "soft" else "vote")
    share = folds.agreement(votes, winner)
    return [
        [int(i), int(label), int(said), round(float(part), 3), int(draws), round(float(far) * 255, 2)]
        for i, label, said, part, draws, far in zip(
            votes.index, votes.labels, winner, share, votes.drawn, votes.linf, strict=True
        )
    ]


def facts(outcomes: Outcomes, manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where and with what the record was made, as its manifest has it."""
    about = dict(manifest.get("provenance", {}))
    versions = ", ".join(f"{name} {number}" for name, number in sorted(about.pop("versions", {}).items()))
    lines = [("record", outcomes.key), ("seal", str(manifest.get("seal", "not recorded")))]
    lines += [(f"made from {key[:12]}", f"seal {seal}") for key, seal in manifest.get("made_from", {}).items()]
    lines += [(name.replace("_", " "), str(value)) for name, value in sorted(about.items())]
    lines.append(("versions", versions or "not recorded"))
    lines += [
        (f"file {name}", f"{what['bytes']:,} bytes, SHA-256 {what['sha256']}")
        for name, what in manifest.get("files", {}).items()
    ]
    return lines

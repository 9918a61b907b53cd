"""What attacks that adapt bought, of every cell that has one: from the manifests of the records, without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bench.recipes import Outcomes, Strong, Worst
from bench.suite.cells import Suite

Lookup = Callable[[Outcomes], Mapping[str, Any] | None]


def markdown(suite: Suite, manifest: Lookup, only: str | None = None) -> str:
    """A table for each model and attack that was searched for; "" where there is none."""
    parts: dict[str, str] = {}
    for cell in suite.cells(only):
        attack = cell.outcomes.examples.attack
        about = manifest(cell.outcomes) if isinstance(attack, Strong | Worst) else None
        said = (about or {}).get("provenance", {}).get("bought")
        if said is not None:
            source = cell.outcomes.examples.source
            name = next((name for name, entry in suite.models.items() if entry.model == source), "a model")
            called = next((one for one, recipe in suite.attacks.items() if recipe == attack), "strong")
            parts.setdefault(cell.outcomes.examples.key, table(f"{called}: {name}", said))
    return "\n".join(parts.values())


def table(title: str, said: Mapping[str, Any]) -> str:
    """The account as a table, with the reason for its end and the findings."""
    lines = [
        f"## {title}", "",
        "| member | tried on | error it added, points | gradients an image | examples that are its |",
        "| :--- | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for name, tried, gain, cost, found in said["members"]:
        lines.append(f"| {name} | {tried} | {100 * gain:.2f} | {cost:.1f} | {found} |")
    several = len(said["ends"]) > 1
    ends = "; ".join(f"{end} ({times} shards)" if several else end for end, times in said["ends"].items())
    lines += ["", f"{said['images']} images; {said['gradients']:.1f} gradients an image, {said['most']:.0f} at most; "
              f"ended: {ends}. Errors are on the draws that selected, not on those that judge."]  # fmt: skip
    return "\n".join([*lines, *(f"- {words}" for words in said["findings"])]) + "\n"

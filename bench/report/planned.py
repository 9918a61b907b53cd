"""The plan in words: what is there, what is missing, what it costs, and what has changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from bench.recipes import Fetched, Peer
from bench.report.publish import about
from bench.run.session import Session
from bench.run.strangers import former, touched
from bench.store import machine
from bench.store.cost import Rates, passes
from bench.store.plan import Plan, describe
from bench.suite.cells import Suite
from bench.suite.libraries import lacking
from bench.suite.libraries import words as missing_words


def planned_text(session: Session, made: Plan, as_json: bool) -> str:
    """What is there, what is missing, and what it would cost, in words or as JSON."""
    rates = Rates(session.store.scratch, machine.kind(session.settings.device))
    missing: list[dict[str, Any]] = [
        {
            "what": describe(recipe, session.names),
            "key": recipe.key,
            "forward_passes": round(passes(recipe)),
            "seconds": None if rates.blind(recipe) else round(rates.seconds(recipe), 1),
        }
        for recipe in made.order
    ]
    stale = [
        {"record": str(old.record.path), "made_from": old.key, "then": old.then, "now": old.now} for old in made.stale
    ]
    code, lost = sorted(set(_code(session.suite))), lacking(made.order)
    if as_json:
        said = {"found": len(made.found), "missing": missing, "stale": stale, "runs_code": code}
        return json.dumps(said | {"not_installed": [one.name for one in lost]}, indent=1)
    lines = [about(session), f"{len(made.found)} records found, {len(missing)} to make"]
    for item in missing:
        lines.append(f"  {item['what']:<60} " + (f"{s:>9.0f} s" if (s := item["seconds"]) is not None else "        ?"))
    if missing:
        total, blind = sum(item["seconds"] or 0 for item in missing), any(item["seconds"] is None for item in missing)
        rest = "; ?: not known before a pass is timed here, as run does first, or plan --measure" if blind else ""
        measured = "a guess, nothing has run here yet" if all(map(rates.guesses, made.order)) else "from earlier tasks"
        lines.append(f"  estimated in all: {total / 60:.0f} min on this machine's {rates.device} ({measured}{rest})")
    for item in stale:
        named = session.names.get(item["made_from"], item["made_from"][:12])
        lines.append(f"stale: {item['record']} was made from {named}, since made anew")
    lines += touched(session, made.wanted) + former(session, made.order)
    lines += [f"runs your code: {name}" for name in code]
    lines += ["{}: {}".format(*missing_words(lost))] if lost else []
    return "\n".join(lines)


def _code(suite: Suite) -> Iterator[str]:
    """Names of the user's own code that a run would run: models, attacks, data."""
    attacks = [one for attack in suite.attacks.values() for one in getattr(attack, "attacks", (attack,))]
    for recipe in (*suite.weights.values(), *attacks):
        if isinstance(recipe, Fetched | Peer) and recipe.kind == "python":
            yield recipe.name
        if isinstance(recipe, Fetched) and recipe.build:
            yield recipe.build
    for data in suite.datasets.values():
        if data.kind == "python":
            yield data.path

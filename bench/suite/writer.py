"""The TOML that asks for one outcome and nothing else: who has it needs no suite of ours to remake the number."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from bench.recipes import Clean, Model, Outcomes, Recipe
from bench.suite.cells import Suite

ALWAYS = {"kind", "rule", "draws", "teacher", "weights", "other"}  # written even where they are the default


def toml(outcomes: Outcomes, number: str) -> str:
    """A suite of one table with one cell, whose outcome has this very key. ValueError for one iterate of an attack."""
    if outcomes.iterate is not None:
        raise ValueError("no table asks for one iterate of an attack")
    examples = outcomes.examples
    models: dict[str, Any] = {"target": _entry(outcomes.target) | _judged(outcomes, number)}
    row: Any = "target"
    if examples.source not in (None, outcomes.target):
        assert examples.source is not None
        models["source"] = _entry(examples.source)
        row = ["source", "target"]
    attack = "clean" if isinstance(examples.attack, Clean) else "attack"
    judged = models["target"]
    usual = judged.get("rule", "expected") if outcomes.target.stochastic else "accuracy"
    column: Any = attack if number == usual else {"attack": attack, "number": number}
    suite = {
        "protocol": {"seed": outcomes.seed, "shard": examples.shard, "precision": outcomes.precision},
        "datasets": {"test": _fields(examples.data)},
        "attacks": {} if attack == "clean" else {"attack": _fields(examples.attack)},
        "models": models,
        "tables": {"cell": {"rows": [row], "columns": [column]}},
    }
    return "\n".join(_lines((), suite)).strip() + "\n"


def whole(suite: Suite) -> str:
    """A suite of protocol, data sets, attacks, models and tables as a file whose cells have these very keys."""

    def named(section: dict[str, Any]) -> dict[str, Any]:
        return {name: _fields(one) for name, one in section.items()}

    attacks = {name: attack for name, attack in suite.attacks.items() if not isinstance(attack, Clean)}
    rooms = {
        "protocol": _fields(suite.protocol), "datasets": named(suite.datasets), "attacks": named(attacks),
        "models": named(suite.models), "tables": named(suite.tables),
    }  # fmt: skip
    return "\n".join(_lines((), rooms)).strip() + "\n"


def section(path: tuple[str, ...], recipe: Recipe) -> str:
    """One named part of a suite, such as [datasets.test]."""
    return "\n".join(_lines(path, _fields(recipe))).strip() + "\n"


def _entry(model: Model) -> dict[str, Any]:
    over = {} if model.defence is None else {"defence": _fields(model.defence)}
    return {"weights": _fields(model.weights), "sigma": str(model.sigma), "unit": model.unit} | over


def _judged(outcomes: Outcomes, number: str) -> dict[str, Any]:
    if not outcomes.target.stochastic:
        return {}
    stopping = outcomes.stopping
    if stopping.kind == "adaptive":
        how = {"rule": stopping.rule, "stopping": "adaptive", "alpha": stopping.alpha}
        return how | ({"infinite": True} if stopping.infinite else {}) | {"samples": outcomes.draws}
    if outcomes.examples.claim > 1:
        return {"rule": "vote", "samples": outcomes.draws}
    return {"rule": number, "samples": outcomes.draws} if number in ("vote", "soft") else {"draws": outcomes.draws}


def _fields(recipe: Recipe) -> dict[str, Any]:
    """What differs from the defaults, and what must be read."""
    found = {}
    for name, about in type(recipe).model_fields.items():
        value, usual = getattr(recipe, name), about.get_default(call_default_factory=True)
        if name != "place" and value is not None and (name in ALWAYS or value != usual):
            found[name] = _entry(value) if isinstance(value, Model) else _value(value)
    return found


def _value(value: Any) -> Any:
    match value:
        case Recipe():
            return _fields(value)
        case Fraction():
            return str(value)
        case tuple() | list():
            return [_value(item) for item in value]
        case dict():
            return {name: _value(item) for name, item in value.items()}
        case _:
            return value


def _lines(path: tuple[str, ...], table: dict[str, Any]) -> Iterator[str]:
    """One table's keys, then its tables, each under its header."""
    plain = {name: value for name, value in table.items() if not isinstance(value, dict)}
    if path and plain:
        yield ""
        yield f"[{'.'.join(map(_key, path))}]"
    for name, value in plain.items():
        yield f"{_key(name)} = {_inline(value)}"
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _lines((*path, name), value)


def _inline(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            return "{ " + ", ".join(f"{_key(name)} = {_inline(item)}" for name, item in value.items()) + " }"
        case list():
            return "[" + ", ".join(map(_inline, value)) + "]"
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case _:
            return repr(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)

"""A declared grid: a list where a model or an attack takes one value makes one of each, named."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from bench import UserError
from bench.recipes import Recipe
from bench.suite.parts import PARTS
from bench.suite.words import plain_name

MOST = 1000
SECTIONS = ("models", "attacks")
Members = dict[str, dict[str, str]]
"""By the name of a grid: its members' names, and what each has of the grid's values, in words."""


def spread(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """A raw suite with the grids of [models] and [attacks] written out, before any name is resolved.

    `sigma = [0, 0.1]` of model m makes the models ``m@sigma=0`` and ``m@sigma=0.1``; tables and figures that name m
    mean all of them, in that order. A suite without grids is returned as it is, so no key of a single value changes.
    UserError for more than MOST members, and for names that cannot be told apart.
    """
    models, of_models = _section(raw, "models", where)
    attacks, of_attacks = _section(raw, "attacks", where)
    if not (of_models or of_attacks):
        return raw
    result = raw | {"models": models, "attacks": attacks}
    for section, lists in (("tables", ("rows", "columns")), ("figures", ("models", "sources"))):
        entries = raw.get(section)
        if isinstance(entries, dict):
            result[section] = {
                name: value | {
                    key: [one for item in value[key] for one in _each(item, of_models, of_attacks, key)]
                    for key in lists if isinstance(value.get(key), list)
                } if isinstance(value, dict) else value
                for name, value in entries.items()
            }  # fmt: skip
    return {name: value for name, value in result.items() if name in raw}


def _section(raw: Mapping[str, Any], section: str, where: str) -> tuple[dict[str, Any], Members]:
    entries = raw.get(section, {})
    if not isinstance(entries, dict):
        return entries, {}
    made: dict[str, Any] = {}
    members: Members = {}
    for name, value in entries.items():
        axes = _axes(section, value)
        if not axes:
            made[name] = value
            continue
        points = list(itertools.islice(itertools.product(*axes.values()), MOST + 1))
        if len(points) > MOST:
            raise UserError(f"{where}: {section}.{name}", f"is a grid of more than {MOST:,}", "shorten its lists")
        for point in points:
            own = dict(zip(axes, point, strict=True))
            called = f"{name}@" + " ".join(f"{key}={_word(one)}" for key, one in own.items()).replace("/", "-")
            said = ", ".join(f"{key} {_word(one)}" for key, one in own.items())
            if not plain_name(called) or called in made or called in entries:
                fix = "give each value once, and short names"
                raise UserError(f"{where}: {section}.{name}", f"is a grid with a member called {called!r}", fix)
            label = {"label": f"{value.get('label') or name}, {said}"} if section == "models" else {}
            made[called] = value | own | label
            members.setdefault(name, {})[called] = said
    return made, members


def _axes(section: str, value: Any) -> dict[str, list[Any]]:
    """The keys that take one value and were given a list, in the order in which they are written."""
    kind = _kind(section, value)
    if kind is None:
        return {}
    fields = kind.model_fields
    return {
        key: item for key, item in value.items()
        if isinstance(item, list) and item and key in fields and key != "kind" and not _listed(fields[key].annotation)
        and all(isinstance(one, str | int | float) for one in item)
    }  # fmt: skip


def _kind(section: str, value: Any) -> type[Recipe] | None:
    if not isinstance(value, dict):
        return None
    kinds, word = PARTS[section], value.get("kind")
    if len(kinds) == 1:
        return kinds[0]
    return next((kind for kind in kinds if word in get_args(kind.model_fields["kind"].annotation)), None)


def _listed(annotation: Any) -> bool:
    """Whether a key's own value may be a list."""
    return get_origin(annotation) in (tuple, list) or any(map(_listed, get_args(annotation)))


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _each(item: Any, models: Members, attacks: Members, key: str) -> Iterator[Any]:
    """A row, a column, or a model of a figure, as all that it names."""

    def of(name: Any) -> list[Any]:
        return list(models.get(name, [name])) if isinstance(name, str) else [name]

    match item:
        case str() if key == "columns" and item in attacks:
            yield from _each({"attack": item}, models, attacks, key)
        case str():
            yield from [item] if key == "columns" else of(item)
        case [source, target]:
            yield from ([a, b] for a in of(source) for b in of(target))
        case {"target": target}:
            for source, one in itertools.product(of(item.get("source")), of(target)):
                yield item | {"target": one} | ({"source": source} if source is not None else {})
        case {"attack": str(attack)}:
            only = item.get("only")
            column = item | ({"only": [one for name in only for one in of(name)]} if isinstance(only, list) else {})
            for name, said in attacks.get(attack, {attack: ""}).items():
                yield column | ({"attack": name, "label": f"{item.get('label') or attack}, {said}"} if said else {})
        case _:
            yield item

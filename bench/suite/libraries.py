"""Which libraries outside the core a suite's work needs, which are not here, and the line that installs them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from bench import UserError
from bench.recipes import Fetched, Peer, Recipe


class Library(NamedTuple):
    """A library, by its name on the index, and the extra of this package that brings it."""

    name: str
    extra: str


OF_ATTACK = {
    "torchattacks": Library("torchattacks", "peers"),
    "autoattack": Library("pyautoattack", "peers"),
    "foolbox": Library("foolbox", "foolbox"),
}
OF_WEIGHTS = {
    "autoattack-example": Library("pyautoattack", "peers"),
    "robustbench": Library("robustbench", "robustbench"),
    "timm": Library("timm", "timm"),
    "huggingface": Library("timm", "timm"),
}
ALWAYS = frozenset({"torch", "numpy"})


def needed(work: Iterable[Recipe]) -> list[Library]:
    """The libraries outside the core that recipes name, at any depth, each once, in a fixed order."""
    found: set[Library] = set()
    for recipe in _all(work):
        if isinstance(recipe, Peer) and recipe.kind in OF_ATTACK:
            found.add(OF_ATTACK[recipe.kind])
        if isinstance(recipe, Fetched) and recipe.kind in OF_WEIGHTS:
            found.add(OF_WEIGHTS[recipe.kind])
    return sorted(found)


def _all(work: Iterable[Recipe]) -> list[Recipe]:
    """Recipes and all that is nested in them, each once."""
    seen: dict[str, Recipe] = {}
    left = list(work)
    while left:
        recipe = left.pop()
        if recipe.key not in seen:
            seen[recipe.key] = recipe
            left += _parts(recipe)
    return list(seen.values())


def used(work: Iterable[Recipe]) -> frozenset[str]:
    """The names of all libraries that had a part in making it; torchvision where it gave the model."""
    listed = list(work)
    given = {one.kind for one in _all(listed) if isinstance(one, Fetched)} & {"torchvision"}
    return ALWAYS | given | {one.name for one in needed(listed)}


def lacking(work: Iterable[Recipe]) -> list[Library]:
    """Those that are not installed here; nothing is imported to find out.

    Asked by distribution: torchattacks' wheel brings an old module `robustbench` of its own.
    """
    return [one for one in needed(work) if not _installed(one.name)]


def _installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def words(lost: Iterable[Library]) -> tuple[str, str]:
    """What is missing, and the line that installs it."""
    found = list(lost)
    *most, last = (one.name for one in found)
    named = f"{', '.join(most)} and {last}" if most else last
    return f"{named} {'are' if most else 'is'} not installed here", install(one.extra for one in found)


def install(extras: Iterable[str]) -> str:
    """The line that adds extras to an installed package, however it was installed."""
    return f"pip install 'freshdraws[{','.join(sorted(set(extras)))}]'"


def refuse_lacking(where: str, work: Iterable[Recipe]) -> None:
    """UserError, naming all that is missing at once, before anything has begun."""
    if lost := lacking(work):
        what, line = words(lost)
        raise UserError(where, what, line)


def _parts(value: Any) -> Iterator[Recipe]:
    items = (getattr(value, name) for name in type(value).model_fields) if isinstance(value, Recipe) else value
    for item in items:
        if isinstance(item, Recipe):
            yield item
        elif isinstance(item, tuple | list):
            yield from _parts(item)

"""What is there, what is missing, and what it costs: the walk over the recipes, asking only the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bench import UserError
from bench.recipes import Clean, Examples, Fetched, Outcomes, Recipe, Work, inputs
from bench.store.records import Stale, Store
from bench.store.sealed import Record


class Plan(NamedTuple):
    """Missing work in an order in which it can be done, and the records that are there."""

    wanted: list[Work]
    order: list[Work]
    found: dict[str, Record]
    stale: list[Stale]
    fresh: frozenset[str] = frozenset()


def plan(wanted: Iterable[Work], store: Store, fresh: frozenset[str] = frozenset()) -> Plan:
    """Walk from the wanted recipes to what they are made from, stopping at what the store has.

    `fresh` names recipes (by key) whose records are to be made again.
    """
    asked = list(dict.fromkeys(wanted))
    order: dict[str, Work] = {}
    found: dict[str, Record] = {}
    stale: list[Stale] = []
    seen: set[str] = set()
    crafted: dict[str, Stale | None] = {}

    def visit(recipe: Work) -> None:
        if recipe.key in seen:
            return
        seen.add(recipe.key)
        record = None if recipe.key in fresh else store.find(recipe)
        if record is not None:
            found[recipe.key] = record
            if old := store.stale(recipe, record) or beneath(recipe):
                stale.append(old)
            return
        for source in inputs(recipe):
            visit(source)
        order[recipe.key] = recipe

    def beneath(recipe: Work) -> Stale | None:
        """Whether the examples that a record was judged on are stale themselves, if they are here."""
        for source in inputs(recipe):
            if isinstance(source, Examples) and source.key not in fresh:
                if source.key not in crafted:
                    record = store.find(source)
                    crafted[source.key] = store.stale(source, record) if record else None
                if old := crafted[source.key]:
                    return old
        return None

    for recipe in asked:
        visit(recipe)
    return Plan(asked, list(order.values()), found, stale, fresh)


def refuse_stale(stale: list[Stale], names: Mapping[str, str] | None = None) -> None:
    """UserError naming a stale record and what it was made from; nothing is changed. `names` as in `describe`."""
    if not stale:
        return
    first = stale[0]
    more = f" (and {len(stale) - 1} more)" if len(stale) > 1 else ""
    named = (names or {}).get(first.key)
    raise UserError(
        str(first.record.path),
        f"this record{more} is stale: it was made from {f'{named} ({first.key[:12]})' if named else first.key[:12]} "
        f"sealed {first.then[:12]}, but the one here is sealed {first.now[:12]}: it tells of weights or examples that "
        "are no longer these",
        "--fresh judges again from what is here; or put the former files back",
    )


def everything(wanted: Iterable[Work]) -> list[Work]:
    """The wanted recipes and all they are made from, each once, inputs first."""
    order: dict[str, Work] = {}

    def visit(recipe: Work) -> None:
        if recipe.key not in order:
            for source in inputs(recipe):
                visit(source)
            order[recipe.key] = recipe

    for recipe in wanted:
        visit(recipe)
    return list(order.values())


def _attack(attack: Recipe, names: dict[str, str]) -> str:
    eps = getattr(attack, "eps", None)
    kind = str(getattr(attack, "kind", ""))
    if eps is None or attack.key in names:
        return names.get(attack.key, kind)
    norm = getattr(attack, "norm", "Linf")
    return f"{kind} at {float(eps * 255):g}/255" if norm == "Linf" else f"{kind} at {norm} {float(eps):g}"


def describe(recipe: Recipe, names: dict[str, str]) -> str:
    """One line for people; `names` are the suite's names of attacks, weights and models, and its words for examples
    and outcomes, by key."""
    if isinstance(recipe, Examples | Outcomes) and (said := names.get(recipe.key)):
        return said
    match recipe:
        case Outcomes(examples=Examples(attack=Clean())):
            split = recipe.examples.data.split
            what = "clean images" if split == "test" else f"the images of {split}"
            return f"judge {names.get(recipe.target.key, recipe.target.key[:8])} on {what}"
        case Outcomes():
            step = "" if recipe.iterate is None else f", step {recipe.iterate}"
            attack = _attack(recipe.examples.attack, names)
            source = recipe.examples.source
            crafted = names.get(source.key, source.key[:8]) if source else "?"
            return f"judge {names.get(recipe.target.key, recipe.target.key[:8])} on {attack} of {crafted}{step}"
        case Examples(source=source):
            attack = _attack(recipe.attack, names)
            return f"craft {attack} on {names.get(source.key, source.key[:8]) if source else '?'}"
        case Fetched():
            return f"fetch {recipe.kind} {recipe.name}"
        case _:
            return f"train {names.get(recipe.key, recipe.key[:8])}"

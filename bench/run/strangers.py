"""Before work begins: do models of others still give what their records say, and how fast are they here?"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench import UserError
from bench.recipes import Distilled, Examples, Fetched, Model, Outcomes, Peer, Trained, Work, summary
from bench.run.session import Session
from bench.store.cost import Rates
from bench.store.plan import everything
from bench.store.sealed import Damaged
from bench.suite.code import sha256


def changed(session: Session, wanted: Iterable[Work]) -> list[Fetched]:
    """Models of the user's own code that give other numbers now than the records here were made with.

    Each is loaded, once in a session: what their code reads without declaring it no key knows of. UserError
    where one cannot be loaded any more.
    """
    found = []
    for recipe in everything(wanted):
        if not isinstance(recipe, Fetched) or recipe.kind != "python" or recipe.key in session.loaded:
            continue
        session.loaded.add(recipe.key)
        if session.store.find(recipe) is None:
            continue
        from bench.lab.weights.fetch import differs, load

        note, _ = load(recipe, session.settings.root, session.settings.download)
        if differs(recipe, note, session.settings.root) is not None:
            found.append(recipe)
    return found


def touched(session: Session, wanted: Iterable[Work]) -> list[str]:
    """Files that models' code reads without declaring them, and that have changed since; in words, nothing is run."""
    said = []
    for recipe in everything(wanted):
        record = session.store.find(recipe) if isinstance(recipe, Fetched) and recipe.kind == "python" else None
        if record is None or not isinstance(recipe, Fetched) or recipe.place is None:
            continue
        with contextlib.suppress(Damaged, KeyError, ValueError, AttributeError):
            for name, digest in json.loads(record.read("fetched.json"))["read"].items():
                if (Path(recipe.place) / name).is_file() and sha256(Path(recipe.place) / name) != digest:
                    model = session.names.get(recipe.key, recipe.name)
                    said.append(f"{name}, which {model} reads, has changed since: run will call its records stale")
    return said


def pace(session: Session, order: Iterable[Work], rates: Rates) -> None:
    """Time one pass wherever an estimate would rest on a guess: of each stranger's network, and of one of ours."""
    lab = None
    for recipe in order:
        model = recipe.source if isinstance(recipe, Examples) else getattr(recipe, "target", None)
        model = Model(weights=recipe) if isinstance(recipe, Trained | Distilled) else model
        if not isinstance(model, Model) or not rates.guesses(recipe):
            continue
        from bench.lab.speed.pace import of_model, of_network
        from bench.lab.worker import Lab

        lab = lab or Lab(session.settings)
        with contextlib.suppress(UserError):  # the work itself says it, when it is its turn
            if isinstance(recipe, Examples | Outcomes) and isinstance(model.weights, Fetched):
                data = recipe.data if isinstance(recipe, Examples) else recipe.examples.data
                rates.timed(model, of_model(lab, model, data))
            elif isinstance(model.weights, Trained | Distilled):
                rates.timed(model, of_network(lab, model.weights))
    rates.save()


def former(session: Session, order: Sequence[Work]) -> list[str]:
    """Of the user's code that `order` needs: what is recorded here under other code of the same name, in words."""
    own = [recipe for recipe in order if isinstance(recipe, Outcomes) and any(_codes(recipe))]
    if not own:
        return []
    asked = {_bare(summary(recipe)): dict(_codes(recipe)) for recipe in own}
    edited: dict[str, tuple[str, str]] = {}
    for path in sorted((session.settings.root / "results" / "records").glob("*/*/manifest.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            then = json.loads(path.read_text("utf-8"))["recipe"]
            now = asked.get(_bare(then))
            for name, code in _codes_of(then) if now else ():
                if now and now.get(name, code) != code:
                    edited[name] = (str(code), str(now[name]))
    return [
        f"{name} has been edited: what is recorded here is of its former code ({then[:8]}, now {now[:8]}), and this is "
        "another record"
        for name, (then, now) in sorted(edited.items())
    ]


def _codes(recipe: Outcomes) -> Iterable[tuple[str, str | None]]:
    parts: list[Any] = [recipe.target.weights, recipe.examples.attack]
    parts += [recipe.examples.source.weights] if recipe.examples.source else []
    for part in parts:
        if isinstance(part, Fetched | Peer) and part.kind == "python":
            yield part.name, part.code


def _codes_of(told: Any) -> Iterable[tuple[str, str | None]]:
    if isinstance(told, dict):
        if told.get("type") in ("Fetched", "Peer") and told.get("kind") == "python":
            yield told["name"], told.get("code")
        for value in told.values():
            yield from _codes_of(value)


def _bare(told: Any) -> str:
    """What a manifest says of a recipe, but for the code in it."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            own = value.get("type") in ("Fetched", "Peer")
            return {name: without(item) for name, item in value.items() if not (own and name == "code")}
        return [without(item) for item in value] if isinstance(value, list) else value

    return json.dumps(without(told), sort_keys=True)

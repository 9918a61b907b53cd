"""What `bench list` prints: a suite's models and attacks, the kinds of defences, the suites at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from bench import UserError, nearest
from bench.recipes import Clean, OfModel, Through
from bench.run.session import open_suite
from bench.store.tasks import Settings
from bench.suite.shipped import folders


def listing(what: str, path: Path, scale: str, root: Path) -> str:
    """The models or attacks of a suite, the kinds of defences, or the suites under root/suites, a line each."""
    if what == "suites":
        places = [root / "suites", *folders()]
        found = sorted(next((there for place in places if (there := list(place.glob("*.toml")))), []))
        return "\n".join(short(suite) for suite in found) or f"no suites in {root / 'suites'}"
    if what == "defences":
        return "\n".join(f"{kind:<18} {about}" for kind, about in defences())
    if what not in ("models", "attacks"):
        raise UserError("list", f"cannot list {what!r}", nearest(what, ["models", "attacks", "defences", "suites"]))
    session = open_suite(path, scale, None, Settings(root))
    if what == "models":
        return "\n".join(
            f"{name:<20} {'stochastic' if entry.model.stochastic else 'deterministic':<14} {entry.number:<9}"
            f" draws {entry.judged_draws:<4} {entry.label}".rstrip()
            for name, entry in session.suite.models.items()
        )
    return "\n".join(
        f"{name:<20} " + ("no attack" if isinstance(attack, Clean) else ", ".join(_facts(attack)))
        for name, attack in session.suite.attacks.items()
    )


def defences() -> list[tuple[str, str]]:
    """Every kind of defence with where it is declared and what it is, in a line."""
    places = {OfModel: "models", Through: "weights"}
    found = [(kind, place) for several, place in places.items() for kind in get_args(several)]
    return [
        (kind.model_fields["kind"].default, f"[{place}.x]  {' '.join((kind.__doc__ or '').split())}")
        for kind, place in found
    ]


def _facts(attack: Any) -> list[str]:
    defaults = type(attack).model_fields
    facts = [f"{attack.kind}"]
    for name in defaults:
        value = getattr(attack, name)
        if name != "kind" and (name in ("eps", "step", "steps", "name") or value != defaults[name].default):
            facts.append(f"{name} {value}")
    return facts


def short(path: Path) -> str:
    """The path from the working folder, where it is below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)

"""Attacks by the names that people use, as recipes."""

from __future__ import annotations

import hashlib
import inspect
import math
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any, Literal

from pydantic import ValidationError

from bench import UserError, nearest
from bench.recipes import PGD, Clean, Crafting, Peer, Square, Strong, Worst

Norm = Literal["Linf", "L2", "L1"]
NORMS: dict[str, Norm] = {"linf": "Linf", "l-inf": "Linf", "inf": "Linf", "l2": "L2", "l1": "L1"}
EOT = 20
"""Draws a gradient of a randomised model, where nothing else is said: those of AutoAttack's version "rand"."""
SLACK = Fraction(1, 10**7)  # below this a float is taken for the fraction it is close to
NAMES = ("standard", "strong", "fgsm", "pgd20", "pgd100-dlr", "square", "autoattack", "torchattacks.APGD")
STANDARD = ("strong", "pgd20")
"""What is to be reported: the attack that adapts, and beside it the one that most papers report."""


def norm_of(norm: Any) -> Norm:
    """The norm by any of its usual names, also float("inf"), 2 and 1; UserError for another."""
    text = {"inf": "linf", "2": "l2", "2.0": "l2", "1": "l1", "1.0": "l1"}.get(str(norm).lower(), str(norm).lower())
    if text not in NORMS:
        raise UserError("norm", f"{norm!r} is no norm that is known here", "use Linf, L2 or L1")
    return NORMS[text]


def eps_of(eps: Any) -> Fraction:
    """An eps as an exact fraction: a float that is a whole number of 255ths, or a short decimal, is that number."""
    if hasattr(eps, "item") and getattr(eps, "ndim", 1) == 0:
        eps = eps.item()  # a number of NumPy's or torch's
    if isinstance(eps, bool) or not isinstance(eps, int | float | str | Fraction):
        raise UserError("eps", f"{eps!r} is no number", 'write 8/255, "8/255" or a list of such')
    if isinstance(eps, float) and not math.isfinite(eps):
        raise UserError("eps", f"{eps} is no distance", 'write 8/255, "8/255" or a list of such')
    if isinstance(eps, float):
        near = Fraction(round(eps * 255 * 16), 255 * 16) if abs(eps) < 1e6 else Fraction(0)
        exact = near if abs(float(near) - eps) <= SLACK * max(1, abs(eps)) else None
        eps = exact if exact is not None else repr(eps)
    try:
        top, stroke, bottom = str(eps).partition("/")
        found = Fraction(top) / Fraction(bottom) if stroke else Fraction(top)
    except (ValueError, ZeroDivisionError):
        raise UserError("eps", f"{eps!r} is no number", 'write 8/255, "8/255" or a list of such') from None
    if found < 0:
        raise UserError("eps", f"{eps} is below 0", "eps is a distance")
    return found


def recipes_of(
    attacks: Any, eps: Fraction, norm: Norm, stochastic: bool, eot: int | Literal["auto"] = "auto"
) -> dict[str, Crafting]:
    """The attacks asked for, by name, at this eps; UserError for a name or a thing that is none.

    "standard" is "strong" and "pgd20".
    """
    draws = (EOT if stochastic else 1) if eot == "auto" else eot
    several = listed(attacks)
    found: dict[str, Crafting] = {}
    for one in several:
        try:
            made = [*_named(one, eps, norm, stochastic, draws)]
        except ValidationError as error:
            what = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
            raise UserError("attacks", f"{one!r}: {what}", 'eps is in units of the norm: 8/255 or "8/255"') from None
        for name, recipe in made:
            label, k = name, 2
            while label in found and found[label].key != recipe.key:
                label, k = f"{name} ({k})", k + 1
            found[label] = recipe
    return found


def listed(attacks: Any) -> list[Any]:
    """One attack or several as a list; a set in the order of its names."""
    if isinstance(attacks, set | frozenset):
        return sorted(attacks, key=str)
    alone = isinstance(attacks, str | bytes | Mapping) or hasattr(attacks, "key") or callable(attacks)
    return [attacks] if alone or not isinstance(attacks, Iterable) else list(attacks)


def reach(attack: Crafting) -> Fraction | None:
    """The eps of an attack, the largest of several; None where it has none."""
    if isinstance(attack, Worst):
        return max((far for one in attack.attacks if (far := reach(one)) is not None), default=None)
    return getattr(attack, "eps", None)


def _named(one: Any, eps: Fraction, norm: Norm, stochastic: bool, draws: int) -> Iterable[tuple[str, Crafting]]:
    if isinstance(one, str):
        if one == "standard":
            for name in STANDARD:
                yield name, by_name(name, eps, norm, stochastic, draws)
        elif one not in ("clean", "none"):
            yield one, by_name(one, eps, norm, stochastic, draws)
    elif isinstance(one, Clean):
        return
    elif hasattr(one, "key") and hasattr(one, "kind"):
        yield _label(one), scaled(one, eps) if eps is not None and _follows(one) else one
    elif callable(one):
        yield (
            getattr(one, "__name__", type(one).__name__).strip("<>"),
            Peer(kind="python", name=importable(one), eps=eps, norm=norm),
        )
    else:
        raise UserError("attacks", f"{one!r} is no attack", f"names such as {', '.join(NAMES)}; recipes; a function")


def by_name(name: str, eps: Fraction, norm: Norm, stochastic: bool, draws: int) -> Crafting:
    """One attack by its name: fgsm, pgd20, pgd100-dlr, square, strong, autoattack, library.Class."""
    if norm == "L1" and not ("." in name or name == "autoattack"):
        fix = 'in L1: "autoattack", or a library\'s class such as "foolbox.L1FastGradientAttack"'
        raise UserError("attacks", f"{name} works in L-inf and L2", fix)
    within: dict[str, Any] = {"eps": eps, "norm": norm, "eot": draws}
    if name == "fgsm":
        return PGD(**within, step=eps, steps=1, random_start=False)
    if match := re.fullmatch(r"pgd-?(\d+)(?:-(ce|margin|dlr))?", name):
        steps = int(match[1])
        # A step of eps / 4 for 20 steps and fewer; of more, the same way in all.
        return PGD(**within, step=min(eps / 4, 5 * eps / max(steps, 1)), steps=steps, loss=match[2] or "ce")  # type: ignore[arg-type]
    if match := re.fullmatch(r"square-?(\d*)", name):
        queries = int(match[1] or 1000)
        if norm == "Linf":
            return Square(eps=eps, queries=queries, draws=draws if stochastic else 1)
        part: dict[str, Any] = {"n_queries": queries, "n_restarts": 1}
        arguments = {"attacks": ["square"], "square": part}
        return Peer(kind="autoattack", name="custom", eps=eps, norm=norm, arguments=arguments)
    if name == "autoattack":
        return Peer(kind="autoattack", name="rand" if stochastic else "standard", eps=eps, norm=norm)
    library, dot, kind = name.partition(".")
    if dot and library in ("torchattacks", "foolbox", "autoattack"):
        return Peer(kind=library, name=kind, eps=eps, norm=norm)  # type: ignore[arg-type]
    if name == "strong":
        return Strong(eps=eps, norm=norm)  # type: ignore[arg-type]
    raise UserError("attacks", f"no attack is called {name!r}", nearest(name, NAMES))


def scaled(attack: Crafting, eps: Fraction) -> Crafting:
    """The attack at another eps, its step in proportion."""
    if not hasattr(attack, "eps") or attack.eps == eps:
        return attack
    changes: dict[str, Any] = {"eps": eps}
    if isinstance(attack, PGD) and attack.eps:
        changes["step"] = attack.step * eps / attack.eps
    return attack.model_copy(update=changes)


def _follows(attack: Any) -> bool:
    """Whether an attack takes the eps of the call: one that says its own keeps it."""
    return "eps" in type(attack).model_fields and "eps" not in attack.model_fields_set


def _label(attack: Any) -> str:
    match attack:
        case PGD():
            return f"pgd{attack.steps}" + ("" if attack.loss == "ce" else f"-{attack.loss}")
        case Peer():
            return f"{attack.kind}.{attack.name}"
        case _:
            return str(attack.kind)


def importable(attack: Callable[..., Any]) -> str:
    """A name under which a function of this program, ``attack(model, images, labels, eps) -> images``, can be met.

    Recipes name attacks; a function in memory gets a module of its own, named by its source and by what it holds.
    """
    from bench.lab.foreign.held import of_function

    try:
        text = inspect.getsource(attack if inspect.isroutine(attack) or inspect.isclass(attack) else type(attack))
    except (OSError, TypeError):
        text = f"{attack!r} {id(attack)}"
    told = repr((text, sorted(of_function(attack).items())))
    called = re.sub(r"\W", "", getattr(attack, "__name__", type(attack).__name__)) or "attack"
    name = f"{called}_{hashlib.sha256(told.encode()).hexdigest()[:16]}"
    module = types.ModuleType(name)
    module.Attack = lambda *given: attack(*given)  # type: ignore[attr-defined]
    module.__file__ = None
    sys.modules[name] = module
    return f"{name}:Attack"

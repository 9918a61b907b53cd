"""A suite's white-box numbers at the leaderboard's eps: what each attack may be called, and which leaves least."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from bench.recipes import PGD, Attack, Clean, Peer, Strong, Worst
from bench.report.access import access, other_arguments
from bench.suite.cells import Cell
from bench.votes.numbers import Number, among, rows
from bench.votes.votes import Votes

EPS = Fraction(8, 255)
AUTOATTACK = tuple(f"AutoAttack ({version})" for version in ("standard", "plus", "rand"))
FEWEST = 1000
"""Images below which a model has no place: at 40 % accuracy the interval of 1,000 reaches over a dozen places."""


class Lowest(NamedTuple):
    """The white-box attack that leaves least, with the clean accuracy on the same images."""

    attack: str
    robust: Number
    clean: Number


def shared_numbers(a: Votes, b: Votes, kind: str) -> tuple[Number, Number] | None:
    """Both numbers on the images that both records hold."""
    at = rows(a, b)
    first, second = (among(votes, kind, some) for votes, some in zip((a, b), at, strict=True))
    return (first, second) if isinstance(first, Number) and isinstance(second, Number) else None


def lowest_of(clean: Votes | None, attacked: list[tuple[Votes, str]], kind: str) -> Lowest | None:
    """Of the white-box attacks the one that leaves least, each on the images that it shares with the clean record.

    Those that share fewer than FEWEST images only count where there are no others.
    """
    if clean is None:
        return None
    pairs = [(shared, name) for votes, name in attacked if (shared := shared_numbers(votes, clean, kind)) is not None]
    enough = [pair for pair in pairs if pair[0][0].n >= FEWEST] or pairs
    if not enough:
        return None
    (robust, same), name = min(enough, key=lambda pair: (pair[0][0].value, -pair[0][0].n, pair[1]))
    return Lowest(name, robust, same)


def named(attack: Attack, column: str = "") -> str:
    """What an attack may be called: AutoAttack with other arguments than its version's is not AutoAttack's version."""
    match attack:
        case Peer(kind="autoattack") | Peer(kind="torchattacks", name="AutoAttack"):
            version = attack.name if attack.kind == "autoattack" else str(attack.arguments.get("version", "standard"))
            other = other_arguments(attack)
            said = ", ".join(f"{key} = {value}" for key, value in sorted(other.items()))
            return f"AutoAttack ({version})" if not other else f"an AutoAttack of other arguments ({version}, {said})"
        case PGD(steps=steps):
            return f"PGD-{steps}" if not column or column == f"pgd{steps}" else f"{column} (PGD-{steps})"
        case _:
            return column or attack.kind


def kind_of(cell: Cell) -> str | None:
    """Which number of a model a cell is, if it is white-box and at the leaderboard's eps."""
    data = cell.outcomes.examples.data
    if cell.source not in (None, cell.target) or (data.kind, data.split) != ("cifar10", "test"):
        return None
    attack: Attack = cell.outcomes.examples.attack
    match attack:
        case Clean():
            return "clean"
        case PGD(steps=10, norm="Linf", eps=eps) if eps == EPS:
            return "pgd"
        case Strong(norm="Linf", eps=eps) if eps == EPS:
            return "strong"
        case Peer(norm="Linf", eps=eps) if eps == EPS and named(attack) in AUTOATTACK:
            return "autoattack"
        case Peer(kind="autoattack", norm="Linf", name=name, eps=eps) if eps == EPS and name.endswith("as published"):
            return "published"
        case _:
            return None


def eps_of(cell: Cell) -> Fraction | None:
    """The L-inf eps of a white-box cell on test images; None for other cells."""
    examples = cell.outcomes.examples
    attack: Attack = examples.attack
    if not access(examples.source, cell.outcomes.target, attack).startswith(("white-box", "scores only")):
        return None
    several = attack.attacks if isinstance(attack, Worst) else (attack,)
    sizes = {(getattr(one, "norm", "Linf"), getattr(one, "eps", None)) for one in several}
    ((norm, eps),) = sizes if len(sizes) == 1 else {("", None)}
    there = (examples.data.kind, examples.data.split) == ("cifar10", "test")
    return eps if there and norm == "Linf" and isinstance(eps, Fraction) else None

"""Randomised defences by two protocols on the same weights: as they were published, and as they are judged here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

from bench import UserError
from bench.recipes import PGD, Clean, Examples, Fetched, Model, Outcomes, Peer, Worst
from bench.report.access import access
from bench.report.doubts import believed, shy
from bench.report.footnotes import label_of
from bench.report.published import Published, PublishedClaim, folder, read
from bench.report.white_box import FEWEST, eps_of, named
from bench.suite.cells import Cell, Suite
from bench.votes.intervals import Difference
from bench.votes.numbers import Number, fold
from bench.votes.paired import Term, interval, total
from bench.votes.votes import Votes

Lookup = Callable[[Outcomes], "Votes | None"]
OTHERS = ("frozen", "pseudo-eot", "own score")
BORROWED = ", as other defences were published"
THEIRS = "their network, their attack"
SAME = "their network, its weights judged here; their attack"


class Mark(NamedTuple):
    """A measured number, what made it in words, and the key of its record."""

    number: Number
    words: str
    key: str


class Told(NamedTuple):
    """What the paper says: a share in [0, 1], of which network under which attack, and whose weights they were."""

    value: float
    words: str
    whose: str


class Row(NamedTuple):
    """One defence on one set of weights.

    `published` is what the protocol leaves by which such defences were published; `ours` what the white-box attack
    leaves that leaves least; `gap` is published less ours in shares, paired over the `shared` images of both.
    """

    suite: str
    name: str
    places: tuple[str, ...]
    paper: str
    clean: Mark | None
    published: Mark | None
    ours: Mark
    gap: Difference | None
    shared: int
    told: Told | None
    eps: Fraction


def kind(model: Model) -> str:
    """The kind of a model's defence as claims name it; "" of a model without noise, or with one that nobody names."""
    weights = model.weights
    if model.defence is not None:
        return model.defence.kind
    if isinstance(weights, Fetched) and weights.kind == "slwta":
        return "slwta"
    through = getattr(weights, "defence", None)
    if through is not None:
        return str(through.kind)
    return "cni" if getattr(weights, "noise", None) is not None else "smoothing" if model.sigma > 0 else ""


def protocols(suite: Suite, lookup: Lookup, claims: Mapping[str, Published] | None = None) -> list[Row]:
    """A row for each randomised model of the suite that was attacked as here, the widest gap first.

    `claims` are the published ones (those at hand if None).
    """
    claims = published_claims() if claims is None else claims
    by_model: dict[str, list[tuple[Cell, Votes]]] = {}
    for cell in suite.cells():
        own = cell.source in (None, cell.target) and suite.models[cell.target].model.stochastic
        votes = lookup(cell.outcomes) if own else None
        if votes is not None:
            by_model.setdefault(cell.target, []).append((cell, votes))
    rows = [row for name, found in by_model.items() if (row := _row(suite, name, found, claims)) is not None]
    return sorted(rows, key=lambda row: (-(row.gap.value if row.gap else -1.0), row.name))


def published_claims() -> Mapping[str, Published]:
    """The claims at hand; none where there is no such folder."""
    try:
        return read(folder())
    except UserError:
        return {}


def _row(suite: Suite, name: str, found: list[tuple[Cell, Votes]], claims: Mapping[str, Published]) -> Row | None:
    entry = suite.models[name]
    paper = next((one for one in claims.values() if one.zoo and one.zoo == kind(entry.model)), None)
    told = _told(paper, entry.model) if paper else None
    attacked = [(cell, votes, eps) for cell, votes in found if (eps := eps_of(cell)) is not None]
    if not attacked:
        return None
    eps = max((one for _, _, one in attacked), key=[one for _, _, one in attacked].count)
    here = [(cell, votes) for cell, votes, one in attacked if one == eps]
    fair = [one for one in here if not _of_a_protocol(one[0]) and one[0].number != "claimed"]
    most = max((len(votes.labels) for _, votes in fair), default=0)
    numbers = [
        (number, cell, votes) for cell, votes in fair
        if isinstance(number := fold(votes, entry.number), Number) and 2 * number.n >= min(most, FEWEST)
    ]  # fmt: skip
    if not numbers:
        return None
    number, cell, votes = min(numbers, key=lambda one: (one[0].value, -one[0].n, one[1].attack))
    ours = Mark(number, words_of(suite, cell), cell.outcomes.key)
    theirs = _published(here, paper)
    gap, shared, mark = None, 0, None
    if theirs is not None:
        kind_of_it = "claimed" if theirs[0].number == "claimed" else entry.number
        value = believed(theirs[0].outcomes, theirs[1]) if kind_of_it == "claimed" else fold(theirs[1], kind_of_it)
        if isinstance(value, Number):
            own = _protocol(theirs[0]) in [_of_claim(claim) for claim in (paper.claims if paper else ())]
            words = words_of(suite, theirs[0]) + ("" if own else BORROWED)
            mark = Mark(value, words, theirs[0].outcomes.key)
            sum_ = total([Term(1.0, theirs[1], kind_of_it), Term(-1.0, votes, entry.number)])
            gap, shared = (interval(sum_), len(sum_.each)) if sum_ is not None else (None, 0)
    cleans = [(cell, votes) for cell, votes in found if isinstance(cell.outcomes.examples.attack, Clean)]
    clean = None
    if cleans:
        cell, votes = max(cleans, key=lambda one: len(one[1].labels))
        value = fold(votes, entry.number)
        clean = Mark(value, "clean", cell.outcomes.key) if isinstance(value, Number) else None
    places = paper.place if paper else ("input",) if kind(entry.model) == "smoothing" else ()
    venue = f"{paper.authors}, {paper.venue} {paper.year}" if paper else ""
    return Row(suite.name, label_of(suite, name), places, venue, clean, mark, ours, gap, shared, told, eps)


def _of_a_protocol(cell: Cell) -> bool:
    """Whether the attack is one of those that a defence was published with, and no more than that."""
    attack = cell.outcomes.examples.attack
    several = attack.attacks if isinstance(attack, Worst) else (attack,)
    return shy(cell.outcomes) or any(getattr(one, "draw", "moving") in ("frozen", "pseudo-eot") for one in several)


def _published(here: list[tuple[Cell, Votes]], paper: Published | None) -> tuple[Cell, Votes] | None:
    """The cell by whose protocol this defence was published; if the paper does not say, one of a published protocol."""
    there = {word: one for one in reversed(here) if (word := _protocol(one[0]))}
    wanted = [_of_claim(claim) for claim in paper.claims] if paper else []
    return next((there[word] for word in (*wanted, *OTHERS) if word in there), None)


def _protocol(cell: Cell) -> str:
    """Which published way of meeting the draws a cell repeats; "" if none."""
    attack = cell.outcomes.examples.attack
    if cell.number == "claimed":
        return "own score" if shy(cell.outcomes) else ""
    if not isinstance(attack, PGD):
        return ""
    return attack.draw if attack.draw != "moving" else "moving" if attack.eot == 1 else ""


def _of_claim(claim: PublishedClaim) -> str:
    if claim.draw != "moving":
        return claim.draw
    attack = claim.attack.lower()
    return "own score" if attack.startswith(("autoattack", "apgd")) else "moving" if attack.startswith("pgd") else ""


def _told(paper: Published, model: Model) -> Told | None:
    """The paper's claim on CIFAR-10 with a number that somebody here read; that of these weights first."""
    theirs = isinstance(model.weights, Fetched) and model.weights.kind == paper.zoo
    read_ = [one for one in paper.claims if isinstance(one.robust, float) and one.data == "cifar10" and one.eps]
    if not read_:
        return None
    strongest = min(read_, key=_first) if theirs else read_[0]
    assert isinstance(strongest.robust, float)
    words = f"{strongest.network}, {strongest.attack}, eps {strongest.eps}"
    return Told(strongest.robust / 100, words, SAME if theirs else THEIRS)


def _first(claim: PublishedClaim) -> float:
    return claim.robust if isinstance(claim.robust, float) else 101.0


def words_of(suite: Suite, cell: Cell) -> str:
    """What made a number: the attack and how it met the draws."""
    examples: Examples = cell.outcomes.examples
    column = suite.tables[cell.table].columns[cell.column] if cell.table in suite.tables else None
    called = (column.label if column and column.label else "") or named(examples.attack, cell.attack)
    if (
        isinstance(examples.attack, Peer)
        and examples.attack.kind == "autoattack"
        and "autoattack" not in called.lower()
    ):
        called = f"AutoAttack {examples.attack.name.split(',')[0]}, {called}"
    met = access(examples.source, cell.outcomes.target, examples.attack).removeprefix("white-box")
    inside = re.sub(r"\w+ = \{([^}]*)\}", lambda found: re.sub("['_:]", " ", found[1]), met).strip(" ()")
    inside = " ".join(inside.split()).replace("n iter", "steps").replace("eot iter", "EoT")
    said = f"{called} ({inside})" if inside and not _says(called, inside) else called
    return said + (", its own score" if cell.number == "claimed" and "own score" not in called else "")


def _says(called: str, inside: str) -> bool:
    return all(word in called.lower() for word in inside.lower().replace("one ", "").split())


def joined(rows: Iterable[Row]) -> list[Row]:
    """Rows of several suites as one board: those on their authors' weights first, then by the gap."""
    return sorted(
        rows, key=lambda row: (not (row.told and row.told.whose == SAME), -(row.gap.value if row.gap else -1))
    )

"""What makes a number doubtful: attacks that help, beliefs that fresh draws do not share, arithmetic, shy attacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.recipes import Clean, Outcomes, Peer, Recipe
from bench.suite.cells import Cell
from bench.votes.intervals import of_share
from bench.votes.numbers import Missing, Number, correct, fold, rows, values
from bench.votes.paired import difference
from bench.votes.sharing import estimate
from bench.votes.votes import Votes


def believed(outcomes: Outcomes, votes: Votes) -> Number | Missing:
    """What the attack believed that it left: of its own source, so no number of another target.

    A stochastic source's draws served all images of a shard, and no record says which images erred together then: the
    interval is from the spread between shards, and everything where there is one.
    """
    if outcomes.examples.source not in (None, outcomes.target):
        return Missing("what an attack believes is of its own source, not of another target")
    claimed, source = fold(votes, "claimed", (outcomes.key,)), outcomes.examples.source
    if isinstance(claimed, Missing) or source is None or not source.stochastic:
        return claimed
    part = values(votes, "claimed")._replace(draws=1)
    interval = of_share(estimate(part.each, [(1.0, part)]), claimed.n)
    return claimed._replace(low=interval.low, high=interval.high)


SHY = ("APGD", "APGDT", "FAB", "Square", "AutoAttack")  # of torchattacks


def shy(outcomes: Outcomes) -> bool:
    """Whether the attack leaves images of a stochastic source alone that one draw of it got right."""
    source, attack = outcomes.examples.source, outcomes.examples.attack
    if source is None or not source.stochastic or not isinstance(attack, Peer):
        return False
    published = attack.kind == "autoattack" and attack.name.endswith(", as published")
    return published or (attack.kind == "torchattacks" and attack.name in SHY)


def computed_in(outcomes: Outcomes, manifest: Mapping[str, Any] | None) -> set[str]:
    """What the outcomes and their examples were computed in: as declared, or what "auto" was there, shard by shard."""
    about = (manifest or {}).get("provenance", {})
    declared = {"precision": outcomes.precision}
    if outcomes.examples.source is not None:
        declared["crafting_precision"] = outcomes.examples.precision
    words = (str(about.get(name, word)) for name, word in declared.items())
    return {one for word in words for one in word.split(", ")}


def suspicions(
    cells: list[Cell], numbers: list[Number | Missing], votes: Mapping[Outcomes, Votes | None]
) -> Iterable[tuple[int, str]]:
    """Cells (by position) whose number should not be believed as it stands, and why.

    An attack that helps; a white-box attack that a transferred one beats (Pintor et al. 2022,
    indicator 5), both by a paired test; an attack whose own belief differs from fresh draws: where it believes by
    single draws it is held against the expected accuracy, and a vote's belief against the vote. What an attack
    believes is no accuracy, and is compared with no clean one.
    """
    alike: dict[tuple[Recipe, ...], list[Outcomes]] = {}  # by target, data and attack
    for outcomes in dict.fromkeys(cell.outcomes for cell in cells):
        examples = outcomes.examples
        alike.setdefault((outcomes.target, examples.data, examples.attack), []).append(outcomes)
    for i, (cell, number) in enumerate(zip(cells, numbers, strict=True)):
        mine = votes[cell.outcomes]
        if mine is None or isinstance(number, Missing) or cell.source is None:
            continue
        accuracy = cell.number != "claimed"
        model, data, attack = cell.outcomes.target, cell.outcomes.examples.data, cell.outcomes.examples.attack
        for other in alike.get((model, data, Clean()), ()):
            theirs = votes[other]
            if accuracy and theirs is not None and _above(mine, theirs, cell.number):
                yield i, "suspicious: the attack raises accuracy above the clean one"
        own = cell.outcomes.examples.source
        for other in alike[model, data, attack] if own is not None and own.weights == model.weights else ():
            theirs, source = votes[other], other.examples.source
            foreign = source is not None and own is not None and source.weights != own.weights
            if accuracy and theirs is not None and foreign and _above(mine, theirs, cell.number):
                yield i, "suspicious: the transferred attack is stronger, so this white-box one is too weak"
        voted = cell.outcomes.examples.claim > 1
        claimed = fold(mine, "claimed") if isinstance(believed(cell.outcomes, mine), Number) else None
        fresh = fold(mine, ("vote" if voted else "expected") if model.stochastic else "accuracy")
        if not isinstance(claimed, Number) or not isinstance(fresh, Number):
            continue
        if claimed.high < fresh.low or claimed.low > fresh.high:
            gap, each = 100 * (fresh.value - claimed.value), ", draw by draw" if model.stochastic and not voted else ""
            yield i, f"the attack believed {100 * claimed.value:.2f} %; fresh draws say {gap:+.2f} points{each}"


def _above(mine: Votes, theirs: Votes, kind: str) -> bool:
    a, b = rows(mine, theirs)
    here, there = correct(mine, kind)[a], correct(theirs, kind)[b]
    # Most are not above at all and need no test, whose library takes longer to load than tables to write.
    gap = difference(mine, theirs, kind) if here.sum() > there.sum() else None
    return gap is not None and gap.low > 0

"""Published claims as a table, each number with the interval of its own n, and what is wrong with how it was made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import product

from bench.report.published import Published, PublishedClaim, Unread, same_eps
from bench.votes.intervals import share

FEW = 1000
TEN_STEPS = (3, 3)
"""torchattacks' first version (October 2022) whose AutoAttack runs 10 steps instead of 100."""


def flags(published: Published) -> list[tuple[int, str]]:
    """What a reader must know of each claim (by its place), by the number of the fault that it shows.

    F1 one frozen draw; F3 copies that share a draw; F7 an attack of the network without its defence; F9 few images; F11
    an AutoAttack of ten steps; F15 more left by AutoAttack than by PGD at the same eps, the sign of an attack that
    returned clean images for what one draw withstood.
    """
    found = [(at, text) for at, claim in enumerate(published.claims) for text in _alone(claim)]
    for (i, strong), (_, weak) in product(enumerate(published.claims), repeat=2):
        if _is_autoattack(strong) and _is_pgd(weak) and _alike(strong, weak):
            text = _above(strong, weak)
            if text and (i, text) not in found:
                found.append((i, text))
    return sorted(found)


def _alone(claim: PublishedClaim) -> Iterator[str]:
    if claim.draw == "frozen":
        yield "F1: attacked with one draw, scored on another"
    if claim.draw == "pseudo-eot":
        yield "F3: the EoT's copies share one draw, so that they are one"
    if claim.draw == "none":
        yield "F7: the network without its defence was attacked"
    if claim.n != "unknown" and claim.n < FEW:
        yield f"F9: {claim.n} images"
    version = re.match(r"v?(\d+)\.(\d+)", claim.version)
    if claim.library == "torchattacks" and version and _is_autoattack(claim):
        late = (int(version[1]), int(version[2])) >= TEN_STEPS
        if late:
            yield f"F11: AutoAttack of torchattacks {claim.version} runs 10 steps"


def _above(strong: PublishedClaim, weak: PublishedClaim) -> str:
    one, other = strong.robust, weak.robust
    if isinstance(one, float) and isinstance(other, float):
        return f"F15: AutoAttack leaves {one:g}, above the {other:g} of {weak.attack} at the same eps" * (one > other)
    pairs = [(_told(one, "about"), _told(other, "about")), (_told(one, "gain"), _told(other, "gain"))]
    for a, b in pairs:
        if a is not None and b is not None and a > b:
            return f"F15, if what is told of it is so: AutoAttack above {weak.attack} at the same eps ({a:g} and {b:g})"
    return ""


def _told(number: float | Unread, key: str) -> float | None:
    if isinstance(number, Unread):
        value = getattr(number, key)
        return None if value is None else float(value)
    return number if key == "about" else None


def _is_autoattack(claim: PublishedClaim) -> bool:
    return claim.attack.lower().startswith(("autoattack", "apgd", "aa"))


def _is_pgd(claim: PublishedClaim) -> bool:
    return claim.attack.lower().startswith("pgd")


def _alike(one: PublishedClaim, other: PublishedClaim) -> bool:
    same = (one.data, one.network, one.norm) == (other.data, other.network, other.norm)
    return same and same_eps(_fraction(one.eps), _fraction(other.eps))


def _fraction(eps: Fraction | str | None) -> Fraction | None:
    return eps if isinstance(eps, Fraction) else None


def number(value: float | Unread, n: int | str) -> str:
    """A claimed number with the 95 % interval of its own n (Wilson), or a dash."""
    if isinstance(value, Unread):
        return "—"
    if not isinstance(n, int):
        return f"{value:g}"
    found = share(round(value * n / 100), n)
    return f"{value:g} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def markdown(found: Mapping[str, Published]) -> str:
    """All claims as a GitHub-flavoured table; under it why a dash is no number, what is flagged, and who found what."""
    from bench.report.render import gfm, letter

    heads = "| Defence | Noise in | Network | Clean | Robust | Attack | Flags | Draws | n | Read in |"
    lines, marks, reasons = [heads, "|---|---|---|---:|---:|---|---|---|---:|---|"], [], dict[str, str]()

    def cell(value: float | Unread, n: int | str) -> str:
        if not isinstance(value, Unread):
            return gfm(number(value, n))
        return f"— <sup>{reasons.setdefault(value.unread, letter(len(reasons)))}</sup>"

    for published in found.values():
        said: dict[int, list[str]] = {}
        for at, text in flags(published):
            said.setdefault(at, []).append(re.split("[:,]", text)[0])
            claim = published.claims[at]
            marks.append(f"- {gfm(f'{published.name} under {claim.attack}: {text}')}")
        for at, claim in enumerate(published.claims):
            images = f"{claim.n:,}" if isinstance(claim.n, int) else claim.n
            attack = claim.attack if claim.eps is None else f"{claim.attack}, eps {claim.eps}"
            front = (
                f"{published.name} ({published.venue} {published.year})",
                ", ".join(published.place),
                claim.network,
            )
            back = (attack, " ".join(said.get(at, ())), claim.draw, images, claim.evidence)
            both = (cell(claim.clean, claim.n), cell(claim.robust, claim.n))
            lines.append(f"| {' | '.join([*map(gfm, front), *both, *map(gfm, back)])} |")
        for one in published.rebuttals:
            left = one.robust.unread if isinstance(one.robust, Unread) else f"{one.robust:g} % left"
            marks.append(f"- {gfm(f'{published.name}: {one.by}, by {one.attack}: {left}')}")
    notes = [f"<sup>{mark}</sup> {gfm(reason)}  " for reason, mark in reasons.items()]
    return "\n".join([*lines, "", *notes, "", *marks]) + "\n"

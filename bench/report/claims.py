"""A paper's sentences as expressions over cells (bench/suite/expressions.py), tested on the images they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

from bench import UserError
from bench.recipes import Outcomes
from bench.suite.cells import Suite
from bench.suite.expressions import Comparison, parse, resolve
from bench.suite.schema import Claim
from bench.votes.intervals import holm, mcnemar
from bench.votes.numbers import Floats, Missing, fold
from bench.votes.paired import Term, interval, total
from bench.votes.votes import Votes

Lookup = Callable[[Outcomes], Votes | None]
POWER = 0.8
MANY = 1e8  # images that nobody has


class Part(NamedTuple):
    """One comparison tested: effect (left less right, as the claim wants it positive) with its interval, in shares.

    `p` is two-sided against no effect; `more` images would decide it with power 0.8 if it is as large
    as seen, None if no number would. `why` says what is missing.
    """

    text: str
    effect: float
    low: float
    high: float
    p: float
    n: int
    more: int | None
    why: str = ""


class Verdict(NamedTuple):
    """What the images say of a claim: `p` is the claim's own, `adjusted` Holm's over the suite's claims."""

    claim: Claim
    verdict: Literal["reproduced", "contradicted", "undecided"]
    p: float
    adjusted: float
    parts: tuple[Part, ...]

    @property
    def deciding(self) -> Part:
        """The part that the verdict hangs on."""
        return _deciding(self.parts)

    @property
    def more(self) -> int | None:
        """How many more images would decide it."""
        wanted = [part.more for part in self.parts if part.more is not None]
        return max(wanted) if self.verdict == "undecided" and wanted else None


def claims(suite: Suite, lookup: Lookup) -> list[Verdict]:
    """The verdict on each of the suite's claims; UserError for one that cannot be read.

    Reproduced: every comparison's effect has the claimed sign and the claim's p, corrected by Holm
    over the suite, is under 1 - claims_level. Contradicted: one has the other sign as clearly.
    """
    tested = []
    for claim in suite.claims:
        where = f"{suite.path}: claims.{claim.id}"
        tested.append(tuple(test(suite, part, lookup, where) for part in parse(claim.holds, where)))
    own = [_p(parts) for parts in tested]
    adjusted = [float(p) for p in holm(own)] if own else []
    return [
        Verdict(claim, _verdict(parts, level, 1 - suite.header.claims_level), p, level, parts)
        for claim, parts, p, level in zip(suite.claims, tested, own, adjusted, strict=True)
    ]


def _verdict(parts: tuple[Part, ...], p: float, alpha: float) -> Literal["reproduced", "contradicted", "undecided"]:
    if p >= alpha:
        return "undecided"
    return "reproduced" if all(part.effect > 0 for part in parts) else "contradicted"


def _p(parts: tuple[Part, ...]) -> float:
    """The claim's p: of a conjunction the weakest part (intersection-union, Berger 1982); of a
    contradiction the clearest of the parts with the wrong sign, Bonferroni over the parts."""
    if all(part.effect > 0 for part in parts):
        return max(part.p for part in parts)
    return min(1.0, len(parts) * min((part.p for part in parts if part.effect < 0), default=1.0))


def _deciding(parts: tuple[Part, ...]) -> Part:
    against = [part for part in parts if not part.effect > 0 and not part.why]
    return min(against, key=lambda part: part.p) if against else max(parts, key=lambda part: part.p)


# -- one comparison ----------------------------------------------------------------------------


def test(suite: Suite, comparison: Comparison, lookup: Lookup, where: str) -> Part:
    """A paired test over the images that all its cells share.

    Student's t of the images' sums, with what draws that a shard's images share add to their variance
    (bench/votes/paired.py). Two cells of deterministic models, and no constant: McNemar's exact test.
    `more` images are at the level that remains for each of the suite's claims.
    """
    text, level = comparison.text, suite.header.claims_level
    found: list[tuple[float, Votes, str]] = []
    datasets = set()
    for factor, reference in comparison.terms:
        outcomes, kind = resolve(suite, reference, where)
        datasets.add((outcomes.examples.data.kind, outcomes.examples.data.split))
        votes = lookup(outcomes)
        if votes is None:
            return Part(text, 0.0, -1.0, 1.0, 1.0, 0, None, f"no record of {reference.text}")
        if isinstance(number := fold(votes, kind), Missing):
            return Part(text, 0.0, -1.0, 1.0, 1.0, 0, None, f"{reference.text}: {number.reason}")
        found.append((factor, votes, kind))
    if not found or len(datasets) > 1:
        why = "its cells are over different images" if found else "it compares no cell"
        raise UserError(where, why, "compare cells of one dataset")
    sum_ = total([Term(*one) for one in found], comparison.constant)
    if sum_ is None:
        return Part(text, 0.0, -1.0, 1.0, 1.0, 0, None, "its cells share fewer than two images")
    effect = round(float(sum_.each.mean()), 12)  # what sums of decimals leave over is no effect
    low, high, p = interval(sum_, level)[1:]
    labels = {kind for _, _, kind in found} == {"accuracy"} and comparison.constant == 0
    if labels and sorted(factor for factor, _, _ in found) == [-1.0, 1.0]:
        p = mcnemar(sum_.each > 0, sum_.each < 0).difference.p
    more = more_images(sum_.each, sum_.shared, 1 - (1 - level) / max(1, len(suite.claims)))
    return Part(text, effect, low, high, float(p), len(sum_.each), more)


def more_images(each: Floats, shared: float, level: float) -> int | None:
    """How many more images would decide the sign with power 0.8 if the effect is as seen; None if none would.

    n = ((z_a + z_power) sd / effect)^2 (Cohen 1988), the variance of shared draws falling as shards are added.
    """
    mean, n = abs(float(each.mean())), len(each)
    spread = float(each.var(ddof=1)) + shared * n
    z = NormalDist().inv_cdf((1 + level) / 2) + NormalDist().inv_cdf(POWER)
    wanted = spread * (z / max(mean, 1e-12)) ** 2
    return max(1, int(np.ceil(wanted)) - n) if 0 < wanted < MANY else None


# -- words -------------------------------------------------------------------------------------


def sentence(verdict: Verdict) -> str:
    """The verdict with its effect, interval, p, and what would decide it."""
    part = verdict.deciding
    if part.why:
        return f"{verdict.verdict}: {part.why}"
    said = (
        f"{verdict.verdict}: {100 * part.effect:+.2f} points [{100 * part.low:+.2f}, {100 * part.high:+.2f}] "
        f"over {part.n:,} images, p {probability(verdict.p)}, after Holm {probability(verdict.adjusted)}"
    )
    return said + (f"; about {verdict.more:,} more images would decide" if verdict.more else "")


def probability(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"= {p:.4f}"


def markdown(verdicts: Sequence[Verdict]) -> str:
    """The claims as a GitHub-flavoured table."""
    from bench.report.render import gfm

    heads = ("Claim", "Verdict", "Effect, points", "Interval", "p (Holm)", "Images", "What decides")
    lines = [f"| {' | '.join(heads)} |", "|---|---|---:|---|---:|---:|---|"]
    for verdict in verdicts:
        part = verdict.deciding
        effect = "—" if part.why else f"{100 * part.effect:+.2f}"
        between = "—" if part.why else f"{100 * part.low:+.2f} to {100 * part.high:+.2f}"
        more = part.why or (f"about {verdict.more:,} more images" if verdict.more else part.text)
        words = (f"{verdict.claim.id}: {verdict.claim.text}", verdict.verdict, effect, between)
        row = [*map(gfm, words), gfm(probability(verdict.adjusted).removeprefix("= ")), f"{part.n:,}", gfm(more)]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"

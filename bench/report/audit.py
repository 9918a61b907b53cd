"""Is a record what it says? Make some of its images again here, and compare image by image.

Where processor, torch and threads are the record's, every bit is to be had again and nothing may differ. Elsewhere
images differ from their record about as often as between two arithmetics of this machine, unless somebody
changed one: that is tested, with an error level over the whole suite. The rows are drawn when the audit
begins, so that nobody could leave out those that it will look at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bench import UserError
from bench.recipes import Clean, Outcomes
from bench.report import compare
from bench.report.contradictions import contradiction
from bench.report.sampling import POINTS, Sample, caught, sample
from bench.suite.cells import Suite
from bench.votes.intervals import holm
from bench.votes.votes import Votes

Lookup = Callable[[Outcomes], Votes | None]
About = Callable[[Outcomes], Mapping[str, Any] | None]
"""The manifest of a recipe's record."""

ALPHA = 1e-3  # chance that an honest suite has any cell called inconsistent

Judgement = Literal["consistent", "inconsistent", "cannot be checked here"]
ROWS = ("index", "labels", "counts", "probs", "soft", "prefix", "settled", "linf", "claimed", "shard")


class Again(Protocol):
    """What makes votes again; `record` is the provenance in a record's manifest. UserError if it cannot be done."""

    def mode(self, outcomes: Outcomes, record: Mapping[str, Any]) -> str:
        """How near: "as recorded", to the bit; "other arithmetic", with the same noise and starts; "other draws"."""

    def originals(self, outcomes: Outcomes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index and label of all the record's images, from the data."""

    def votes(self, outcomes: Outcomes, chosen: NDArray[np.int64], record: Mapping[str, Any], other: str = "") -> Votes:
        """The votes on these rows; `other` is "arithmetic" or "draws" for a second time, made otherwise."""

    def whole(self, outcomes: Outcomes, numbers: Sequence[int], record: Mapping[str, Any]) -> Votes:
        """The votes on whole shards, each exactly as a run makes it."""


class AuditRow(NamedTuple):
    """What the audit says of one record.

    `p` is None where nothing was left to chance. `power`: the chance that a change of POINTS percentage points
    would have been seen, wherever in the record it was made.
    """

    cells: tuple[str, ...]
    key: str
    verdict: Judgement
    images: int
    p: float | None
    detail: str
    mode: str = ""
    power: tuple[float, ...] = ()


class Compared(NamedTuple):
    """One record compared: a reason that settles it, or a p-value still to be read with the others'.

    `least`: how many of the images made again must have been changed to be seen.
    """

    plan: Sample
    mode: str
    p: float | None
    broken: str = ""
    detail: str = ""
    least: int = 1


def verify(
    suite: Suite,
    lookup: Lookup,
    about: About,
    again: Again,
    images: int | None = 64,
    *,
    seed: int,
    alpha: float = ALPHA,
) -> list[AuditRow]:
    """Audit every recorded cell of the suite on `images` random images each (None: on all).

    P(any honest record is called inconsistent by chance) <= alpha (Holm over the records).
    """
    names: dict[Outcomes, list[str]] = {}
    for cell in suite.cells():
        arrow = f"{cell.source} -> {cell.target}" if cell.source not in (None, cell.target) else cell.target
        names.setdefault(cell.outcomes, []).append(f"{cell.table}[{arrow}, {cell.attack}]")
    found: dict[Outcomes, Compared | str] = {}
    for outcomes in names:
        votes, manifest = lookup(outcomes), about(outcomes)
        if votes is None or manifest is None:
            found[outcomes] = "no whole record is there"
            continue
        try:
            plan, record = sample(outcomes, len(votes.labels), images, seed), manifest.get("provenance", {})
            if isinstance(record, Mapping):
                found[outcomes] = examine(outcomes, votes, record, again, plan, alpha / len(names))
            else:
                found[outcomes] = Compared(plan, "", None, "its manifest does not say how it was made")
        except UserError as error:
            found[outcomes] = str(error)
    tested = [one for one, what in found.items() if isinstance(what, Compared) and what.p is not None]
    levels = holm([p for one in tested if isinstance(what := found[one], Compared) and (p := what.p) is not None])
    adjusted = dict(zip(tested, levels.tolist(), strict=True))
    return [
        row(outcomes, tuple(dict.fromkeys(names[outcomes])), what, adjusted.get(outcomes), alpha)
        for outcomes, what in found.items()
    ]


def row(
    outcomes: Outcomes, cells: tuple[str, ...], what: Compared | str, adjusted: float | None, alpha: float
) -> AuditRow:
    """The verdict on one record, its p corrected for the others."""
    if isinstance(what, str):
        return AuditRow(cells, outcomes.key, "cannot be checked here", 0, None, what)
    n = len(what.plan.rows)
    if what.broken:
        return AuditRow(cells, outcomes.key, "inconsistent", n, None, what.broken, what.mode)
    verdict: Judgement = "inconsistent" if adjusted is not None and adjusted < alpha else "consistent"
    changed = [max(1, round(points / 100 * what.plan.images)) for points in POINTS]
    power = tuple(caught(what.plan, few, what.least) for few in changed)
    return AuditRow(cells, outcomes.key, verdict, n, adjusted, what.detail, what.mode, power)


def examine(
    outcomes: Outcomes, votes: Votes, record: Mapping[str, Any], again: Again, plan: Sample, level: float = ALPHA
) -> Compared:
    """Compare the plan's rows of a record with what is made here; all its labels and indices with the data.

    `level` is that at which its p will be read, for the power that is told.
    """
    if said := contradiction(outcomes, votes):
        return Compared(plan, "", None, said)
    index, labels = again.originals(outcomes)
    if (index != votes.index).any() or (labels != votes.labels).any():
        return Compared(plan, "", None, "its images or labels are not those of the dataset")
    mode = again.mode(outcomes, record)
    if mode == "as recorded":
        return _exactly(outcomes, votes, record, again, plan)
    here = again.votes(outcomes, plan.rows, record)
    other = again.votes(outcomes, plan.rows, record, mode.removeprefix("other "))
    part, n = of(votes, plan.rows), len(plan.rows)
    differing, yardstick = (compare.grossly(one, here) for one in (part, other))
    counts = {name: (int(differ.sum()), int(yardstick[name].sum())) for name, differ in differing.items()}
    detail = f"{n - counts['vote'][0]} of {n} votes equal, {n - counts['vote'][1]} between two {mode.split()[1]} here"
    same = mode == "other arithmetic"  # of noise and starts: then no draw has a reason of its own to say otherwise
    if same and isinstance(outcomes.examples.attack, Clean):
        float32 = record.get("precision") == "float32" and not record.get("tf32")
        unlike = int(compare.impossible(part, here, other, float32).sum())
        if unlike:
            return Compared(plan, mode, None, f"{unlike} of {n} images differ by more than arithmetic can")
        if here.drawn.max() == 1 and float32:
            return Compared(plan, mode, None, "", detail)
    if same and here.drawn.max() > 1:
        counts["single draws"] = (int(compare.redrawn(part, here).sum()), int(compare.redrawn(other, here).sum()))
    tests = {name: compare.excess(k, yard, n) for name, (k, yard) in counts.items()}
    tests |= compare.sums(outcomes, part, here)
    worst = min(tests, key=lambda name: tests[name])
    if worst in counts and tests[worst] < level:
        detail += f"; {worst}: {counts[worst][0]} differ from the record, {counts[worst][1]} here"
    yard, each = counts["vote"][1], level / len(tests)
    least = min(compare.needed(yard, n, each), compare.needed_to_raise(yard, n, each))
    return Compared(plan, mode, min(1.0, len(tests) * tests[worst]), "", detail, least)


def _exactly(outcomes: Outcomes, votes: Votes, record: Mapping[str, Any], again: Again, plan: Sample) -> Compared:
    """The same bits are to be had: whatever differs is made again with all of its shard, as it was recorded."""
    n, shards = len(plan.rows), np.unique(votes.shard)
    if n < len(votes.labels):
        differing = compare.exactly(of(votes, plan.rows), again.votes(outcomes, plan.rows, record))
        shards = np.unique(votes.shard[plan.rows[np.any([*differing.values()], axis=0)]])
    if len(shards):  # a few rows of a batch may differ from themselves among all the others, in their last bits
        rows = np.flatnonzero(np.isin(votes.shard, shards))
        there, here = of(votes, rows), again.whole(outcomes, shards.tolist(), record)
        differing = compare.exactly(there, here)
        wrong = {name: int(differ.sum()) for name, differ in differing.items() if differ.any()}
        if wrong or (votes.draw_right[shards] != here.draw_right).any():
            said = ", ".join(f"{name} of {many}" for name, many in wrong.items()) or "the right answers of the draws"
            text = f"of {len(rows)} images made again exactly as recorded differ: {said}"
            return Compared(plan, "as recorded", None, text)
    return Compared(plan, "as recorded", None, "", f"{n} of {n} equal: counts, soft winner, claim, distance")


def of(votes: Votes, rows: NDArray[np.int64]) -> Votes:
    """These rows of a record. Its draws' right answers stay those of all rows."""
    winners = None if votes.winners is None else votes.winners[rows]
    return replace(votes, **{name: getattr(votes, name)[rows] for name in ROWS}, winners=winners)


def markdown(audited: Sequence[AuditRow]) -> str:
    """The audit as a GitHub-flavoured table."""
    from bench.report.render import gfm

    points = ", ".join(map(str, POINTS))
    lines = [
        f"| Cells | Record | Verdict | Compared | Images | p (Holm) | {points} points seen, % | Detail |",
        "|---|---|---|---|---:|---:|---:|---|",
    ]
    for one in audited:
        p = "—" if one.p is None else f"{one.p:.4f}"
        power = ", ".join(f"{100 * chance:.0f}" for chance in one.power) or "—"
        said = (", ".join(one.cells), one.key[:12], one.verdict, one.mode or "—", str(one.images), p, power, one.detail)
        lines.append(f"| {' | '.join(map(gfm, said))} |")
    return "\n".join(lines) + "\n"

"""Every number of every stochastic target, each under its own name, so that none is taken for another."""

from __future__ import annotations

from collections.abc import Callable

from bench.recipes import Outcomes
from bench.report.doubts import believed
from bench.report.render import gfm, interval, letter
from bench.suite.cells import Suite
from bench.votes import numbers as folds
from bench.votes.numbers import Bounds, Missing, Number
from bench.votes.votes import Votes

TIMES = (2, 8)  # how often an attacker may send one image again
HEAD = (
    "Target", "Examples", "Expected", "Vote", "Soft", "Infinite vote", "Undecided",
    *(f"Right {times} times in a row" for times in TIMES), "Claimed, one draw", "Draws", "Extra draws",
    "Open at the cap", "Ties",
)  # fmt: skip


def numbers(suite: Suite, lookup: Callable[[Outcomes], Votes | None]) -> str:
    """A GitHub-flavoured table of the suite's recorded cells whose target is stochastic; "" if there are none.

    Expected: mean probability of being right in one draw. Vote, Soft: of all draws made. Infinite vote: an
    interval, the undecided included at its upper end. Claimed: what the attack left of its own source, by single
    draws: beside Expected. Extra draws: those made for the infinite vote alone. Open at the cap: images whose vote
    only the last draw settled. A dash has a letter, and below the table its reason.
    """
    lines, seen, reasons = [], set(), list[str]()

    def shown(number: Number | Missing | Bounds) -> str:
        match number:
            case Number():
                return f"{100 * number.value:.2f} {interval(number)}"
            case Bounds():
                return f"{100 * number.low:.2f} to {100 * number.high:.2f}"
        if number.reason not in reasons:
            reasons.append(number.reason)
        return f"\N{EM DASH} <sup>{letter(reasons.index(number.reason))}</sup>"

    for cell in suite.cells():
        votes = lookup(cell.outcomes)
        if votes is None or not cell.outcomes.target.stochastic or cell.outcomes in seen:
            continue
        seen.add(cell.outcomes)
        bounds = folds.infinite(votes)
        crafted = cell.attack if cell.source in (None, cell.target) else f"{cell.attack} on {cell.source}"
        drawn, stopped = votes.drawn, bool(votes.rule)
        row = [
            gfm(cell.target),
            gfm(f"{crafted}, {len(votes.labels)} images"),
            *(shown(folds.fold(votes, kind)) for kind in ("expected", "vote", "soft")),
            shown(bounds),
            f"{100 * folds.undecided(votes):.2f}",
            *(shown(folds.resubmission(votes, times)) for times in TIMES),
            shown(believed(cell.outcomes, votes)) if cell.source else "",
            f"{drawn.mean():.1f}",
            f"{(drawn - votes.settled).mean():.1f}",
            f"{100 * (votes.settled == cell.outcomes.draws).mean():.1f} of {cell.outcomes.draws}" if stopped
            else shown(Missing("all draws were made: no rule ended them")),
            str(folds.tied(votes)),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(row)} |")
    if not lines:
        return ""
    rule = ["---", "---", *(["---:"] * (len(HEAD) - 2))]
    words = (
        "Accuracies in percent [their 95 % intervals]; draws are means an image; extra draws are those "
        "that the vote of infinitely many asked for beyond the stopping rule."
    )
    legend = [f"<sup>{letter(i)}</sup> {gfm(reason)}" for i, reason in enumerate(reasons)]
    said = ["", "<br>\n".join(legend)] if legend else []
    return "\n".join([f"| {' | '.join(HEAD)} |", f"| {' | '.join(rule)} |", *lines, *said, "", words]) + "\n"

"""Every number of every stochastic target, each under its own name, so that none is taken for another."""

from __future__ import annotations

from collections.abc import Callable

from bench.recipes import Outcomes
from bench.report.render import gfm
from bench.suite.cells import Suite
from bench.votes import numbers as folds
from bench.votes.numbers import Missing, Number
from bench.votes.votes import Votes

TIMES = (2, 8)  # how often an attacker may send one image again
HEAD = (
    "Target", "Examples", "Expected", "Vote", "Soft", "Infinite vote", "Undecided",
    *(f"Right {times} times in a row" for times in TIMES), "Claimed", "Draws", "Open at the cap", "Ties",
)  # fmt: skip


def numbers(suite: Suite, lookup: Callable[[Outcomes], Votes | None]) -> str:
    """A GitHub-flavoured table of the suite's recorded cells whose target is stochastic; "" if there are none.

    Expected: mean probability of being right in one draw. Vote, Soft: of all draws made. Infinite vote: an
    interval, the undecided included at its upper end. Claimed: what the attack left, by its own belief.
    """
    lines, seen = [], set()
    for cell in suite.cells():
        votes = lookup(cell.outcomes)
        if votes is None or not cell.outcomes.target.stochastic or cell.outcomes in seen:
            continue
        seen.add(cell.outcomes)
        bounds = folds.infinite(votes)
        crafted = cell.attack if cell.source in (None, cell.target) else f"{cell.attack} on {cell.source}"
        row = [
            gfm(cell.target),
            gfm(f"{crafted}, {len(votes.labels)} images"),
            *(_shown(folds.fold(votes, kind)) for kind in ("expected", "vote", "soft")),
            f"{100 * bounds.low:.2f} to {100 * bounds.high:.2f}",
            f"{100 * bounds.undecided:.2f}",
            *(_shown(folds.resubmission(votes, times)) for times in TIMES),
            _shown(folds.fold(votes, "claimed")) if cell.source else "",
            f"{votes.drawn.mean():.1f}",
            f"{100 * (votes.drawn == cell.outcomes.draws).mean():.1f} of {cell.outcomes.draws}",
            str(folds.tied(votes)),
        ]
        lines.append(f"| {' | '.join(row)} |")
    if not lines:
        return ""
    rule = ["---", "---", *(["---:"] * (len(HEAD) - 2))]
    words = (
        "Accuracies in percent ± the longer arm of the 95 % interval; draws are means an image; "
        "\N{EM DASH}: too few draws, or no belief recorded."
    )
    return "\n".join([f"| {' | '.join(HEAD)} |", f"| {' | '.join(rule)} |", *lines, "", words]) + "\n"


def _shown(number: Number | Missing) -> str:
    if isinstance(number, Missing):
        return "\N{EM DASH}"
    return f"{100 * number.value:.2f} ± {100 * number.half:.2f}"

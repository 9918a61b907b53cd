"""Is a record what it says? Recompute some of its images here and compare.

A deterministic target on clean images must give the same predictions, but for images whose two
best classes are closer than the arithmetic of two machines can tell apart. Where chance has a part
(noise draws, or an attack's random starts made anew on another device), record and recomputation
are two samples of one distribution unless somebody changed one: that is tested, with an error
level over the whole suite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy  # scipy.special is loaded when it is first needed
from numpy.typing import NDArray

from bench import UserError
from bench.recipes import CTRW, RNA, RPF, WCA, Clean, Fetched, Mixture, Model, Outcomes, RandomPrecision, Trained

from bench.recipes import Worst  # isort: skip
from bench.suite.cells import Suite
from bench.votes.intervals import drift, holm, mcnemar
from bench.votes.numbers import correct, predicted
from bench.votes.votes import Votes, check

Lookup = Callable[[Outcomes], Votes | None]
Recompute = Callable[[Outcomes, NDArray[np.int64]], Votes]
"""The votes, made here, of these rows of a recipe's images (ascending), in that order.

UserError if that is impossible here. Draws need not be the record's own: another seed makes the
two independent, the same seed on a like machine makes them equal, and both are tested rightly.
"""

ALPHA = 1e-3  # chance that an honest suite has any cell called inconsistent
TOLERANCE = {"float32": 0.02, "bfloat16": 0.1, "auto": 0.1}  # of a probability, between devices
SLACK = 1e-6  # of a distance

Judgement = Literal["consistent", "inconsistent", "cannot be checked here"]


class AuditRow(NamedTuple):
    """What the audit says of one record. `p` is None where nothing was left to chance."""

    cells: tuple[str, ...]
    key: str
    verdict: Judgement
    images: int
    p: float | None
    detail: str


class Finding(NamedTuple):
    """One record compared: a reason that settles it, or a p-value still to be read with the others'."""

    images: int
    p: float | None
    broken: str = ""
    detail: str = ""


def verify(
    suite: Suite, lookup: Lookup, recompute: Recompute, images: int | None = 64, seed: int = 0, alpha: float = ALPHA
) -> list[AuditRow]:
    """Audit every recorded cell of the suite on `images` random images each (None: on all).

    P(any honest record is called inconsistent by chance) <= alpha (Holm over the records).
    """
    names: dict[Outcomes, list[str]] = {}
    for cell in suite.cells():
        arrow = f"{cell.source} -> {cell.target}" if cell.source not in (None, cell.target) else cell.target
        names.setdefault(cell.outcomes, []).append(f"{cell.table}[{arrow}, {cell.attack}]")
    found: dict[Outcomes, Finding | str] = {}
    for outcomes in names:
        votes = lookup(outcomes)
        if votes is None:
            found[outcomes] = "no whole record is there"
            continue
        try:
            found[outcomes] = examine(outcomes, votes, recompute, sample(outcomes, votes, images, seed))
        except UserError as error:
            found[outcomes] = str(error)
    tested = [one for one, what in found.items() if isinstance(what, Finding) and what.p is not None]
    levels = holm([p for one in tested if isinstance(what := found[one], Finding) and (p := what.p) is not None])
    adjusted = dict(zip(tested, levels.tolist(), strict=True))
    return [
        row(outcomes, tuple(dict.fromkeys(names[outcomes])), what, adjusted.get(outcomes), alpha)
        for outcomes, what in found.items()
    ]


def row(
    outcomes: Outcomes, cells: tuple[str, ...], what: Finding | str, adjusted: float | None, alpha: float
) -> AuditRow:
    """The verdict on one record, its p corrected for the others."""
    if isinstance(what, str):
        return AuditRow(cells, outcomes.key, "cannot be checked here", 0, None, what)
    if what.broken:
        return AuditRow(cells, outcomes.key, "inconsistent", what.images, None, what.broken)
    verdict: Judgement = "inconsistent" if adjusted is not None and adjusted < alpha else "consistent"
    return AuditRow(cells, outcomes.key, verdict, what.images, adjusted, what.detail)


def sample(outcomes: Outcomes, votes: Votes, images: int | None, seed: int) -> NDArray[np.int64]:
    """Rows of the record chosen by the auditor's seed, ascending."""
    n = len(votes.labels)
    if images is None or images >= n:
        return np.arange(n, dtype=np.int64)
    rng = np.random.default_rng([seed, int(outcomes.key[:15], 16)])
    return np.sort(rng.choice(n, images, replace=False)).astype(np.int64)


def examine(outcomes: Outcomes, votes: Votes, recompute: Recompute, rows: NDArray[np.int64]) -> Finding:
    """Compare the chosen rows of a record with what is computed here."""
    n = len(rows)
    try:
        check(votes)
    except ValueError as error:
        return Finding(n, None, f"the record contradicts itself: {error}")
    attack = outcomes.examples.attack
    eps = (
        max((float(one.eps) for one in attack.attacks), default=0.0)
        if isinstance(attack, Worst)
        else (0.0 if isinstance(attack, Clean) else float(attack.eps))
    )
    if getattr(attack, "norm", "Linf") == "Linf" and votes.linf.max() > eps + SLACK:
        return Finding(n, None, f"an image lies {votes.linf.max():.6f} from its original, eps is {eps:.6f}")
    here = recompute(outcomes, rows)
    if (here.index != votes.index[rows]).any() or (here.labels != votes.labels[rows]).any():
        return Finding(n, None, "its images or labels are not those of the dataset")
    if outcomes.target.stochastic:
        return _by_chance(outcomes, votes, here, rows)
    differing, unlike = differences(votes, here, rows, TOLERANCE[outcomes.precision])
    same = f"{n - differing} of {n} predictions equal"
    if isinstance(attack, Clean):
        if unlike:
            return Finding(n, None, f"{unlike} of {n} images differ by more than {TOLERANCE[outcomes.precision]:g}")
        return Finding(n, None, "", same)
    if not unlike:
        return Finding(n, 1.0, "", same)
    a, b = correct(votes, "accuracy")[rows] > 0, correct(here, "accuracy") > 0
    test = mcnemar(a, b)
    said = f"{same}; right only in the record {test.only_a}, only here {test.only_b}"
    return Finding(n, test.difference.p, "", said)


def differences(votes: Votes, here: Votes, rows: NDArray[np.int64], tolerance: float) -> tuple[int, int]:
    """Images whose prediction differs; and images that differ by more than arithmetic can.

    The latter: another prediction although the two best classes here are further apart than
    `tolerance`, or a probability further from its record than that.
    """
    recorded, probs = votes.probs[rows].astype(np.float64), here.probs.astype(np.float64)
    top = np.sort(probs, axis=1)
    other = predicted(votes, "accuracy")[rows] != predicted(here, "accuracy")
    far = np.abs(recorded - probs).max(1) > tolerance
    return int(other.sum()), int((far | (other & (top[:, -1] - top[:, -2] > tolerance))).sum())


def _by_chance(outcomes: Outcomes, votes: Votes, here: Votes, rows: NDArray[np.int64]) -> Finding:
    """Right answers of the first draws; and what the draws after them decide, by both rules. Bonferroni."""
    recorded, made = (
        one.prefix[at, one.labels[at]].astype(np.int64) for one, at in ((votes, rows), (here, np.arange(len(rows))))
    )
    p = drift(recorded, votes.prefix_draws, made, here.prefix_draws)
    tests = [max(p, by_draw(recorded, votes.prefix_draws, here)) if shares_draws(outcomes.target) else p]
    detail = (
        f"expected accuracy {100 * recorded.mean() / votes.prefix_draws:.2f} % in the record, "
        f"{100 * made.mean() / here.prefix_draws:.2f} % here"
    )
    if votes.drawn.max() > votes.prefix_draws:
        decided = [mcnemar(correct(votes, rule)[rows] > 0, correct(here, rule) > 0) for rule in ("vote", "soft")]
        tests += [test.difference.p for test in decided]
        detail += f"; votes right only in the record {decided[0].only_a}, only here {decided[0].only_b}"
    return Finding(len(rows), min(1.0, len(tests) * min(tests)), "", detail)


def by_draw(recorded: NDArray[np.int64], draws: int, here: Votes) -> float:
    """p of equal accuracy where a shard's images share each draw: draws, not answers, are the sample.

    The variance of a draw's accuracy is taken from the recomputation alone, which nobody doctored.
    recorded (n,): right answers of `draws` draws on the images of `here`. Welch's t (1947) over the
    shards; 1 if one draw was made here and nothing is known.
    """
    if here.prefix_draws < 2:
        return 1.0
    n = len(here.labels)
    one = here.draw_right.astype(np.float64)
    spread = one.var(axis=1, ddof=1) / n**2 * (1 / draws + 1 / here.prefix_draws)
    gap = recorded.sum() / draws / n - one.mean(axis=1).sum() / n
    variance = float(spread.sum())
    if variance == 0:
        return 1.0 if gap == 0 else 0.0
    freedom = variance**2 / float((spread**2 / (here.prefix_draws - 1)).sum())
    return float(2 * scipy.special.stdtr(freedom, -abs(gap) / np.sqrt(variance)))


def shares_draws(target: Model) -> bool:
    """Whether one draw of noise serves all images of a shard: noise in weights does, in pixels not."""
    weights, over = target.weights, target.defence
    if isinstance(over, Mixture | RandomPrecision) or isinstance(weights, Fetched) or weights.noise is not None:
        return True
    return isinstance(weights, Trained) and isinstance(weights.defence, RNA | RPF | CTRW | WCA)


def markdown(audited: Sequence[AuditRow]) -> str:
    """The audit as a GitHub-flavoured table."""
    from bench.report.render import gfm

    lines = ["| Cells | Record | Verdict | Images | p (Holm) | Detail |", "|---|---|---|---:|---:|---|"]
    for one in audited:
        p = "—" if one.p is None else f"{one.p:.4f}"
        said = (", ".join(one.cells), one.key[:12], one.verdict, str(one.images), p, one.detail)
        lines.append(f"| {' | '.join(map(gfm, said))} |")
    return "\n".join(lines) + "\n"

"""Published robustness beside ours: the RobustBench leaderboard, and where on it a model would stand."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from bench.recipes import Distilled, Fetched, Outcomes, Trained
from bench.report.board import Baseline, Leaderboard, is_wrn28, leaderboard, place
from bench.report.tables import Lookup
from bench.report.white_box import EPS, FEWEST, Lowest, eps_of, kind_of, lowest_of, named, shared_numbers
from bench.suite.cells import Suite
from bench.votes.numbers import Missing, Number, fold
from bench.votes.votes import Votes


class Ours(NamedTuple):
    """A model of a suite: its accuracy clean, under AutoAttack and under PGD-10, as far as recorded.

    `lowest` is what it is ranked by, on FEWEST images at least; `both` AutoAttack and PGD-10 on the images that both
    were judged on, `adapted` so `strong` and AutoAttack, or without it PGD-10; `version` is AutoAttack's; `claimed` is
    the accuracy that AutoAttack as published itself saw; `baseline` the leaderboard's id, where the model is one of it;
    `elsewhere` other L-inf eps at which it was attacked.
    """

    name: str
    architecture: str
    clean: Number | None
    autoattack: Number | None
    pgd: Number | None
    version: str = ""
    claimed: Number | None = None
    stochastic: bool = False
    baseline: str | None = None
    elsewhere: tuple[Fraction, ...] = ()
    lowest: Lowest | None = None
    both: tuple[Number, Number] | None = None
    adapted: tuple[Number, Number] | None = None


def ours(suite: Suite, lookup: Lookup) -> list[Ours]:
    """The suite's models as far as they have white-box numbers at the leaderboard's eps.

    Of several records of one number, the one with most images counts.
    """
    found = []
    cells = list(suite.cells())
    for name, entry in suite.models.items():
        recorded: dict[str, tuple[Votes, str]] = {}  # by what a cell is: the record with most images, the attack's name
        attacked: dict[Outcomes, tuple[Votes, str]] = {}
        elsewhere = set()
        for cell in cells:
            what, eps = kind_of(cell), eps_of(cell)
            if cell.target != name or (what is None and eps is None):
                continue
            votes = lookup(cell.outcomes)
            if votes is None or isinstance(fold(votes, entry.number), Missing):
                continue
            called = named(cell.outcomes.examples.attack, cell.attack)
            if what is not None and (what not in recorded or len(recorded[what][0].labels) < len(votes.labels)):
                recorded[what] = (votes, called)
            if eps == EPS:
                attacked[cell.outcomes] = (votes, called)
            elif eps is not None:
                elsewhere.add(eps)
        known = {what: votes for what, (votes, _) in recorded.items()}
        clean, robust, pgd, adapted = map(known.get, ("clean", "autoattack", "pgd", "strong"))
        beside = robust or pgd
        published = recorded.get("published")
        claimed = fold(published[0], "claimed") if published else None
        if not (clean or attacked):
            continue
        found.append(
            Ours(
                name=entry.label or name,
                architecture=_architecture(entry.weights),
                clean=number_of(clean, entry.number),
                autoattack=number_of(robust, entry.number),
                pgd=number_of(pgd, entry.number),
                version=recorded["autoattack"][1] if robust else "",
                claimed=claimed if isinstance(claimed, Number) else None,
                stochastic=entry.model.stochastic,
                baseline=_baseline(entry.weights),
                elsewhere=tuple(sorted(elsewhere)),
                lowest=lowest_of(clean, list(attacked.values()), entry.number),
                both=shared_numbers(robust, pgd, entry.number) if robust and pgd else None,
                adapted=shared_numbers(adapted, beside, entry.number) if adapted and beside else None,
            )
        )
    return found


def number_of(votes: Votes | None, kind: str) -> Number | None:
    number = fold(votes, kind) if votes else None
    return number if isinstance(number, Number) else None


def compare(models: Sequence[Ours]) -> str:
    """Markdown: the leaderboard's WideResNet-28 rows with our models among them, the other rows, and words."""
    board = leaderboard()
    ranked = [model for model in models if model.lowest and model.lowest.robust.n >= FEWEST]
    narrow = [entry for entry in board.entries if is_wrn28(entry.architecture)]
    rest = [entry for entry in board.entries if not is_wrn28(entry.architecture)]
    lines = [
        "# RobustBench beside ours: CIFAR-10, L-inf, eps 8/255",
        "",
        f"Published rows: {board.source}. Accuracies in percent; robust is the lower of AutoAttack and other "
        "evaluations, by which the leaderboard ranks. Our rows are bold, with 95 % intervals, and ranked by the lowest "
        f"white-box number; below {FEWEST:,} images a model has no place.",
        "",
        "## WideResNet-28",
        "",
        *_table(board, narrow, ranked),
        "",
        "## The other architectures",
        "",
        *_table(board, rest, []),
        "",
        "## In words",
        "",
        *(f"- {sentence}" for model in models for sentence in words(model)),
    ]
    if not models:
        lines.append("- This suite has no white-box numbers at eps 8/255 recorded: nothing of ours can be placed.")
    return "\n".join(lines) + "\n"


def words(model: Ours) -> list[str]:
    """What must be said of a model's numbers beside the leaderboard's, a sentence each."""
    board, said = leaderboard(), []
    robust, clean, lowest = model.autoattack, model.clean, model.lowest
    if lowest and lowest.robust.n < FEWEST:
        said.append(
            f"**{model.name}**: {_points(lowest.robust)} under {lowest.attack}, on {lowest.robust.n:,} images: below "
            f"{FEWEST:,} a model has no place."
        )
    elif lowest:
        shares = (lowest.robust.high, lowest.robust.value, lowest.robust.low)
        first, at, last = (place(lowest.clean.value, share) for share in shares)
        where = f"place {at} of {len(board.entries) + 1} (its interval reaches from {first} to {last})"
        said.append(f"**{model.name}**: {_points(lowest.robust)} under {lowest.attack} would have {where}.")
        if lowest.robust.n < 10_000:
            said.append(
                f"**{model.name}** was judged on {lowest.robust.n:,} of the 10,000 images on which the others were."
            )
        if not robust and not model.stochastic:
            said.append(
                f"**{model.name}** has no AutoAttack number here. One more attack can only leave less, so place "
                f"{at} is the best it could have."
            )
    else:
        if not clean:
            lacks = "has no clean accuracy here"
        elif model.elsewhere:
            at_eps = ", ".join(f"{float(eps * 255):g}/255" for eps in model.elsewhere)
            lacks = f"was attacked at eps {at_eps} here, and the leaderboard is of {EPS * 255}/255"
        else:
            lacks = f"has no white-box number at eps {EPS * 255}/255 here"
        said.append(f"**{model.name}** {lacks}, so it has no place.")
    if model.both:
        said.append(_beside(model, model.version, "PGD-10", *model.both) + "; the leaderboard knows AutoAttack alone.")
    if model.adapted:
        said.append(_beside(model, "`strong`", model.version if robust else "PGD-10", *model.adapted) + ".")
    if model.stochastic:
        said.append(
            f"**{model.name}** is randomised, and the leaderboard admits deterministic models only: its place is for "
            "orientation."
        )
        if robust and model.claimed and model.claimed.value != robust.value:
            said.append(
                f"**{model.name}**: AutoAttack as published saw {100 * model.claimed.value:.1f} %, because it counts "
                f"any draw that was wrong; its iterates, on fresh draws, leave {100 * robust.value:.1f} %."
            )
    published = board.named(model.baseline) if model.baseline else None
    if published:
        for what, number, value in (("clean", clean, published.clean), ("AutoAttack", robust, published.autoattack)):
            if number:
                said.append(f"**{model.name}**: {_deviation(what, number, value)}")
    return said


def _beside(model: Ours, one: str, other: str, mine: Number, theirs: Number) -> str:
    gap = 100 * (theirs.value - mine.value)
    return (
        f"**{model.name}**: {one} leaves {abs(gap):.1f} points {'less' if gap >= 0 else 'more'} than {other} on the "
        f"{mine.n:,} images of both ({100 * mine.value:.1f} against {100 * theirs.value:.1f} %)"
    )


def _deviation(what: str, number: Number, value: float) -> str:
    inside = number.low <= value <= number.high
    verdict = "inside its interval" if inside else "outside its interval"
    return (
        f"{what} {_points(number)} recorded on {number.n:,} images, {100 * value:.2f} % on the leaderboard's 10,000: "
        f"{100 * (number.value - value):+.2f} points, {verdict}."
    )


def _table(board: Leaderboard, entries: Sequence[Baseline], models: Sequence[Ours]) -> list[str]:
    lines_of: list[tuple[float, float, str]] = []
    for entry in entries:
        extra, flag = "yes" if entry.extra_data else "no", " (flagged)" if entry.unreliable else ""
        cells = [
            str(board.rank(entry.id)), entry.id + flag, entry.architecture, extra, entry.venue,
            f"{100 * entry.clean:.2f}", f"{100 * entry.autoattack:.2f}", f"{100 * entry.robust:.2f}",
        ]  # fmt: skip
        lines_of.append((-entry.robust, -entry.clean, " | ".join(cells)))
    for model in models:
        assert model.lowest
        clean, robust = model.lowest.clean, model.lowest.robust
        published = board.named(model.baseline) if model.baseline else None
        extra = "yes" if published and published.extra_data else "no"
        at = f"({place(clean.value, robust.value)})"
        cells = [
            at,
            model.name,
            model.architecture,
            extra,
            "ours",
            _points(clean, ""),
            _points(model.autoattack, "") if model.autoattack else "\N{EM DASH}",
        ]
        cells = [f"**{cell}**" for cell in (*cells, f"{100 * robust.value:.2f}")]
        lines_of.append((-robust.value, -clean.value, " | ".join(cells)))
    heads = ("Place", "Model", "Architecture", "Extra data", "Venue", "Clean", "AutoAttack", "Robust")
    lines = [f"| {' | '.join(heads)} |", "| --: | --- | --- | --- | --- | --: | --: | --: |"]
    return lines + [f"| {text} |" for _, _, text in sorted(lines_of)]


def _architecture(weights: Trained | Distilled | Fetched) -> str:
    if isinstance(weights, Fetched):
        entry = leaderboard().named(weights.name)
        if weights.network is None:
            return entry.architecture if entry and _baseline(weights) else weights.kind
    network = weights.network
    assert network is not None
    return f"WideResNet-{network.depth}-{network.width}"


def _baseline(weights: Trained | Distilled | Fetched) -> str | None:
    if isinstance(weights, Fetched) and weights.kind == "robustbench" and weights.threat == "Linf":
        return weights.name if weights.dataset == "cifar10" and leaderboard().named(weights.name) else None
    return None


def _points(number: Number, unit: str = " %") -> str:
    return f"{100 * number.value:.2f}{unit} ({100 * number.low:.1f} to {100 * number.high:.1f})"

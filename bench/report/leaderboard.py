"""Published robustness beside ours: the RobustBench leaderboard, and where on it a model would stand."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import NamedTuple

from bench.recipes import PGD, Attack, Clean, Distilled, Fetched, Peer, Trained
from bench.report.tables import Lookup
from bench.suite.cells import Cell, Suite
from bench.votes.numbers import Missing, Number, fold

FILE = Path(__file__).parent / "data" / "robustbench" / "cifar10-linf.json"
EPS = Fraction(8, 255)


class Baseline(NamedTuple):
    """One published model. Accuracies are shares in [0, 1] of CIFAR-10's test images; eps as stated."""

    id: str
    title: str
    authors: str
    venue: str
    link: str
    architecture: str
    extra_data: bool
    passes: int
    eps: str
    clean: float
    autoattack: float
    external: float | None
    reported: float
    unreliable: bool
    footnote: str

    @property
    def robust(self) -> float:
        """What the leaderboard sorts by: AutoAttack, or another evaluation that found less."""
        return self.autoattack if self.external is None else min(self.autoattack, self.external)


class Leaderboard(NamedTuple):
    """The entries from the most robust to the least, and where they are from."""

    source: str
    entries: tuple[Baseline, ...]

    def named(self, id: str) -> Baseline | None:
        """The entry of this id."""
        return next((entry for entry in self.entries if entry.id == id), None)

    def rank(self, id: str) -> int:
        """An entry's place, from 1."""
        return next(place for place, entry in enumerate(self.entries, 1) if entry.id == id)


class Ours(NamedTuple):
    """A model of a suite: its accuracy clean, under AutoAttack and under PGD-10, as far as recorded.

    `version` is AutoAttack's; `claimed` is the accuracy that AutoAttack as published itself saw; `baseline`
    the leaderboard's id, where the model is one of it; `elsewhere` other L-inf eps at which it was attacked.
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


@cache
def leaderboard() -> Leaderboard:
    """RobustBench's CIFAR-10 L-inf leaderboard, shipped with the package (bench/lab/images/data/robustbench)."""
    raw = json.loads(FILE.read_text("utf-8"))
    entries = [
        Baseline(
            id=model["id"],
            title=model["name"],
            authors=model["authors"],
            venue=_plain(model["venue"]),
            link=model["link"],
            architecture=model["architecture"],
            extra_data=bool(model["additional_data"]),
            passes=int(model["number_forward_passes"]),
            eps=model["eps"],
            clean=_share(model["clean_acc"]),
            autoattack=_share(model["autoattack_acc"]),
            external=_share(model["external"]) if model.get("external") else None,
            reported=_share(model["reported"]),
            unreliable=bool(model.get("unreliable")),
            footnote=_plain(model.get("footnote", "")),
        )
        for model in raw["models"]
    ]
    return Leaderboard(raw["source"], tuple(sorted(entries, key=lambda e: (-e.robust, -e.clean, e.id))))


def place(clean: float, robust: float, entries: Sequence[Baseline] | None = None) -> int:
    """The place, from 1, that a model of these accuracies (shares) would have; clean accuracy breaks ties."""
    entries = leaderboard().entries if entries is None else entries
    return 1 + sum((entry.robust, entry.clean) > (robust, clean) for entry in entries)


def ours(suite: Suite, lookup: Lookup) -> list[Ours]:
    """The suite's models as far as they have white-box numbers at the leaderboard's eps.

    Of several records of one number, the one with most images counts.
    """
    best: dict[tuple[str, str], tuple[Number, Number | None, str]] = {}
    elsewhere: dict[str, set[Fraction]] = {}
    for cell in suite.cells():
        what = _kind(cell)
        if (eps := _elsewhere(cell)) is not None and lookup(cell.outcomes) is not None:
            elsewhere.setdefault(cell.target, set()).add(eps)
        votes = lookup(cell.outcomes) if what else None
        if not what or votes is None:
            continue
        number = fold(votes, suite.models[cell.target].number, (cell.outcomes.key,))
        held = best.get((cell.target, what))
        if isinstance(number, Missing) or (held and held[0].n >= number.n):
            continue
        claimed = fold(votes, "claimed") if what == "published" else None
        attack = cell.outcomes.examples.attack
        version = str(attack.arguments.get("version", "standard")) if isinstance(attack, Peer) else ""
        if isinstance(attack, Peer) and attack.kind == "autoattack":
            version = attack.name
        best[cell.target, what] = (number, claimed if isinstance(claimed, Number) else None, version)
    found = []
    for name, entry in suite.models.items():
        numbers = {what: best[name, what] for what in ("clean", "autoattack", "pgd") if (name, what) in best}
        if not numbers:
            continue
        published = best.get((name, "published"))
        robust = numbers.get("autoattack")
        found.append(
            Ours(
                name=entry.label or name,
                architecture=_architecture(entry.weights),
                clean=numbers["clean"][0] if "clean" in numbers else None,
                autoattack=robust[0] if robust else None,
                pgd=numbers["pgd"][0] if "pgd" in numbers else None,
                version=robust[2] if robust else "",
                claimed=published[1] if published else None,
                stochastic=entry.model.stochastic,
                baseline=_baseline(entry.weights),
                elsewhere=tuple(sorted(elsewhere.get(name, ()))),
            )
        )
    return found


def compare(models: Sequence[Ours]) -> str:
    """Markdown: the leaderboard's WideResNet-28 rows with our models among them, the other rows, and words."""
    board = leaderboard()
    ranked = [model for model in models if model.clean and model.autoattack]
    narrow = [entry for entry in board.entries if _is_wrn28(entry.architecture)]
    rest = [entry for entry in board.entries if not _is_wrn28(entry.architecture)]
    lines = [
        "# RobustBench beside ours: CIFAR-10, L-inf, eps 8/255",
        "",
        f"Published rows: {board.source}. Accuracies in percent; robust is the lower of AutoAttack and other "
        "evaluations, by which the leaderboard ranks. Our rows are bold, with 95 % intervals.",
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
    robust, clean = model.autoattack, model.clean
    if robust and clean:
        at = place(clean.value, robust.value)
        span = f"{place(clean.value, robust.high)} to {place(clean.value, robust.low)}"
        where = f"place {at} of {len(board.entries) + 1} (its interval reaches from {span})"
        said.append(f"**{model.name}**: {_points(robust)} under AutoAttack ({model.version}) would have {where}.")
        if robust.n < 10_000:
            said.append(f"**{model.name}** was judged on {robust.n:,} of the 10,000 images on which the others were.")
    elif model.pgd and clean:
        at = place(clean.value, model.pgd.value)
        said.append(
            f"**{model.name}** has no AutoAttack number here. Under PGD-10 it has {_points(model.pgd)}; AutoAttack is "
            f"the stronger attack, so place {at} is the best it could have."
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
    if robust and model.pgd:
        gap = 100 * (model.pgd.value - robust.value)
        side = "less" if gap >= 0 else "more"
        said.append(
            f"**{model.name}**: AutoAttack leaves {abs(gap):.1f} points {side} than PGD-10 "
            f"({100 * robust.value:.1f} against {100 * model.pgd.value:.1f} %); the leaderboard knows AutoAttack alone."
        )
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


def _deviation(what: str, number: Number, value: float) -> str:
    inside = number.low <= value <= number.high
    verdict = "inside its interval" if inside else "outside its interval"
    return (
        f"{what} {_points(number)} recorded, {100 * value:.2f} % on the leaderboard: "
        f"{100 * (number.value - value):+.2f} points, {verdict}."
    )


def _table(board: Leaderboard, entries: Sequence[Baseline], models: Sequence[Ours]) -> list[str]:
    rows: list[tuple[float, float, str]] = []
    for entry in entries:
        extra, flag = "yes" if entry.extra_data else "no", " (flagged)" if entry.unreliable else ""
        cells = [
            str(board.rank(entry.id)), entry.id + flag, entry.architecture, extra, entry.venue,
            f"{100 * entry.clean:.2f}", f"{100 * entry.autoattack:.2f}", f"{100 * entry.robust:.2f}",
        ]  # fmt: skip
        rows.append((-entry.robust, -entry.clean, " | ".join(cells)))
    for model in models:
        assert model.clean and model.autoattack
        published = board.named(model.baseline) if model.baseline else None
        extra = "yes" if published and published.extra_data else "no"
        at = f"({place(model.clean.value, model.autoattack.value)})"
        cells = [
            at,
            model.name,
            model.architecture,
            extra,
            "ours",
            _points(model.clean, ""),
            _points(model.autoattack, ""),
        ]
        cells = [f"**{cell}**" for cell in (*cells, f"{100 * model.autoattack.value:.2f}")]
        rows.append((-model.autoattack.value, -model.clean.value, " | ".join(cells)))
    heads = ("Place", "Model", "Architecture", "Extra data", "Venue", "Clean", "AutoAttack", "Robust")
    lines = [f"| {' | '.join(heads)} |", "| --: | --- | --- | --- | --- | --: | --: | --: |"]
    return lines + [f"| {text} |" for _, _, text in sorted(rows)]


def _kind(cell: Cell) -> str | None:
    """Which of the three numbers a cell is, if it is white-box and at the leaderboard's eps."""
    data = cell.outcomes.examples.data
    if cell.source not in (None, cell.target) or (data.kind, data.split) != ("cifar10", "test"):
        return None
    attack: Attack = cell.outcomes.examples.attack
    match attack:
        case Clean():
            return "clean"
        case PGD(steps=10, norm="Linf", eps=eps) if eps == EPS:
            return "pgd"
        case Peer(kind="autoattack", norm="Linf", name="standard" | "plus" | "rand", eps=eps) if eps == EPS:
            return "autoattack"
        case Peer(kind="autoattack", norm="Linf", name=name, eps=eps) if eps == EPS and name.endswith("as published"):
            return "published"
        case Peer(kind="torchattacks", name="AutoAttack", norm="Linf", eps=eps) if eps == EPS:
            return "autoattack"
        case _:
            return None


def _elsewhere(cell: Cell) -> Fraction | None:
    """The L-inf eps of a white-box cell on test images, if it is not the leaderboard's."""
    attack: Attack = cell.outcomes.examples.attack
    own = cell.source == cell.target and cell.outcomes.examples.data.split == "test"
    eps = getattr(attack, "eps", None) if own and getattr(attack, "norm", "Linf") == "Linf" else None
    return eps if isinstance(eps, Fraction) and eps != EPS else None


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


def _is_wrn28(architecture: str) -> bool:
    return architecture.startswith("WideResNet-28-")


def _points(number: Number, unit: str = " %") -> str:
    return f"{100 * number.value:.2f}{unit} ({100 * number.low:.1f} to {100 * number.high:.1f})"


def _plain(html: str) -> str:
    """Text without the leaderboard's markup."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def _share(percent: str) -> float:
    return float(Fraction(percent) / 100)

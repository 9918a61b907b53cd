"""From records to a report: the votes of every cell as numbers, with what must be said beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, assert_never

import numpy as np
from numpy.typing import NDArray

from bench.api import words
from bench.api.attacks import Norm, reach
from bench.api.hand import Hand
from bench.api.numbers import Numbers, numbers
from bench.api.report import Report
from bench.api.run import Bench
from bench.api.suite import Remade
from bench.recipes import PGD, Clean, Crafting, Outcomes, Peer, Square, Strong, Worst
from bench.suite.cells import Suite
from bench.votes.votes import Votes, concatenate

if TYPE_CHECKING:
    from bench.lab.images.load import Images


FROZEN = " frozen"
"""Ends the name of an attack that holds one draw."""


class Asking(NamedTuple):
    """Everything of a call but its model and data, checked."""

    attacks: dict[str, tuple[Crafting, tuple[int, ...] | None]]
    norm: Norm
    draws: int
    frozen: bool


def named(label: str) -> str:
    """A label as suites allow names: no slash."""
    return label.replace("/", " of ")


def report_of(bench: Bench, hand: Hand, suite: Suite, asking: Asking, notes: Sequence[str]) -> Report:
    """The report of a suite of `suite_of`, as far as its cells are recorded."""
    who, images = hand.who, hand.images if hand.own else None
    session, labels = bench.session, {named(label): label for label in asking.attacks}
    parts: dict[str, list[Votes]] = {}
    still: dict[str, Numbers] = {}
    for cell in suite.cells():
        votes = session.votes(cell.outcomes)
        if votes is None:
            continue
        if cell.table == "frozen":
            still[labels[cell.attack.removesuffix(FROZEN)]] = numbers(votes, who.model.stochastic)
        else:
            parts.setdefault(labels.get(cell.attack, "clean"), []).append(votes)
    each = any(rows is not None for _, rows in asking.attacks.values())
    joined = {name: joined_(several) for name, several in (_by_attack(parts) if each else parts).items()}
    clean = numbers(joined["clean"], who.model.stochastic).expected
    found = {}
    for name, votes in joined.items():
        if name == "clean":
            continue
        recipe = asking.attacks[name][0] if name in asking.attacks else None
        far = None if recipe is None else reach(recipe)
        eps = None if far is None else float(far)
        frozen = still[name].expected if name in still else None
        more = {"clean": clean, "frozen": frozen, "eps": eps, "norm": getattr(recipe, "norm", asking.norm)}
        found[name] = numbers(votes, who.model.stochastic, **more)
    data = suite.datasets["test"]
    protocol = {
        "draws": asking.draws, "seed": suite.protocol.seed, "precision": suite.protocol.precision, "eps_of_each": each,
        "attacks": {name: said(recipe) for name, (recipe, _) in asking.attacks.items() if not each},
        "cites": sorted({kind for recipe, _ in asking.attacks.values() for kind in cites(recipe)}),
    }  # fmt: skip
    remade = Remade(suite, images, who.net, who.code, who.missing)
    return Report(
        model=who.name, data=data.kind if not data.own else "own images", norm=asking.norm,
        stochastic=who.model.stochastic, clean=clean, attacks=found,
        flags=tuple(dict.fromkeys([*notes, *_flags(bench)])), cost=_cost(bench, suite), protocol=protocol, votes=joined,
        names=data.names, remade=remade, digests=digests(hand.images, joined["clean"].index),
    )  # fmt: skip


def digests(images: Images, index: NDArray[np.int64]) -> Mapping[int, str]:
    """SHA-256 of each image that was judged, by its index: two reports can tell whether they are of the same ones."""
    from bench.lab.images.load import as_tensor

    rows = {int(at): row for row, at in enumerate(images.index.tolist())}
    chosen = images.take(np.array([rows[int(at)] for at in index.tolist()]))
    pixels = as_tensor(chosen.images).numpy()
    return {int(at): hashlib.sha256(one.tobytes()).hexdigest() for at, one in zip(index, pixels, strict=True)}


def _by_attack(parts: dict[str, list[Votes]]) -> dict[str, list[Votes]]:
    """Where every image has its own eps: the parts of one attack together."""
    whole: dict[str, list[Votes]] = {}
    for name, several in parts.items():
        whole.setdefault(name.partition("@")[0], []).extend(several)
    return whole


def joined_(several: Sequence[Votes]) -> Votes:
    """Votes on parts of the images as one. Shards of one number have met the same noise, whichever part they are of."""
    if len(several) == 1:
        return several[0]
    shards = 1 + max(int(votes.shard.max()) for votes in several)
    right = np.zeros((shards, several[0].prefix_draws), np.int32)
    for votes in several:
        right[np.unique(votes.shard)] += votes.draw_right
    return replace(concatenate(list(several)), draw_right=right)


def _flags(bench: Bench) -> list[str]:
    """What a suite's tables would say below their numbers, and what the lab remarked."""
    from bench.report.tables import tables

    session = bench.session
    found = [*bench.notes]
    for view in tables(session.suite, session.votes, session.manifest, warn=session.warning):
        whole = [text[0].lower() + text[1:].removesuffix(".") for text in view.notes[1:]]  # what holds of every number
        found += [text for text in (*whole, *view.legend) if not text.startswith(("a subset", "no record"))]
    return found


def _cost(bench: Bench, suite: Suite) -> dict[str, float]:
    """Seconds and passes (one pass is one image) of all records behind the report, and seconds that this call took."""
    total = {"seconds": 0.0, "forward_passes": 0.0, "backward_passes": 0.0}
    works = {work.key: work for cell in suite.cells() for work in (cell.outcomes, cell.outcomes.examples)}
    for work in works.values():
        if isinstance(work, Outcomes) or not isinstance(work.attack, Clean):
            about = (bench.session.manifest(work) or {}).get("provenance", {})
            for name in total:
                total[name] += float(about.get(name, 0))
    return total | {"waited": round(bench.seconds, 3)}


def said(attack: Crafting) -> str:
    """An attack in words."""
    match attack:
        case PGD():
            eps, step = (words.eps_text(value, attack.norm) for value in (attack.eps, attack.step))
            more = [f"EoT {attack.eot}"] * (attack.eot > 1) + [f"{attack.restarts} restarts"] * (attack.restarts > 1)
            loss = [] if attack.loss == "ce" else [f"loss {attack.loss}"]
            return ", ".join([f"PGD-{attack.steps}, {attack.norm} {eps}, step {step}", *loss, *more])
        case Square():
            eps = words.eps_text(attack.eps, "Linf")
            return f"Square, Linf {eps}, {attack.queries} queries of {attack.draws} draws"
        case Peer():
            eps = words.eps_text(attack.eps, attack.norm)
            whose = "your function" if attack.kind == "python" else f"{attack.kind} {attack.name}"
            return f"{whose}, {attack.norm} {eps}"
        case Strong():
            eps = words.eps_text(attack.eps, attack.norm)
            return f"strong, {attack.norm} {eps}, at most {attack.gradients} gradients an image"
        case Worst():
            return f"worst of {len(attack.attacks)}"
        case _:
            assert_never(attack)


def cites(attack: Crafting) -> list[str]:
    """What to cite for an attack: keys of `words.BIB`."""
    if isinstance(attack, Worst):
        return [kind for one in attack.attacks for kind in cites(one)]
    return [attack.kind, *(["eot"] if getattr(attack, "eot", 1) > 1 else [])]

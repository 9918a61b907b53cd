"""Diagnosis, cross-check and audit of a suite's models: from names to images, models and streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench import UserError, nearest
from bench.lab.compute.passes import Compute
from bench.lab.craft import craft
from bench.lab.examine.crosscheck import Row, crosscheck
from bench.lab.examine.diagnose import diagnose
from bench.lab.examine.rules import Finding
from bench.lab.judge import Judged, judge, part
from bench.lab.streams import Streams
from bench.lab.worker import Lab
from bench.models.classifier import Classifier
from bench.recipes import PGD, Data, Examples, Fetched, Outcomes
from bench.store.records import Store
from bench.store.tasks import Settings
from bench.suite.cells import Suite
from bench.votes.votes import Votes, concatenate


class Session(Protocol):
    """A suite, its store and this machine."""

    suite: Suite
    store: Store
    settings: Settings


SOURCES = 2  # other models of the suite whose examples a diagnosis tries


def bench_of(session: Session, model: str, images: int) -> tuple[Lab, Classifier, Tensor, Tensor, Compute]:
    """A lab, one of the suite's models in it, the first test images with their labels, and how to compute."""
    lab = Lab(session.settings)
    data = session.suite.images("test")
    first = Data(**(dict(data) | {"stop": min(data.start + images, data.stop or 10**9)}))
    pixels, labels, _ = lab.shard(Examples(data=first, shard=images), 0)
    recipe, compute = session.suite.models[model].model, lab.compute()
    lab.suit(compute, session.suite.protocol.precision, recipe, first)
    return lab, lab.model(recipe), pixels, labels, compute


def recomputer(session: Session) -> Callable[[Outcomes, NDArray[np.int64]], Votes]:
    """What an audit calls: craft and judge the chosen rows of a record anew, with the weights that are here.

    Each shard's images meet the draws they met when it was recorded, as far as this is the same type
    of device; a PGD is run on the chosen rows alone, any other attack on the whole shard.
    """
    lab = Lab(session.settings)

    def recompute(outcomes: Outcomes, chosen: NDArray[np.int64]) -> Votes:
        examples, parts = outcomes.examples, []
        crafting, judging = lab.compute(), lab.compute()
        if examples.source is not None:
            lab.suit(crafting, examples.precision, examples.source, examples.data)
        lab.suit(judging, outcomes.precision, outcomes.target, examples.data)
        for number in np.unique(chosen // examples.shard):
            shard = int(number)
            rows = chosen[chosen // examples.shard == number] - shard * examples.shard
            clean, labels, index = lab.shard(examples, shard)
            streams = Streams(examples.seed, shard, lab.device)
            source = None if examples.source is None else lab.model(examples.source)
            picked = torch.from_numpy(rows).to(lab.device)
            made = craft(examples.attack, source, clean, labels, streams, crafting, rows=picked)
            images = (
                made.images if outcomes.iterate is None or made.iterates is None else made.iterates[outcomes.iterate]
            )
            linf = (images - clean).abs().flatten(1).amax(1).cpu().numpy()
            whole = Judged(images, labels, index, linf, made.claimed.cpu().numpy())
            score = Streams(outcomes.seed, shard, lab.device)
            target = lab.model(outcomes.target)
            parts.append(judge(target, part(whole, rows), outcomes.draws, outcomes.stopping, score, judging))
        return concatenate(parts)

    return recompute


def compared(session: Session, model: str, images: int, autoattack: bool = False) -> list[Row]:
    """The cross-check of our attacks with the peers' on one model of the suite."""
    lab, classifier, pixels, labels, compute = bench_of(session, model, images)
    streams = Streams(session.suite.protocol.seed, 0, lab.device)
    return crosscheck(classifier, pixels, labels, autoattack=autoattack, streams=streams, compute=compute)


def examine(session: Session, model: str, images: int, attack: str | None, queries: int) -> Iterator[Finding]:
    """Every check of `diagnose` on one model of the suite."""
    if attack is not None and attack not in session.suite.attacks:
        raise UserError("--attack", f"this suite has no attack {attack!r}", nearest(attack, session.suite.attacks))
    declared = PGD() if attack is None else session.suite.attacks[attack]
    if not isinstance(declared, PGD):
        raise UserError("--attack", f"{attack} is not a PGD", "name one of kind pgd")
    lab, classifier, pixels, labels, compute = bench_of(session, model, images)
    streams = Streams(session.suite.protocol.seed, 0, lab.device)
    transfers: dict[str, Tensor] = {}
    mine = session.suite.models[model].weights
    for name, entry in session.suite.models.items():
        known = isinstance(entry.weights, Fetched) or session.store.find(entry.weights) is not None
        if entry.weights != mine and known and len(transfers) < SOURCES and not entry.model.stochastic:
            transfers[name] = craft(declared, lab.model(entry.model), pixels, labels, streams, compute).images
    yield from diagnose(
        classifier, pixels, labels, streams, compute, declared, transfers=transfers or None, queries=queries
    )

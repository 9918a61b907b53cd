"""Diagnosis and cross-check of a suite's models: from names to images, models and streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from bench import UserError, nearest
from bench.lab.compute.passes import Compute
from bench.lab.craft import craft
from bench.lab.examine.crosscheck import Row, crosscheck
from bench.lab.examine.diagnose import diagnose
from bench.lab.examine.rules import Finding
from bench.lab.streams import Streams
from bench.lab.worker import Lab
from bench.models.classifier import Classifier
from bench.recipes import PGD, Data, Examples, Fetched, Peer
from bench.store.records import Store
from bench.store.tasks import Settings
from bench.suite.cells import Suite


class Session(Protocol):
    """A suite, its store and this machine."""

    suite: Suite
    store: Store
    settings: Settings


POOL, LEAST = 1000, 100  # images that a surrogate is distilled on, at most and at least
SOURCES = 2  # other models of the suite whose examples a diagnosis tries


def bench_of(session: Session, model: str, images: int) -> tuple[Lab, Classifier, Tensor, Tensor, Compute]:
    """A lab, one of the suite's models in it, the first test images with their labels, and how to compute."""
    lab = Lab(session.settings)
    data = session.suite.images("test")
    first = data.model_copy(update={"stop": min(data.start + images, data.stop or data.whole)})
    pixels, labels, _ = lab.shard(Examples(data=first, shard=images), 0)
    recipe, compute = session.suite.models[model].model, lab.compute()
    # A model that cannot be judged can be examined: what is wrong with it is the finding.
    lab.suit(compute, session.suite.protocol.precision, recipe, first, judging=False)
    return lab, lab.model(recipe), pixels, labels, compute


def compared(session: Session, model: str, images: int, autoattack: bool = False) -> list[Row]:
    """The cross-check of our attacks with the peers' on one model of the suite."""
    lab, classifier, pixels, labels, compute = bench_of(session, model, images)
    streams = Streams(session.suite.protocol.seed, 0, lab.device)
    return crosscheck(classifier, pixels, labels, autoattack=autoattack, streams=streams, compute=compute)


def examine(
    session: Session, model: str, images: int, attack: str | None, queries: int, thorough: bool = False
) -> Iterator[Finding]:
    """Every check of `diagnose` on one model of the suite; `thorough` with those that take minutes."""
    if attack is not None and attack not in session.suite.attacks:
        raise UserError("--attack", f"this suite has no attack {attack!r}", nearest(attack, session.suite.attacks))
    declared = PGD() if attack is None else session.suite.attacks[attack]
    if not isinstance(declared, PGD | Peer) or declared.norm == "L1":
        raise UserError("--attack", f"{attack} is neither a PGD nor another library's", "name one in L-inf or L2")
    lab, classifier, pixels, labels, compute = bench_of(session, model, images)
    streams = Streams(session.suite.protocol.seed, 0, lab.device)
    transfers: dict[str, Tensor] = {}
    mine = session.suite.models[model].weights
    for name, entry in session.suite.models.items():
        known = isinstance(entry.weights, Fetched) or session.store.find(entry.weights) is not None
        if entry.weights != mine and known and len(transfers) < SOURCES and not entry.model.stochastic:
            transfers[name] = craft(declared, lab.model(entry.model), pixels, labels, streams, compute).images
    yield from diagnose(
        classifier, pixels, labels, streams, compute, declared, transfers=transfers, queries=queries,
        pool=beyond(lab, session.suite.images("test"), images) if thorough else None,
    )  # fmt: skip


def beyond(lab: Lab, data: Data, images: int) -> Tensor | None:
    """The next images (m, c, h, w) of the data after the first ones, for a surrogate; none where too few are left."""
    start, stop = data.start + images, min(data.start + images + POOL, data.stop or data.whole)
    if stop - start < LEAST:
        return None
    part = data.model_copy(update={"start": start, "stop": stop})
    return lab.shard(Examples(data=part, shard=stop - start), 0)[0]

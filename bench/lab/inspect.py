"""Diagnosis, cross-check and audit of a suite's models: from names to images, models and streams."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from bench.checks import Finding
from bench.errors import UserError, nearest
from bench.lab.compute import Compute
from bench.lab.diagnose import diagnose
from bench.lab.draws import Streams
from bench.lab.work import Lab
from bench.recipes import PGD, Data, Examples
from bench.session import Session
from models.classifier import Classifier


def bench_of(session: Session, model: str, images: int) -> tuple[Lab, Classifier, Tensor, Tensor]:
    """A lab, one of the suite's models in it, and the first test images with their labels."""
    lab = Lab(session.settings)
    data = session.suite.images("test")
    first = Data(**(dict(data) | {"stop": min(data.start + images, data.stop or 10**9)}))
    pixels, labels, _ = lab.shard(Examples(data=first, shard=images), 0)
    return lab, lab.model(session.suite.models[model].model), pixels, labels


def examine(session: Session, model: str, images: int, attack: str | None, queries: int) -> Iterator[Finding]:
    """Every check of `diagnose` on one model of the suite."""
    if attack is not None and attack not in session.suite.attacks:
        raise UserError("--attack", f"this suite has no attack {attack!r}", nearest(attack, session.suite.attacks))
    declared = PGD() if attack is None else session.suite.attacks[attack]
    if not isinstance(declared, PGD):
        raise UserError("--attack", f"{attack} is not a PGD", "name one of kind pgd")
    lab, classifier, pixels, labels = bench_of(session, model, images)
    compute = Compute(lab.device, session.suite.protocol.precision, session.settings.microbatch)
    streams = Streams(session.suite.protocol.seed, 0, lab.device)
    yield from diagnose(classifier, pixels, labels, streams, compute, declared, queries=queries)

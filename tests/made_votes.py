"""Votes drawn honestly from classifiers whose probabilities are known: the truth that reports are held to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.recipes import Clean, Outcomes
from bench.store.tasks import images_in
from bench.suite.cells import Suite
from bench.suite.reader import load
from bench.votes.votes import Votes

SUITE = Path(__file__).parent.parent / "suites" / "paper.toml"


def pinned(scale: str) -> Suite:
    """The paper's suite with its three tables, of a size that changes of its scales cannot change.

    quick: 300 images in shards of 100, 8 draws, votes of 32; full: 10,000, 500, 16 and 512.
    """
    images, few, shard, draws, samples = {"quick": (300, 100, 100, 8, 32), "full": (None, 1000, 500, 16, 512)}[scale]
    suite = load(SUITE, scale)
    data = {
        name: suite.datasets[name].model_copy(update={"stop": n}) for name, n in (("test", images), ("subset", few))
    }
    models = {
        name: entry.model_copy(update={"draws": draws, "samples": samples, "stopping": "fixed", "infinite": False})
        for name, entry in suite.models.items()
    }
    return suite._replace(
        tables={name: suite.tables[name] for name in ("table1", "table2", "table3")},
        datasets=suite.datasets | data,
        models=models,
        protocol=suite.protocol.model_copy(update={"shard": shard, "precision": "float32"}),
    )


def labels_of(index: NDArray[np.int64], classes: int = 10) -> NDArray[np.uint16]:
    return (index * 7 % classes).astype(np.uint16)


def votes_from(
    chances: NDArray[np.float64],
    index: NDArray[np.int64],
    draws: int,
    seed: int,
    shard: int = 100,
    claimed: int = -1,
    shared: float = 0.0,
) -> Votes:
    """Votes of `draws` draws with P(class) = chances (n, classes), labels from `labels_of`.

    `shared` is the deviation of a draw's common shift: with it all images of a shard do well or badly together.
    """
    rng = np.random.default_rng(seed)
    n, classes = chances.shape
    labels = labels_of(index, classes)
    shards = (np.arange(n) // shard).astype(np.int32)
    cumulative = chances.cumsum(1)
    counts = np.zeros((n, classes), np.int64)
    draw_right = np.zeros((shards.max() + 1, draws), np.int32)
    winners = np.zeros((n, min(draws, 16)), np.uint16)
    for draw in range(draws):
        winner = (rng.random(n)[:, None] > cumulative[:, :-1]).sum(1)
        if shared:
            forced = rng.random(n) < np.abs(rng.normal(0, shared, shards.max() + 1))[shards]
            winner = np.where(forced, labels if rng.random() < 0.5 else (labels + 1) % classes, winner)
        counts[np.arange(n), winner] += 1
        if draw < winners.shape[1]:
            winners[:, draw] = winner
        draw_right[:, draw] = np.bincount(shards, winner == labels, draw_right.shape[0])
    probs = 0.5 * counts / draws + 0.5 * chances
    return Votes(
        index=index,
        labels=labels,
        counts=counts.astype(np.uint16),
        probs=probs.astype(np.float16),
        soft=probs.argmax(1).astype(np.uint16),
        prefix=counts.astype(np.uint16),
        settled=np.full(n, draws, np.uint16),
        linf=np.full(n, 0.0 if claimed < 0 else 8 / 255, np.float32),
        claimed=np.full(n, claimed, np.int8),
        shard=shards,
        draw_right=draw_right,
        winners=winners,
    )


def chances_of(outcomes: Outcomes, accuracy: float, sharpness: float = 4.0) -> NDArray[np.float64]:
    """Class probabilities (n, 10) whose label's mean is about `accuracy`; the same images are hard for every model.

    Deterministic models put all on one class.
    """
    n = images_in(outcomes)
    hardness = np.random.default_rng(outcomes.examples.data.shuffle).random(n)
    labels = labels_of(np.arange(n, dtype=np.int64))
    if outcomes.target.stochastic:
        right = 1 / (1 + np.exp(-sharpness * 4 * (accuracy - hardness)))
    else:
        right = (hardness < accuracy).astype(np.float64)
    chances = np.zeros((n, 10))
    chances[np.arange(n), labels] = right
    chances[np.arange(n), (labels + 1) % 10] += 1 - right
    return chances


def honest(outcomes: Outcomes, accuracy: float) -> Votes:
    """The votes of an outcome whose target has about this accuracy; an attack's claims agree with the truth."""
    chances = chances_of(outcomes, accuracy)
    index = np.arange(images_in(outcomes), dtype=np.int64)
    seed = int(outcomes.key[:8], 16)
    votes = votes_from(chances, index, outcomes.draws, seed, outcomes.examples.shard)
    if isinstance(outcomes.examples.attack, Clean):
        return votes
    wrong = (np.random.default_rng(seed + 1).random(len(index)) > chances[index, votes.labels]).astype(np.int8)
    return Votes(**{**vars(votes), "claimed": wrong, "linf": np.full(len(index), 8 / 255, np.float32)})

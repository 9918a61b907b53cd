"""The judge: a target's votes on given images, over draws that chose nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from bench.lab.compute.joint import joint
from bench.lab.compute.passes import Compute
from bench.lab.streams import Streams
from bench.models.classifier import Classifier
from bench.recipes import Stopping
from bench.votes import stopping
from bench.votes.votes import Votes

PREFIX = 16  # draws from which expected accuracy is computed, whatever the stopping rule does
BLOCK = 4  # draws between two looks of the stopping rule


@dataclass(frozen=True)
class Judged:
    """One shard as it comes to the judge.

    images (n, 3, h, w) float32 in [0, 1] on the device; labels (n,) int64 there too; index (n,)
    position in the split; linf (n,) and claimed (n,) as in `Votes`.
    """

    images: Tensor
    labels: Tensor
    index: NDArray[np.int64]
    linf: NDArray[np.float32]
    claimed: NDArray[np.int8]


def judge(
    target: Classifier,
    shard: Judged,
    draws: int,
    rule: Stopping,
    streams: Streams,
    compute: Compute,
) -> Votes:
    """The votes of `draws` fresh draws of `target` on the shard, fewer where `rule` settles an image.

    Draw j comes from streams.generator("score", j), which no attack can reach, and is one draw for
    all the shard's images. A class wins a draw by the largest logit (torch.argmax).
    """
    if not target.stochastic:
        draws, rule = 1, Stopping()
    n, classes = len(shard.images), target.classes
    device = shard.images.device
    counts = torch.zeros(n, classes, dtype=torch.int32, device=device)
    sums = torch.zeros(n, classes, dtype=torch.float64, device=device)
    right = torch.zeros(min(draws, PREFIX), dtype=torch.int32, device=device)
    prefix = counts
    rows = torch.arange(n, device=device)
    images = shard.images
    soft = stopping.soft_start(n, classes) if rule.kind == "adaptive" and rule.rule == "soft" else None
    unread: list[Tensor] = []

    def generator(draw: int) -> torch.Generator | None:
        return streams.generator("score", draw) if target.stochastic else None

    drawn = 0
    for stop in looks(draws, rule):
        for some in joint(target, shard.images.shape, range(drawn, stop), generator, images, rows, compute=compute):
            logits = some.apart(compute.logits(some.realisation, some.over(images), some.rows))
            probs, winner = logits.softmax(2), logits.argmax(2)
            counts[rows] += one_hot(winner, classes).sum(0).int()
            sums[rows] += probs.double().sum(0)
            if drawn < len(right):
                right[drawn : drawn + some.draws] = (winner == shard.labels[rows]).sum(1)
            if soft is not None:
                unread.append(probs)
            drawn += some.draws
        if drawn == len(right):
            prefix = counts.clone()
        if rule.kind == "fixed" or drawn == draws:
            continue
        if soft is not None:
            soft = stopping.soft_update(soft, torch.cat(unread).double().cpu().numpy(), draws)
            unread = []
            settled = stopping.soft_decide(soft, draws, rule.alpha).decided
            soft = stopping.soft_rows(soft, ~settled)
        else:
            settled = stopping.decide(counts[rows].cpu().numpy(), drawn, draws, rule.alpha).decided
        if settled.any():
            rows = rows[torch.from_numpy(~settled).to(device)]
            images = shard.images[rows]
        if not len(rows):
            break
    drawn_each = counts.sum(1, keepdim=True)
    return Votes(
        index=shard.index,
        labels=shard.labels.cpu().numpy().astype(np.uint16),
        counts=counts.cpu().numpy().astype(np.uint16),
        probs=(sums / drawn_each).cpu().numpy().astype(np.float16),
        prefix=prefix.cpu().numpy().astype(np.uint16),
        linf=shard.linf,
        claimed=shard.claimed,
        shard=np.full(n, streams.shard, np.int32),
        draw_right=right.cpu().numpy()[None],
    )


def looks(draws: int, rule: Stopping) -> list[int]:
    """After how many draws something is asked of the votes: expected accuracy, then the stopping rule, at last all."""
    between = range(PREFIX + BLOCK, draws, BLOCK) if rule.kind == "adaptive" else range(0)
    return sorted({min(draws, PREFIX), *between, draws})


def part(shard: Judged, rows: NDArray[np.int64]) -> Judged:
    """The chosen rows of a shard."""
    chosen = torch.from_numpy(rows).to(shard.images.device)
    return replace(
        shard, images=shard.images[chosen], labels=shard.labels[chosen], index=shard.index[rows],
        linf=shard.linf[rows], claimed=shard.claimed[rows],
    )  # fmt: skip

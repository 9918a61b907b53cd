"""The judge: a target's votes on given images, over draws that chose nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench import stopping
from bench.lab.compute import Compute
from bench.lab.draws import Streams
from bench.recipes import Stopping
from bench.votes import Votes
from models.classifier import Classifier

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
    for draw in range(draws):
        generator = streams.generator("score", draw) if target.stochastic else None
        with torch.no_grad():
            realisation = target.realise(shard.images.shape, generator)
        logits = compute.logits(realisation, images, rows)
        probs, winner = logits.softmax(1), logits.argmax(1)
        counts[rows, winner] += 1
        sums[rows] += probs.double()
        if draw < len(right):
            right[draw] = (winner == shard.labels[rows]).sum()
            if draw == len(right) - 1:
                prefix = counts.clone()
        if rule.kind == "fixed":
            continue
        if soft is not None:
            unread.append(probs)
        drawn = draw + 1
        if drawn < len(right) or drawn % BLOCK or drawn == draws:
            continue
        if soft is not None:
            soft = stopping.soft_update(soft, torch.stack(unread).double().cpu().numpy(), draws)
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


def part(shard: Judged, rows: NDArray[np.int64]) -> Judged:
    """The chosen rows of a shard."""
    chosen = torch.from_numpy(rows).to(shard.images.device)
    return replace(
        shard, images=shard.images[chosen], labels=shard.labels[chosen], index=shard.index[rows],
        linf=shard.linf[rows], claimed=shard.claimed[rows],
    )  # fmt: skip

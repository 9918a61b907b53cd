"""The judge: a target's votes on given images, over draws that chose nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.lab.compute.joint import joint
from bench.lab.compute.passes import Compute
from bench.lab.streams import Streams
from bench.models.classifier import Classifier
from bench.recipes import Stopping
from bench.votes import stopping
from bench.votes.votes import Votes

PREFIX = 16  # draws that every image has, whatever the stopping rule does: expected accuracy is computed from them
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
    tally = _Tally(shard, target.classes, draws if rule.kind == "fixed" else min(draws, PREFIX))
    ending = _Ending(rule, len(shard.images), target.classes, draws)

    def generator(draw: int) -> torch.Generator | None:
        return streams.generator("score", draw) if target.stochastic else None

    rows, images, drawn = torch.arange(len(shard.images), device=shard.images.device), shard.images, 0
    for stop in looks(draws, rule):
        for some in joint(target, shard.images.shape, range(drawn, stop), generator, images, rows, compute=compute):
            logits = some.apart(compute.logits(some.realisation, some.over(images), some.rows))
            probs = logits.softmax(2)
            tally.add(rows, probs, logits.argmax(2))
            ending.see(probs)
            drawn += some.draws
        if rule.kind == "fixed" or drawn == draws:
            continue
        open_ = ending.still_open(tally.counts[rows].cpu().numpy(), drawn)
        if not open_.all():
            rows = rows[torch.from_numpy(open_).to(rows.device)]
            images = shard.images[rows]
        if not len(rows):
            break
    counts, settled = tally.counts.cpu().numpy(), ending.settled
    sums = tally.sums.cpu().numpy()
    return Votes(
        index=shard.index,
        labels=shard.labels.cpu().numpy().astype(np.uint16),
        counts=counts.astype(np.uint16),
        probs=(sums / counts.sum(1, keepdims=True)).astype(np.float16),
        soft=sums.argmax(1).astype(np.uint16),
        prefix=tally.prefix.cpu().numpy().astype(np.uint16),
        settled=np.where(settled > 0, settled, counts.sum(1)).astype(np.uint16),
        linf=shard.linf,
        claimed=shard.claimed,
        shard=np.full(len(counts), streams.shard, np.int32),
        draw_right=tally.right.cpu().numpy()[None],
        rule="" if rule.kind == "fixed" else rule.rule,
        winners=tally.winners.cpu().numpy().astype(np.uint16),
    )


class _Tally:
    """What the draws said: counts and sums of probabilities (n, classes); of the first `prefix` draws, which every
    image has, the counts apart, each draw's right answers and, of PREFIX draws at most, the winners."""

    def __init__(self, shard: Judged, classes: int, prefix: int) -> None:
        n, device = len(shard.images), shard.images.device
        self.labels, self.drawn = shard.labels, 0
        self.names = torch.arange(classes, device=device)
        self.counts = torch.zeros(n, classes, dtype=torch.int32, device=device)
        self.sums = torch.zeros(n, classes, dtype=torch.float64, device=device)
        self.right = torch.zeros(prefix, dtype=torch.int32, device=device)
        self.winners = torch.zeros(n, min(prefix, PREFIX), dtype=torch.int32, device=device)
        self.prefix = self.counts

    def add(self, rows: Tensor, probs: Tensor, winner: Tensor) -> None:
        """More draws of these rows: probs (draws, m, classes), winner (draws, m)."""
        self.counts[rows] += (winner.unsqueeze(2) == self.names).sum(0).int()
        self.sums[rows] += probs.double().sum(0)
        if self.drawn < len(self.right):
            self.right[self.drawn : self.drawn + len(winner)] = (winner == self.labels[rows]).sum(1)
            kept = self.winners[:, self.drawn : self.drawn + len(winner)]
            kept.copy_(winner[: kept.shape[1]].T)  # all rows: an image's draws end after the prefix
        self.drawn += len(winner)
        if self.drawn == len(self.right):
            self.prefix = self.counts.clone()


class _Ending:
    """Which images go on; `settled` (n,): after how many draws the rule had settled each, 0 where it has not."""

    def __init__(self, rule: Stopping, n: int, classes: int, draws: int) -> None:
        self.rule, self.draws = rule, draws
        self.settled = np.zeros(n, np.int64)
        self.rows = np.arange(n)
        self.soft = stopping.soft_start(n, classes) if rule.kind == "adaptive" and rule.rule == "soft" else None
        self.unread: list[Tensor] = []

    def see(self, probs: Tensor) -> None:
        if self.soft is not None:
            self.unread.append(probs)

    def still_open(self, counts: NDArray[np.integer[Any]], drawn: int) -> NDArray[np.bool_]:
        """Of the images still open, whose counts (m, classes) these are: which of them stay so."""
        if self.soft is not None:
            seen = torch.cat(self.unread).double().cpu().numpy()
            self.soft, self.unread = stopping.soft_update(self.soft, seen, self.draws), []
            decided = stopping.soft_decide(self.soft, self.draws, self.rule.alpha).decided
        else:
            decided = stopping.decide(counts, drawn, self.draws, self.rule.alpha).decided
        first = self.rows[decided]
        self.settled[first] = np.where(self.settled[first] > 0, self.settled[first], drawn)
        if self.rule.infinite:  # both at one look, so that each decision is what its test says at that look
            decided = decided & stopping.ppr(counts, self.rule.alpha).decided
        open_ = ~decided
        self.rows = self.rows[open_]
        if self.soft is not None:
            self.soft = stopping.soft_rows(self.soft, open_)
        return np.asarray(open_)


def looks(draws: int, rule: Stopping) -> list[int]:
    """After how many draws something is asked of the votes: the stopping rule from the prefix on, at last all.

    The vote of infinitely many draws is asked for at 18 too, the fewest (at 10 classes and alpha 1e-3) that settle it.
    """
    if rule.kind == "fixed":
        return [draws]
    between = [PREFIX, *((PREFIX + 2,) if rule.infinite else ()), *range(PREFIX + BLOCK, draws, BLOCK), draws]
    return sorted({min(draws, stop) for stop in between})


def part(shard: Judged, rows: NDArray[np.int64]) -> Judged:
    """The chosen rows of a shard."""
    chosen = torch.from_numpy(rows).to(shard.images.device)
    return replace(
        shard, images=shard.images[chosen], labels=shard.labels[chosen], index=shard.index[rows],
        linf=shard.linf[rows], claimed=shard.claimed[rows],
    )  # fmt: skip

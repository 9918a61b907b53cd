"""Ways of doing the same work, timed against each other and against the bare network.

Every way runs once a round, in an order that turns from round to round, and ratios are medians of
ratios within a round: what slows the machine for a while slows its neighbours alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bench.lab.speed.contestants import Result, Way, suited, votes_of
from bench.models.classifier import Classifier, Plain
from bench.recipes import Stopping
from bench.votes import intervals
from bench.votes.votes import Votes

SCORED = 8  # draws by which a stochastic model's accuracy is estimated


class Row(NamedTuple):
    """What was measured of one way: seconds by round; images a second (median); how many times as fast as each
    way of another library (median over rounds); accuracy with its 95 % interval; shares of the limit.

    `share` is of the limit in the row's own precision, `share_of_best` in the fastest precision; None
    where the work an image takes is not fixed. `differs` marks an accuracy outside the first way's interval.
    """

    way: str
    precision: str
    seconds: tuple[float, ...]
    rate: float
    faster: dict[str, float]
    accuracy: tuple[float, float, float]
    differs: bool
    share: float | None
    share_of_best: float | None
    note: str = ""


def race(
    ways: list[Way],
    limits: list[Way],
    images: Tensor,
    labels: Tensor,
    rounds: int,
    passes: int,
    *,
    model: Classifier,
    device: torch.device,
) -> list[Row]:
    """Every way's row; `limits` do one pass over the images where a way does `passes`, one limit for each precision."""
    field = [*ways, *limits]
    for way in field:
        way.run(images[:2], labels[:2])  # warm
    seconds: dict[str, list[float]] = {way.name: [] for way in field}
    results: dict[str, Result | None] = {}

    def go(way: Way) -> None:
        results[way.name] = way.run(images, labels)

    for turn in range(rounds):
        for k in range(len(field)):
            way = field[(k + turn) % len(field)]
            seconds[way.name].append(clock(partial(go, way), device))

    def times(slow: str, fast: str) -> float:
        return statistics.median(b / a for a, b in zip(seconds[fast], seconds[slow], strict=True))

    peers = [way.name for way in ways if way.library != "bench"]
    rows: list[Row] = []
    full: Votes | None = None
    for way in ways:
        result = results[way.name]
        assert result is not None
        if isinstance(result, Votes) and (result.drawn == result.drawn.max()).all():
            full = result
        share = right(model, device, result, labels)
        low, high = intervals.share(round(share * len(labels)), len(labels))[1:]
        first = rows[0].accuracy if rows else (share, low, high)
        fixed = not any(word in way.name for word in ("early", "adaptive"))
        shares = {limit.precision: passes * times(limit.name, way.name) for limit in limits}
        rows.append(
            Row(
                way=way.name,
                precision=way.precision,
                seconds=tuple(round(took, 3) for took in seconds[way.name]),
                rate=len(images) / statistics.median(seconds[way.name]),
                faster={name: times(name, way.name) for name in peers} if way.library == "bench" else {},
                accuracy=(share, low, high),
                differs=not first[1] - 1e-9 <= share <= first[2] + 1e-9,
                share=shares[way.precision] if fixed else None,
                share_of_best=min(shares.values()) if fixed else None,
                note=way.note or _about(result, full),
            )
        )
    return rows


def _about(result: Result, full: Votes | None) -> str:
    """The draws a vote took, and how it compares with the full vote before it."""
    if not isinstance(result, Votes) or full is None or result.drawn.max() < 2:
        return ""
    same = int((result.counts.argmax(1) == full.counts.argmax(1)).sum())
    agrees = "" if full is result else f", {same} of {len(full.labels)} decisions as fixed"
    return f"{result.drawn.mean():.1f} draws an image{agrees}"


def limit(model: Classifier, device: torch.device, precision: str, backward: bool) -> Way:
    """One bare pass over the images in the layout and microbatch that are known to be best."""
    net = model.net if isinstance(model, Plain) else model
    size = suited(model, device, precision).microbatch

    def run(images: Tensor, labels: Tensor) -> None:
        bare(net, size, precision, backward, images)

    return Way(f"limit {precision}", "limit", precision, run)


def bare(net: nn.Module, size: int, precision: str, backward: bool, images: Tensor) -> None:
    """One forward pass, or one gradient to the input, of every image and nothing else, `size` images at a time."""
    for part in torch.tensor_split(images, -(-len(images) // size)):  # parts of one size
        leaf = part.detach().contiguous(memory_format=torch.channels_last).requires_grad_(backward)
        with (
            torch.set_grad_enabled(backward),
            torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            total = net(leaf).sum()
        if backward:
            torch.autograd.grad(total, leaf)


def right(model: Classifier, device: torch.device, result: Result, labels: Tensor) -> float:
    """Share of labels that were predicted, or that `model`, in float32 and on fresh draws, gives the crafted images."""
    if isinstance(result, Votes):
        return float((result.counts.argmax(1) == labels.cpu().numpy()).mean())
    if result.dim() == 1:
        return float((result == labels).double().mean())
    votes = votes_of(model, device, SCORED, Stopping(), result, labels, precision="float32")
    return float(votes.counts[np.arange(len(labels)), labels.cpu().numpy()].sum() / votes.drawn.sum())


def clock(run: Callable[[], object], device: torch.device) -> float:
    """Seconds until `run` and all that it has queued on the device are done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begun = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun

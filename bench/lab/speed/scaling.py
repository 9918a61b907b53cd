"""How the cost of crafting and judging grows with images, attack steps, draws and the network's width."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from bench.lab.speed.contestants import pgd, votes_of
from bench.lab.speed.measure import images_of
from bench.lab.speed.race import clock
from bench.lab.speed.subjects import Subjects, subjects
from bench.models.classifier import Classifier
from bench.recipes import PGD, Stopping

Curve = tuple[list[float], list[float]]
"""What was varied, and the seconds it took (the median of the rounds)."""


def growth(
    device: torch.device,
    model: Subjects,
    images: Sequence[int] = (32, 64, 128, 256),
    steps: Sequence[int] = (2, 5, 10, 20),
    draws: Sequence[int] = (16, 32, 64, 128),
    widths: Sequence[int] = (),
    *,
    rounds: int = 3,
) -> dict[str, Curve]:
    """Seconds of PGD by "images" (10 steps) and by "steps", of a fixed vote by "draws", of PGD by "width".

    Widths are WRN-10s, untrained. Each round goes through all sizes of a curve once.
    """
    least, most = min(images), max(images)
    pixels, labels = images_of(most, device)

    def attack(net: Classifier, n: int, count: int) -> Callable[[], object]:
        way = pgd(PGD(steps=count), net, device)[0]
        return lambda: way.run(pixels[:n], labels[:n])

    def vote(count: int) -> Callable[[], object]:
        target = model.noisy or model.plain
        return lambda: votes_of(target, device, count, Stopping(), pixels[:least], labels[:least], precision="float32")

    curves = {
        "images": {n: attack(model.plain, n, 10) for n in images},
        "steps": {k: attack(model.plain, least, k) for k in steps},
    }
    if model.noisy is not None:
        curves["draws"] = {m: vote(m) for m in draws}
    if widths:
        networks = {width: subjects(f"wrn-10-{width}", None, device).plain for width in widths}
        curves["width"] = {width: attack(net, least, 5) for width, net in networks.items()}
    return {name: _timed(runs, rounds, device) for name, runs in curves.items()}


def _timed(runs: dict[int, Callable[[], object]], rounds: int, device: torch.device) -> Curve:
    for run in runs.values():
        run()  # warm
        break
    seconds = [[clock(run, device) for run in runs.values()] for _ in range(rounds)]
    return [float(x) for x in runs], [float(value) for value in np.median(seconds, 0)]


def slope(x: Sequence[float], seconds: Sequence[float]) -> float:
    """The exponent p of seconds ~ x^p: 1 where cost is linear, 2 where it is quadratic."""
    return float(np.polyfit([math.log(v) for v in x], [math.log(v) for v in seconds], 1)[0])

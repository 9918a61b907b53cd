"""Certified accuracy by radius, from records alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bench.recipes import Outcomes
from bench.report.render import gfm
from bench.suite.cells import Suite
from bench.votes.certify import ABSTAIN, certified_accuracy, certify
from bench.votes.intervals import share
from bench.votes.numbers import rows
from bench.votes.votes import Votes

CIFAR_STD = 0.2435  # what one unit of normalised noise is in pixels, the mean over the channels


class Certified(NamedTuple):
    """One model: certified accuracy (shares with intervals) at each radius (L2, pixels in [0, 1])."""

    model: str
    sigma: float
    radii: tuple[float, ...]
    accuracy: tuple[tuple[float, float, float], ...]
    abstained: float
    images: int
    draws: tuple[int, int]
    alpha: float


def certificates(suite: Suite, lookup: Callable[[Outcomes], Votes | None]) -> list[Certified]:
    """Every model of the suite that declares `certify` and whose draws are recorded."""
    made = []
    for name, chosen, bound in suite.certificates():
        first, second = lookup(chosen), lookup(bound)
        about = suite.models[name].certify
        if first is None or second is None or about is None:
            continue
        a, b = rows(first, second)
        entry = suite.models[name]
        sigma = float(entry.sigma) * (1.0 if entry.unit == "pixels" else CIFAR_STD)
        labels = first.labels[a].astype(np.int64)
        found = certify(first.counts[a], second.counts[b], about.alpha, sigma)
        shares = certified_accuracy(found.prediction, found.radius, labels, list(about.radii))
        n = len(labels)
        intervals = tuple(tuple(share(round(float(value) * n), n)) for value in shares)
        abstained = float((found.prediction == ABSTAIN).mean())
        made.append(
            Certified(name, sigma, about.radii, intervals, abstained, n, (about.n0, about.n), about.alpha)  # type: ignore[arg-type]
        )
    return made


def markdown(certified: list[Certified]) -> str:
    """A table a model: the radius and the certified accuracy with its interval, in percent."""
    parts = []
    for one in certified:
        lines = [
            f"## Certified accuracy: {gfm(one.model)}",
            "",
            "| L2 radius | certified accuracy, % |",
            "| ---: | ---: |",
        ]
        lines += [
            f"| {radius:g} | {100 * value:.2f} [{100 * low:.2f}, {100 * high:.2f}] |"
            for radius, (value, low, high) in zip(one.radii, one.accuracy, strict=True)
        ]
        lines += [
            "",
            f"{one.images} images; sigma {one.sigma:g} in pixels; n0 = {one.draws[0]}, n = {one.draws[1]}, "
            f"alpha = {one.alpha:g} an image; {100 * one.abstained:.1f} % abstained (Cohen et al. 2019). The noise in "
            "the weights is averaged over as part of the base classifier.",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n" if parts else ""

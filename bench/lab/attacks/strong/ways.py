"""The ways in which a randomised source shows a slope: of which mean over its draws the objective is taken."""

from __future__ import annotations

import contextlib
from itertools import combinations
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from bench.lab.attacks.strong.ascent import Slope, finite
from bench.lab.attacks.strong.objectives import Objective, as_logits, margin
from bench.lab.attacks.strong.search import QUERY
from bench.lab.attacks.view import View
from bench.models.classifier import Classifier

FEW = 6  # atoms, above which a support is drawn from and not gone through, set by set


class Way(NamedTuple):
    """A view and the mean that is taken of it: of the objective over draws, of softmax or of logits before it; or, of
    a finite support, the atoms `some` of it that are to be wrong at once. `draws` a step, 1 where the view is
    deterministic."""

    name: str
    view: View
    mean: Literal["loss", "softmax", "logits", "atoms"] = "loss"
    draws: int = 1
    some: tuple[int, ...] = ()

    @property
    def cost(self) -> float:
        """Gradients an image of one look, passes without one counted as half."""
        match self.mean:
            case "loss":
                return float(self.draws)
            case "atoms":
                return len(self.some) * QUERY + 1
            case _:
                return self.draws * (1 + QUERY)


def ways(view: View, views: tuple[Classifier, ...], draws: int) -> list[Way]:
    """The ways to try: the mean network where there is one, views by interception, then the source's own draws."""
    found = []

    def seen(source: Classifier) -> View:
        return View(source, view.shape, view.streams, view.compute)

    with contextlib.suppress(NotImplementedError):
        found.append(Way("mean network", seen(view.source.mean())))
    for number, other in enumerate(views):
        found.append(Way(f"view {number + 1}", seen(other), draws=draws if other.stochastic else 1))
    found += [Way(f"mean {mean}", view, mean, draws) for mean in ("loss", "softmax", "logits")]
    return found


def sets(view: View) -> list[tuple[float, Way]]:
    """Every set of the atoms of a small support with its chance, the likeliest first, as a way to fool all of it.

    After ARC (Dbouk & Shanbhag 2022), which adds an atom to those that a step is for where the expected accuracy
    falls: an image's expected error is the chance of the likeliest set that one image of its ball fools at once.
    """
    atoms = view.source.atoms()
    if not 0 < len(atoms) <= FEW:
        return []
    some = [chosen for size in range(1, len(atoms) + 1) for chosen in combinations(range(len(atoms)), size)]
    chances = [sum(atoms[number].chance for number in chosen) for chosen in some]
    named = [Way(f"atoms {' '.join(str(number + 1) for number in one)}", view, "atoms", 1, one) for one in some]
    return sorted(zip(chances, named, strict=True), key=lambda pair: -pair[0])


class Aimed(NamedTuple):
    """What to ascend at the rows of a batch: an objective, the labels (n,), the classes aimed at (n,) or none."""

    objective: Objective
    labels: Tensor
    aims: Tensor | None

    def at(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Labels and aims of the rows."""
        return self.labels[rows], None if self.aims is None else self.aims[rows]


def slope(way: Way, aimed: Aimed, here: Tensor, rows: Tensor, index: tuple[int, int]) -> Slope:
    """The slope (m, c, h, w) of images `here` at the rows (m,), over draws named by `index`."""
    match way.mean:
        case "loss":
            return _mean_loss(way, aimed, here, rows, index)
        case "atoms":
            return _least(way, aimed, here, rows)
        case _:
            return _of_mean(way, aimed, here, rows, index)


def _packed(labels: Tensor, aims: Tensor | None) -> Tensor:
    return torch.stack([labels, labels if aims is None else aims], 1)


def _mean_loss(way: Way, aimed: Aimed, here: Tensor, rows: Tensor, index: tuple[int, int]) -> Slope:
    labels, aims = aimed.at(rows)

    def loss(outputs: Tensor, packed: Tensor) -> Tensor:
        return aimed.objective(as_logits(outputs), packed[:, 0], None if aims is None else packed[:, 1])

    total, mean = torch.zeros_like(here), None
    for _, one, outputs in way.view.gradients(loss, here, _packed(labels, aims), rows, way.draws, "grad", *index):
        total += finite(one)
        mean = as_logits(outputs) if mean is None else mean + as_logits(outputs)
    assert mean is not None
    return Slope(total, mean / way.view.draws(way.draws))


def _of_mean(way: Way, aimed: Aimed, here: Tensor, rows: Tensor, index: tuple[int, int]) -> Slope:
    """The objective of a mean, in two passes: its slope to the mean first, then that through each draw."""
    labels, aims = aimed.at(rows)

    def part(outputs: Tensor) -> Tensor:
        return as_logits(outputs).softmax(1) if way.mean == "softmax" else as_logits(outputs)

    draws, mean = way.view.draws(way.draws), None
    for outputs in way.view.all_logits(here, rows, way.draws, "grad", *index):
        mean = part(outputs) if mean is None else mean + part(outputs)
    assert mean is not None
    with torch.enable_grad():
        leaf = (mean / draws).requires_grad_(True)
        value = margin(leaf, labels, aims) if way.mean == "softmax" else aimed.objective(leaf, labels, aims)
        (outer,) = torch.autograd.grad(value.sum(), leaf)

    def through(outputs: Tensor, outer: Tensor) -> Tensor:
        return (part(outputs) * outer).sum(1)

    total = torch.zeros_like(here)
    for _, one, _ in way.view.gradients(through, here, outer, rows, way.draws, "grad", *index):
        total += finite(one)
    return Slope(total, leaf.detach())


def _least(way: Way, aimed: Aimed, here: Tensor, rows: Tensor) -> Slope:
    """The slope of the least margin among the way's atoms: it grows as long as one of them is still right.

    Of the atoms only the one that is furthest from being wrong has a gradient taken, image by image.
    """
    labels, aims = aimed.at(rows)
    atoms, compute = way.view.source.atoms(), way.view.compute

    def loss(outputs: Tensor, packed: Tensor) -> Tensor:
        return margin(as_logits(outputs), packed[:, 0], None if aims is None else packed[:, 1])

    said = [as_logits(compute.logits(atoms[number].realisation, here, rows)) for number in way.some]
    worst = torch.stack([margin(logits, labels, aims) for logits in said]).argmin(0)
    total = torch.zeros_like(here)
    for place, number in enumerate(way.some):
        mine = worst == place
        if bool(mine.any()):
            packed = _packed(labels, aims)[mine]
            _, one, _ = compute.gradient(atoms[number].realisation, here[mine], packed, loss, rows[mine])
            total[mine] = finite(one)
    return Slope(total, torch.stack(said).mean(0))

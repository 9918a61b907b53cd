"""What a length of time buys on this machine: the gradients an image that the attack `strong` may be given."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from bench.lab.attacks import losses
from bench.lab.attacks.view import View
from bench.lab.streams import Streams
from bench.lab.worker import Lab
from bench.recipes import Examples, Fetched, Strong
from bench.store.records import Store
from bench.store.tasks import Settings, images_in
from bench.suite.cells import Suite

IMAGES, TURNS = 32, 2  # of a measurement, after one turn that counts for nothing


class Affordable(NamedTuple):
    """An attack of kind strong on a model: over how many images, at how many gradients a second as measured just now
    (0: its weights are not here), and the `gradients` to write in the suite."""

    attack: str
    model: str
    images: int
    rate: float
    gradients: int


def affordable(suite: Suite, store: Store, settings: Settings, seconds: float) -> Iterator[Affordable]:
    """For each strong attack of the suite's tables: its share of so many seconds, in gradients an image.

    The time is shared by all of them alike. Every image is taken to need its whole budget: a search ends sooner
    where images are fooled. UserError as a model's loading raises it.
    """
    cells = {cell.outcomes.examples.key: cell for cell in suite.cells()
             if isinstance(cell.outcomes.examples.attack, Strong)}  # fmt: skip
    lab = Lab(settings)
    for cell in cells.values():
        examples = cell.outcomes.examples
        assert examples.source is not None
        images = images_in(examples)
        weights = examples.source.weights
        known = isinstance(weights, Fetched) or store.find(weights) is not None
        rate = _rate(lab, cell.outcomes.examples) if known else 0.0
        most = int(seconds / len(cells) * rate / max(1, images))
        yield Affordable(cell.attack, cell.source or cell.target, images, rate, most)


def _rate(lab: Lab, examples: Examples) -> float:
    """Gradients a second of the source, draws of its noise included."""
    assert examples.source is not None
    few = Examples(data=examples.data, shard=IMAGES)
    images, labels, _ = lab.shard(few, 0)
    source, compute = lab.model(examples.source), lab.compute()
    lab.suit(compute, examples.precision, examples.source, examples.data)
    view = View(source, images.shape, Streams(0, 0, lab.device), compute)
    times = []
    for turn in range(1 + TURNS):
        start = time.perf_counter()
        for _, slope, _ in view.gradients(losses.margin, images, labels, None, 1, "grad", turn):
            float(slope.abs().sum())  # waits for the device
        times.append(time.perf_counter() - start)
    return TURNS * len(images) / sum(times[1:])


def words(found: list[Affordable], text: str) -> str:
    """What to write, a line an attack."""
    lines = [f"in {text} on this machine, shared alike:"] if found else ["no table has an attack of kind strong"]
    for one in found:
        if not one.rate:
            lines.append(f"- {one.attack} on {one.model}: its weights are not here; train or fetch them first")
        elif not one.gradients:
            lines.append(f"- {one.attack} on {one.model}: not one gradient for each of {one.images} images")
        else:
            lines.append(f"- {one.attack} on {one.model}: gradients = {one.gradients} "
                         f"({one.rate:.0f} gradients a second, {one.images} images)")  # fmt: skip
    return "\n".join(lines)

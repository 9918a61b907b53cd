"""A program's model and images at hand of the harness for a call, and given back as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import UserError
from bench.api.checked import auto, device_of, folder_of, redraw_of, seed_of
from bench.api.data import given, read
from bench.api.lent import lent, module_of
from bench.api.model import ASK, Asked, asked
from bench.api.run import Bench, Place
from bench.recipes import Data, Fetched
from bench.store.tasks import Settings
from bench.suite.cells import Suite

if TYPE_CHECKING:
    from bench.lab.images.load import Images

MICROBATCH = 512


class Hand(NamedTuple):
    """What a call works on: images (the whole split of `data`), whether they are the program's own, and the model."""

    place: Place
    settings: Settings
    data: Data
    images: Images
    own: bool
    who: Asked
    notes: tuple[str, ...]

    @property
    def asked(self) -> int:
        """How many images are asked for."""
        return min(self.data.stop or self.data.whole, self.data.whole) - self.data.start

    @property
    def classes(self) -> int:
        """How many classes the model tells apart."""
        weights = self.who.model.weights
        if self.who.classifier is not None:
            return self.who.classifier.classes
        return weights.classes if isinstance(weights, Fetched) else weights.network.classes

    def bench(self, suite: Suite) -> Bench:
        """A suite over the call's store, with its model and images in memory."""
        held = {self.who.model.weights.key: self.who.classifier} if self.who.classifier is not None else {}
        return Bench(suite, self.place, self.settings, {self.data.source: self.images}, held)


@contextlib.contextmanager
def lend(
    model: Any,
    data: Any,
    n: Any,
    *,
    seed: Any,
    ordered: bool = False,
    device: Any = "auto",
    batch: Any = "auto",
    out: Any = None,
    data_root: Any = None,
    redraw: Any = None,
    **how: Any,
) -> Iterator[Hand]:
    """Model and data for the time of a call, the arguments checked; `how` is for `asked`."""
    import torch

    from bench.lab.compute.device import pick_device
    from bench.lab.images.load import as_tensor

    seed_of(seed)
    name, size = device_of(device), auto("batch", batch)
    target, root = pick_device(name), folder_of("data_root", data_root)
    redraw_of(redraw)
    found = given(data, n, seed=seed_of(seed), ordered=ordered)
    with contextlib.closing(Place(folder_of("out", out))) as place:
        settings = Settings(place.root, root, device=name, microbatch=MICROBATCH if size == "auto" else size)
        with torch.inference_mode(False), lent(module_of(model), target) as learning:
            data_, images = read(found.data, found.images, settings)
            who = asked(model, as_tensor(images.images[:ASK]).to(target), redraw=redraw, **how)
            notes = (*found.notes, *who.notes)
            if learning:
                notes = (*notes, "it was in training mode: judged in eval mode")
            yield _named(Hand(place, settings, data_, images, found.images is not None, who, notes))


def _named(hand: Hand) -> Hand:
    """With a class for each of the model's logits; UserError where labels are beyond them."""
    data, images, most = hand.data, hand.images, hand.images.labels.max()
    if most >= hand.classes:
        what = f"labels reach {most}, and the model has {hand.classes} classes"
        raise UserError("data", what, "labels count from 0; give the data of this model's classes")
    if not data.names or data.names == tuple(map(str, range(len(data.names)))):
        images = images._replace(classes=tuple(map(str, range(hand.classes))))
        data = data.model_copy(update={"classes": images.classes}) if data.own else data
    return hand._replace(data=data, images=images)

"""What a stranger's model is asked before it is judged: does it answer, with logits, and alike when asked again?

At least sixteen passes over eight images, in batches of three sizes and in another order, its first question
again and again to the end, with its state before and after. Noise that was not declared is refused with the
line that declares it; declared noise must follow the seed that it is given, whoever else is in the batch.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench import Refused
from bench.lab.compute.passes import Compute
from bench.lab.foreign.state import fingerprint
from bench.lab.foreign.theirs import Foreign, amount, precision_of, theirs
from bench.lab.streams import Streams
from bench.models.adapters.randomised import GlobalRandom, seeded
from bench.models.classifier import Classifier, Realisation

IMAGES = 8
NOISE = 1e-5
"""Distance of unit-length logits above which equal questions had other answers, though no generator was used."""
MATES, BESIDE = {torch.float32: 1e-3, torch.float64: 1e-6}, 1e-4
"""The same where the batch is of another size or order, for most images, because kernels differ and last bits tip a
quantised network here and there (in less than float32: 0.05); and where only the images beside one are others."""
SAME, OTHERS = [*range(IMAGES)], [0, 1, 2, 3, 0, 1, 2, 3]
ORDER = (SAME, [0], [3, 4, 5], SAME, [*reversed(range(IMAGES))], [6, 7, 1, 0, 2], OTHERS)


SWITCHES = "a forward pass switches it to training mode", "leave train() out of forward"
REMEMBERS = (
    "its parameters, buffers or tensors change as it is asked, so that each answer may depend on those before",
    "leave statistics and counters as they are outside of training, and draw noise anew in every pass",
)


class Asked(NamedTuple):
    """What came out: the precision of the model's weights, what its outputs are, and remarks for the user."""

    precision: str
    outputs: str
    notes: tuple[str, ...]


def fits(model: Classifier, images: Tensor, classes: int, where: str) -> None:
    """Refused unless the model answers images (n, c, h, w) of data with so many classes, one image and several."""
    if model.classes != classes:
        what = f"it has {model.classes:,} classes, the data has {classes}"
        fix = f"set classes = {classes} and name with outputs = [...] the logits that stand for them, or use other data"
        raise Refused(where, what, fix)
    eight = images[torch.arange(IMAGES, device=images.device) % len(images)]
    learn(model, eight, where)
    with seeded(0):  # whatever it draws, our own generators are as they were
        some = Asking(model, eight, where)
        some.whole()
        for rows in ([0], [3, 4, 5]):
            some.batch(rows, 0)


def steady(model: Classifier, images: Tensor, where: str) -> Asked:
    """Ask a model that `fits`: Refused where its answers depend on more than the image and its declared noise."""
    eight = images[torch.arange(IMAGES, device=images.device) % len(images)]
    model.eval()  # a pass that switches it may have gone before
    learn(model, eight, where)
    modes, numbers, whole = _modes(model), fingerprint(model, held=False), fingerprint(model)
    with seeded(1):
        asking = Asking(model, eight, where)
        try:
            notes = list((_declared if model.stochastic else _undeclared)(asking))
        except Refused:  # with a better reason, if there is one
            if _modes(model) != modes:
                raise Refused(where, *SWITCHES) from None
            if fingerprint(model) != whole:
                raise Refused(where, *REMEMBERS) from None
            raise
    if _modes(model) != modes:
        raise Refused(where, *SWITCHES)
    if not model.stochastic and fingerprint(model, held=False) != numbers:  # noise may be kept where it is drawn anew
        raise Refused(where, *REMEMBERS)
    said = asking.first
    assert said is not None
    kind = "logits"
    if float(said.min()) > -1e-5 and float(said.max()) < 1 + 1e-5 and float((said.sum(1) - 1).abs().max()) < 1e-3:
        kind = "probabilities"
        notes.append(
            "its outputs are probabilities and not logits: cross-entropy of a softmax hides gradients; return what is "
            "before the softmax, or its logarithm"
        )
    for part in model.modules():
        if isinstance(part, Foreign) and part.wrote:
            notes.append("it writes into its input: it is given a copy")
    precision = str(precision_of(model)).removeprefix("torch.")
    if precision != "float32":
        notes.append(f"its weights are {precision}: images are converted to that, and its logits to float32")
    return Asked(precision, kind, tuple(notes))


def _modes(model: Classifier) -> list[bool]:
    return [module.training for module in model.modules()]


class Asking:
    """One model under questions: which answers it gave, and what moved meanwhile."""

    def __init__(self, model: Classifier, images: Tensor, where: str) -> None:
        self.model, self.images, self.where = model, images, where
        self.compute = Compute(images.device, microbatch=len(images), joining=False)
        self.streams = Streams(0, 0, images.device)
        self.first: Tensor | None = None
        self.moved: set[str] = set()

    def draw(self, number: int) -> Realisation:
        generator = self.streams.generator("train", number) if self.model.stochastic else None
        with torch.no_grad():
            return self.model.realise(self.images.shape, generator)

    def batch(self, rows: list[int], number: int) -> Tensor:
        """Logits (len(rows), classes) of these images as one batch, in the draw of that number."""
        chosen = torch.tensor(rows, device=self.images.device)
        with theirs(self.where, f"{amount(len(rows))} went through it"), self._watched():
            try:
                return self.compute.logits(self.draw(number), self.images[chosen], chosen)
            except Refused as error:
                if len(rows) == IMAGES or self.first is None:
                    raise
                what = f"it answers {IMAGES} images, and fails at a batch of {len(rows)}: {error.what}"
                raise Refused(error.where, what, error.fix or "let it take any number of images") from error

    def whole(self, number: int = 0) -> Tensor:
        """Logits (8, classes) of all images in order; the first of them is kept."""
        said = self.batch([*range(IMAGES)], number)
        self.first = said if self.first is None else self.first
        return said

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        before = global_states()
        yield
        self.moved |= {name for name, state in global_states().items() if state != before[name]}


def learn(model: Classifier, images: Tensor, where: str) -> None:
    """Have a randomised network find out which of its noise is drawn by row."""
    for part in model.modules():
        if isinstance(part, GlobalRandom) and part.rows is None:
            with theirs(where, "images went through it"):
                part.learn(images)


def _undeclared(asking: Asking) -> Iterator[str]:
    worst, mates = _asked(asking, lambda turn: None)
    if worst > NOISE or (worst > 0 and asking.moved):
        source = f", drawn from the generator of {' and '.join(sorted(asking.moved))}" if asking.moved else ""
        what = f"passes over the same images differ (by {worst:.1g}){source}: this noise is not declared"
        raise Refused(asking.where, what, "write in its [weights] table: stochastic = true")
    if mates:
        what = f"an image's logits move by {mates:.1g} with the images beside it, or with how many they are"
        raise Refused(asking.where, what, "make each output a function of its own image (batch statistics? no eval()?)")
    yield from ()


def _declared(asking: Asking) -> Iterator[str]:
    parts = [part for part in asking.model.modules() if isinstance(part, GlobalRandom)]
    repeats, mates = _repeats(asking)
    if repeats <= NOISE and mates and parts:
        for part in parts:
            part.apart = True
        asking.first = None
        repeats, mates = _repeats(asking)
        yield "its noise belongs to the batch (NumPy's, or a shuffle): it runs image by image; torch's noise is faster"
    if repeats > NOISE:
        what = f"under one seed its answers differ by {repeats:.1g}: its noise does not come from the generators given"
        fix = (
            "draw it anew in every forward pass, from torch's, NumPy's or random's generator or one that the network "
            "holds; or return a bench.models.classifier.Classifier whose realise draws from the generator given"
        )
        raise Refused(asking.where, what, fix)
    if mates:
        what = f"in one draw an image's logits move by {mates:.1g} with the images beside it"
        raise Refused(asking.where, what, "make each output a function of its own image and its row of the noise")
    assert asking.first is not None
    if all(torch.equal(asking.first, asking.whole(number)) for number in range(1, 5)):
        yield "it is declared stochastic, and five draws are alike: nothing in it is random, or its seed is fixed"


def _repeats(asking: Asking) -> tuple[float, float]:
    # Another draw between, whose traces the next answer must not bear.
    return _asked(asking, lambda turn: asking.batch(SAME, turn + 1))


def _asked(asking: Asking, between: Callable[[int], object]) -> tuple[float, float]:
    """How far answers are apart where the question is the same, and where the batch is another; 0 for what an honest
    kernel may do there."""
    first, repeats, beside = asking.whole(), 0.0, 0.0
    moved: list[Tensor] = []
    for turn in range(3):
        for rows in (*ORDER, SAME):
            gaps = distances(first[torch.tensor(rows, device=first.device)], asking.batch(rows, 0))
            if rows == SAME:
                repeats = max(repeats, float(gaps.max()))
            elif rows == OTHERS:
                beside = max(beside, float(gaps[:4].max()))
            else:
                moved.append(gaps)
        between(turn)
    mostly = float(torch.cat(moved).median())
    alike = mostly <= MATES.get(precision_of(asking.model), 0.05) and beside <= BESIDE
    return repeats, 0.0 if alike else max(beside, mostly)


def distances(one: Tensor, other: Tensor) -> Tensor:
    """How far two images' logits (n, classes) are apart, each row scaled to unit length; (n,) float64."""
    finite = (t.double().clamp_min(-1e300) for t in (one, other))
    a, b = (t / t.norm(dim=1, keepdim=True).clamp_min(1e-12) for t in finite)
    gap: Tensor = (a - b).norm(dim=1)
    return gap


def global_states() -> dict[str, object]:
    """The states of the global generators, by the library that they are of."""
    numpy = np.random.get_state(legacy=False)["state"]
    torches = [torch.get_rng_state().numpy().tobytes()]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torches += [torch.cuda.get_rng_state(device).numpy().tobytes() for device in range(torch.cuda.device_count())]
    return {"torch": torches, "numpy": (numpy["key"].tobytes(), numpy["pos"]), "random": random.getstate()}

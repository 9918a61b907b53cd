"""The untouched model as a judge, a fresh copy of it where it remembers what it was asked."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.lab.attacks.adapt import copies
from bench.lab.attacks.ball import Ball
from bench.lab.compute.passes import Compute
from bench.lab.streams import Streams
from bench.models.adapters.randomised import GlobalRandom, seeded
from bench.models.classifier import Classifier, Plain, Realisation


class Fresh(Classifier):
    """A model that remembers its queries, as it is to who asks it first: each call goes to a new copy of it.

    Each image is met once by a copy if each call has each image once, as attacks and judges do.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model, self.classes, self.stochastic = copies.copied(model), model.classes, model.stochastic

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        state = None if generator is None else generator.get_state()

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            again = None if generator is None else torch.Generator(device=generator.device)
            if again is not None and state is not None:
                again.set_state(state)
            return copies.copied(self.model, sharing=True).realise(shape, again)(images, rows)

        return realisation


def remembers(base: Classifier, images: Tensor, ball: Ball, streams: Streams, compute: Compute) -> bool:
    """Whether a copy that has seen `images` answers images near them otherwise than one that has seen others."""
    near = ball.random(images, streams.generator("select", 64))

    def answer(*batches: Tensor) -> Tensor:
        model = copies.copied(base, sharing=True)
        for batch in batches:
            with torch.no_grad():
                draw = model.realise(batch.shape, streams.generator("select", 65) if model.stochastic else None)
            logits = compute.logits(draw, batch)
        return logits.double()

    others = torch.rand(images.shape, generator=streams.generator("select", 66), device=images.device)
    first, again, unseen, seen = answer(near), answer(near), answer(others, near), answer(images, near)
    noise = torch.maximum((first - again).abs().max(), (first - unseen).abs().max())
    return bool((first - seen).abs().max() > 10 * noise + 1e-3 * first.abs().max())


def classifier(model: nn.Module, images: Tensor) -> Classifier:
    """A plain module behind the interface of every classifier: with noise where passes differ, by seed or by turn.

    `images` (n, 3, h, w) are what it is tried on; a copy is, so that the model itself has seen nothing.
    """
    if isinstance(model, Classifier):
        return model
    try:
        trials = [copies.copied(Plain(model, 0)) for _ in range(2)]
    except copies.ViewError:
        trials = [Plain(model, 0)] * 2
    with torch.no_grad():
        with seeded(1):
            one = trials[0](images)
        with seeded(2):
            other = trials[1](images)
            third = trials[1](images)
    same = torch.equal(one, other) and torch.equal(one, third)
    return (Plain if same else GlobalRandom)(model, one.shape[1])

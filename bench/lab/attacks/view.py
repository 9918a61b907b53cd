"""A source as its attacker sees it: draws by purpose, and those that judge only once the attack is over."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from bench import UserError
from bench.lab.attacks import losses
from bench.lab.compute.joint import Joint, joint
from bench.lab.compute.passes import Compute, Loss
from bench.lab.streams import Purpose, Streams
from bench.models.classifier import Classifier, Realisation
from bench.recipes.attacks import Draw


class AttackError(RuntimeError):
    """An attack broke a rule of the protocol, or met numbers that it cannot follow; its result is no number."""


def attacked(source: Classifier, draw: Draw) -> Classifier:
    """What an attack of this protocol differentiates: the source, or for "none" the source without its noise."""
    if draw != "none":
        return source
    try:
        return source.mean()
    except NotImplementedError as error:
        raise UserError('attack: draw = "none"', str(error), 'attack with draw = "moving"') from None


class View:
    """The draws of a source for a batch of one shape (n, 3, h, w).

    Each draw of a stochastic source has a private generator, named by purpose and index; a
    deterministic source has one realisation, which every draw is, and so has a stochastic one whose draw is
    "frozen", and the network without its noise that draw = "none" is a view of. UserError if there is no such network.
    """

    def __init__(
        self, source: Classifier, shape: torch.Size, streams: Streams, compute: Compute, draw: Draw = "moving"
    ) -> None:
        self.source, self.shape, self.streams, self.compute = attacked(source, draw), shape, streams, compute
        self.stochastic = self.source.stochastic and draw != "frozen"
        generator = streams.generator("grad") if self.source.stochastic and draw == "frozen" else None
        with torch.no_grad():
            self._only = None if self.stochastic else self.source.realise(shape, generator)

    def draws(self, wanted: int) -> int:
        """How many draws it takes: one where all would be the same."""
        return wanted if self.stochastic else 1

    def draw(self, purpose: Purpose, *index: int) -> Realisation:
        """The draw of this name; the same name gives the same draw."""
        if self._only is not None:
            return self._only
        with torch.no_grad():
            return self.source.realise(self.shape, self.streams.generator(purpose, *index))

    def logits(self, images: Tensor, rows: Tensor | None, purpose: Purpose, *index: int) -> Tensor:
        """Logits (n, classes) of one draw."""
        return self.compute.logits(self.draw(purpose, *index), images, rows)

    def all_logits(
        self, images: Tensor, rows: Tensor | None, draws: int, purpose: Purpose, *index: int
    ) -> Iterator[Tensor]:
        """Logits (n, classes) of each of the draws (purpose, *index, 0..draws - 1); one if all would be the same."""
        for some in self._joint(images, rows, draws, purpose, *index):
            yield from some.apart(self.compute.logits(some.realisation, some.over(images), some.rows))

    def gradients(
        self, loss: Loss, images: Tensor, labels: Tensor, rows: Tensor | None, draws: int, purpose: Purpose, *index: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Loss, gradient and logits, as in `Compute.gradient`, of each of the draws that `all_logits` takes."""
        for some in self._joint(images, rows, draws, purpose, *index):
            batch, wanted = some.over(images), some.over(labels)
            found = self.compute.gradient(some.realisation, batch, wanted, loss, some.rows)
            yield from zip(*map(some.apart, found), strict=True)

    def _joint(self, images: Tensor, rows: Tensor | None, draws: int, purpose: Purpose, *index: int) -> Iterator[Joint]:
        if self._only is not None:
            return iter([Joint(self._only, 1, rows)])

        def generator(k: int) -> torch.Generator:
            return self.streams.generator(purpose, *index, k)

        return joint(self.source, self.shape, range(draws), generator, images, rows, compute=self.compute)

    def expected(
        self, loss: Loss, images: Tensor, labels: Tensor, rows: Tensor | None, draws: int, *index: int
    ) -> tuple[Tensor, Tensor]:
        """The loss and how often the source is wrong, (n,) each, over the selection draws ("select", *index,
        0..draws - 1): their mean and a share in [0, 1]."""
        total = torch.zeros(len(images), device=images.device)
        errors = torch.zeros(len(images), device=images.device)
        for logits in self.all_logits(images, rows, draws, "select", *index):
            total += loss(logits, labels)
            errors += losses.wrong(logits, labels)
        return total / self.draws(draws), errors / self.draws(draws)

    def standing(
        self, images: Tensor, labels: Tensor, rows: Tensor | None, draws: int, *index: int
    ) -> tuple[Tensor, Tensor]:
        """By what candidates compete, (n,) each: a margin, and above it how often the source is wrong (`expected`).

        The margin is the mean over draws of that between probabilities, so that a few very confident draws do
        not outweigh all others; of a deterministic source it is that between logits, which do not saturate.
        """
        return self.expected(losses.margin_of_chances if self.stochastic else losses.margin, images, labels, rows,
                             draws, *index)  # fmt: skip

    def chances(self, images: Tensor, rows: Tensor | None, draws: int, purpose: Purpose, *index: int) -> Tensor:
        """Softmax (n, classes) averaged over the draws (purpose, *index, 0..draws - 1)."""
        total: Tensor | None = None
        for logits in self.all_logits(images, rows, draws, purpose, *index):
            part = logits.softmax(1)
            total = part if total is None else total + part
        assert total is not None
        return total / self.draws(draws)

    def right(self, images: Tensor, labels: Tensor, draws: int) -> NDArray[np.bool_]:
        """Whether each image is right in each draw of the judge's stream, once an attack is over: (n, draws)."""
        each = [~losses.wrong(logits, labels) for logits in self.all_logits(images, None, draws, "score")]
        return np.asarray(torch.stack(each, dim=1).cpu().numpy(), np.bool_)

    def claims(self, images: Tensor, labels: Tensor, draws: int = 1) -> Tensor:
        """What an attack may believe of its images: 1 where the vote of `draws` draws of its own is wrong, else 0;
        (n,) int8. Ties belong to the lowest class."""
        if draws == 1:
            return losses.wrong(self.logits(images, None, "claim"), labels).to(torch.int8)
        winners = (said.argmax(1) for said in self.all_logits(images, None, draws, "claim"))
        counts = torch.stack([one_hot(winner, self.source.classes) for winner in winners]).sum(0)
        return losses.wrong(counts, labels).to(torch.int8)


class Found:
    """The best image seen so far of each original, by (errors, loss) in this order; `since` says who offered it.

    `errors` (n,) is the share of selection draws in which the source was wrong: 0 or 1 of a deterministic one.
    """

    def __init__(self, images: Tensor) -> None:
        n, device = len(images), images.device
        self.images = images.clone()
        self.loss = torch.full((n,), -torch.inf, device=device)
        self.errors = torch.zeros(n, device=device)
        self.since = torch.full((n,), -1, device=device)

    @property
    def fooled(self) -> Tensor:
        """Where no selection draw is right any more: (n,) bool."""
        return self.errors == 1

    def offer(
        self, images: Tensor, loss: Tensor, errors: Tensor, since: int, rows: Tensor | None, only: Tensor | None = None
    ) -> None:
        """Keep those of `images` (m, 3, h, w) that are better than what their `rows` have.

        `errors` (m,) in [0, 1] or bool. `only` (m,) bool: the rest is not offered.
        """
        at = slice(None) if rows is None else rows
        errors, old_loss, old_errors = errors.to(self.errors.dtype), self.loss[at], self.errors[at]
        better = (errors > old_errors) | ((errors == old_errors) & (loss > old_loss))
        if only is not None:
            better &= only
        self.images[at] = torch.where(better.view(-1, 1, 1, 1), images, self.images[at])
        self.loss[at] = torch.where(better, loss, old_loss)
        self.errors[at] = torch.where(better, errors, old_errors)
        self.since[at] = torch.where(better, since, self.since[at])

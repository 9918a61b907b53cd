"""Draws that share a pass: where few images are left, several draws of input noise fill a microbatch together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from bench.lab.compute.passes import Compute
from bench.models.classifier import Classifier, Realisation


class Joint(NamedTuple):
    """One or several draws of a classifier as one realisation, and the rows to call it with."""

    realisation: Realisation
    draws: int
    rows: Tensor | None

    def over(self, batch: Tensor) -> Tensor:
        """What the realisation is called with: `batch` (m, ...) once a draw, (draws * m, ...)."""
        return batch if self.draws == 1 else batch.repeat(self.draws, *(1 for _ in batch.shape[1:]))

    def apart(self, result: Tensor) -> Tensor:
        """What each draw said: `result` (draws * m, ...) as (draws, m, ...)."""
        return result.view(self.draws, -1, *result.shape[1:])


def joint(
    source: Classifier,
    shape: torch.Size,
    draws: range,
    generator: Callable[[int], torch.Generator | None],
    images: Tensor,
    rows: Tensor | None,
    *,
    compute: Compute,
) -> Iterator[Joint]:
    """The `draws` of `source`, in order, for `images` (m, ...), which are the `rows` of a batch of `shape`.

    Draw j comes from generator(j). Each image meets the noise that it would meet were the draws taken one by one.
    """
    while draws:
        now = draws[: compute.joint(source, len(draws), len(images))]
        # Not around the yield, where it would be in force for the caller too.
        with torch.no_grad():
            if len(now) == 1:
                some = Joint(source.realise(shape, generator(now[0])), 1, rows)
            else:
                some = Joint(source.realise_all(shape, [*map(generator, now)], rows), len(now), None)
        yield some
        draws = draws[len(now) :]

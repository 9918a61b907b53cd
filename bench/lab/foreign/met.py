"""The strangers that a worker has met: each is asked once, on the data that it is judged on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from bench import Refused
from bench.lab.foreign.ask import Asked, fits, steady
from bench.lab.weights.fetch import name_of
from bench.models.classifier import Classifier
from bench.models.smoothing import Smoothed
from bench.recipes import Data, Fetched, Model
from bench.votes.votes import Votes

OTHERWISE = 0.01  # of a probability: no equal pass moves one so far


class Met:
    """What the models said that were asked; `note` is told, once each, what their users should know."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note
        self._fit: set[tuple[str, str]] = set()
        self._asked: dict[tuple[str, str], Asked] = {}

    def ask(
        self,
        model: Model,
        classifier: Classifier,
        data: Data,
        images: Callable[[], Tensor],
        classes: int,
        *,
        judging: bool,
    ) -> None:
        """Ask a stranger's model, if it has not been, on the first of the data's `images` (n, c, h, w).

        `classes` is how many the data has. Refused as `fits` and, if `judging`, `steady`.
        """
        assert isinstance(model.weights, Fetched)
        known, where = (model.weights.key, data.key), name_of(model.weights)
        bare = classifier.base if isinstance(classifier, Smoothed) else classifier
        if known not in self._fit:
            fits(bare, images(), classes, where)
            self._fit.add(known)
        if judging and known not in self._asked:
            asked = self._asked[known] = steady(bare, images(), where)
            for note in asked.notes:
                self.note(f"{where}: {note}")

    def about(self, model: Model, data: Data, precision: str) -> dict[str, Any]:
        """What a record says of how its model computed: the precision (its weights', if they have another than
        float32), and whether its outputs are probabilities."""
        asked = self._asked.get((model.weights.key, data.key))
        if asked is None:
            return {"precision": precision}
        own = asked.precision if precision == "float32" else precision
        return {"precision": own} | ({"outputs": asked.outputs} if asked.outputs != "logits" else {})


def alike(votes: Votes, once_more: Votes, where: str) -> None:
    """Refused where a stranger's deterministic model, asked twice about all its images, gave any two answers.

    What it was asked before is a few clean images: noise may come with others alone, such as attacked ones.
    """
    apart = np.abs(votes.probs.astype(np.float32) - once_more.probs.astype(np.float32)).max(1)
    if (many := int((apart > OTHERWISE).sum())) > 0:
        what = f"{many} of {len(apart)} images were answered otherwise when asked once more: this noise is not declared"
        raise Refused(where, what, "write in its [weights] table: stochastic = true")

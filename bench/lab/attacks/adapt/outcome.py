"""What a search may spend, what it tried, and what it found."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.lab.attacks.adapt.kinds import Choice, Kind
from bench.models.classifier import Classifier


class Budget(NamedTuple):
    """What a search may spend: `gradients` on each of at most `images` images that the model gets right.

    A view takes `steps` of them, and what it finds is judged by `draws` draws.
    """

    images: int = 32
    steps: int = 10
    draws: int = 8
    gradients: int = 300


class Trial(NamedTuple):
    """A view, and how right the untouched model is on what it found, by image (m,) in [0, 1]."""

    choice: Choice
    right: NDArray[np.float64]

    @property
    def left(self) -> float:
        """Accuracy that is left, in [0, 1]."""
        return float(self.right.mean())


class Kept(NamedTuple):
    """A replacement that mattered: accuracy left without and with it (shares of 1), and that in words."""

    kind: Kind
    before: float
    after: float
    words: str


class Adapted(NamedTuple):
    """What a search found.

    views: what attacks differentiate, best first: at most two that find more, and last the untouched model itself.
    judge: what selects and scores: the untouched model itself, or fresh copies of it where it has a memory.
    kept, notes: findings (none of an honest model), and other things to say. left_out: views that could not be had,
    with the reason. trials: accuracy left by each view tried. gradients: spent, an image of all that were given.
    """

    views: tuple[Classifier, ...]
    judge: Classifier
    kept: tuple[Kept, ...]
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    trials: tuple[Trial, ...]
    gradients: float

    @property
    def view(self) -> Classifier:
        """The best view."""
        return self.views[0]

    @property
    def findings(self) -> tuple[str, ...]:
        """All findings in words."""
        return (*(kept.words for kept in self.kept), *self.notes)

"""RND: Gaussian noise on the input, against attacks that only see scores.

Qin, Fan, Zha & Wu, "Random Noise Defense Against Query-Based Black-Box Attacks", NeurIPS 2021.
Published claim: more queries for Square, NES and SignHunter on CIFAR-10 and ImageNet with nu = 0.01 and 0.02; none
against an attacker with gradients.
Definition: f(x + nu z), z ~ N(0, 1) elementwise, for each image, without clipping to [0, 1].
"""

from __future__ import annotations

from bench.models.classifier import Classifier
from bench.models.smoothing import Smoothed


class RND(Smoothed):
    """`Smoothed` in pixel units under its other name; over any classifier, randomised ones too.

    ValueError for a negative or infinite `nu`.
    """

    def __init__(self, base: Classifier, nu: float = 0.02) -> None:
        super().__init__(base, nu)

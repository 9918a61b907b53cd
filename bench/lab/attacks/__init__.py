"""Attacks: each crafts, from a source, images within eps of the originals."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from bench.store.bought import Account


class Crafted(NamedTuple):
    """What an attack leaves.

    images (n, 3, h, w) float32 in [0, 1]; claimed (n,) int8: 1 where the attack believes its source
    is fooled, 0 where not; iterates (steps + 1, n, 3, h, w) where they were asked for: 0 is the
    original image, k the image after k steps. account: what an attack that adapts says of its search.
    """

    images: Tensor
    claimed: Tensor
    iterates: Tensor | None = None
    account: Account | None = None

"""Every random number's generator, hashed from what it is for, so that streams never meet."""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

import torch

from bench.models.adapters.randomised import seeded as fenced

__all__ = ["Purpose", "Streams", "fenced"]

Purpose = Literal["train", "start", "grad", "select", "claim", "craft", "score"]
"""What randomness is for: attacks use start, grad, select, claim and craft; only judging uses score."""


class Streams(NamedTuple):
    """The generators of one shard of one piece of work.

    `generator("score", 3)` is the same on every CPU, and on every GPU of one model (what its generator gives depends
    on how many multiprocessors share it), whatever was drawn before, by whom, and in which order.
    """

    seed: int
    shard: int
    device: torch.device

    def number(self, purpose: Purpose, *index: int) -> int:
        """A 63-bit seed: SHA-256 of (purpose, seed, shard, index)."""
        text = ":".join(map(str, (purpose, self.seed, self.shard, *index)))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def generator(self, purpose: Purpose, *index: int) -> torch.Generator:
        """A fresh private generator on the streams' device."""
        return torch.Generator(device=self.device).manual_seed(self.number(purpose, *index))

"""Every random number's generator, hashed from what it is for, so that streams never meet."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch

Purpose = Literal["train", "start", "grad", "select", "claim", "craft", "score"]
"""What randomness is for: attacks use start, grad, select, claim and craft; only judging uses score."""


class Streams(NamedTuple):
    """The generators of one shard of one piece of work.

    `generator("score", 3)` is the same on every machine of one device type, whatever was drawn
    before, by whom, and in which order.
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


@contextlib.contextmanager
def fenced(seed: int) -> Iterator[None]:
    """Run third-party code on its own global randomness, and give ours back untouched."""
    import random

    import numpy as np

    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)

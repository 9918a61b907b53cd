"""The vote of infinitely many draws: what the judge leaves undecided, with and without `infinite`; about a minute."""

from __future__ import annotations

import numpy as np
import torch
from oracles import CPU, Dice, shard_of

from bench.lab.compute.passes import Compute
from bench.lab.judge import judge
from bench.lab.streams import Streams
from bench.recipes import Stopping
from bench.votes.numbers import Bounds, infinite

IMAGES, DRAWS = 1000, 512
CHANCES = [(1.0, 0.0, 0.0), (0.95, 0.05, 0.0), (0.9, 0.1, 0.0), (0.8, 0.2, 0.0), (0.7, 0.3, 0.0), (0.7, 0.15, 0.15),
           (0.6, 0.2, 0.2), (0.6, 0.4, 0.0), (0.55, 0.45, 0.0)]  # fmt: skip


def test_what_stays_undecided() -> None:
    print(f"\n{IMAGES} images, at most {DRAWS} draws, alpha 1e-3")
    heads = ("draws", "undecided, %", "infinite: draws", "undecided, %")
    print("chances".ljust(20) + "".join(head.rjust(18) for head in heads))
    shard = shard_of(torch.zeros(IMAGES, 3, 1, 1), torch.zeros(IMAGES, dtype=torch.long))
    for chances in CHANCES:
        line, target = str(chances).ljust(20), Dice([*chances, *[0.0] * 7])
        for on in (False, True):
            rule = Stopping(kind="adaptive", infinite=on)
            votes = judge(target, shard, DRAWS, rule, Streams(1, 0, CPU), Compute(CPU))
            bounds = infinite(votes)
            open_ = bounds.undecided if isinstance(bounds, Bounds) else 1.0
            line += f"{votes.drawn.mean():18.1f}{100 * open_:18.1f}"
        print(line)
        if chances[0] >= 0.7:
            assert open_ <= 0.01
            assert isinstance(bounds, Bounds) and bounds.sure >= 0.99
        assert np.isfinite(votes.probs).all()

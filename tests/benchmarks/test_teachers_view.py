"""What a crop or a flip changes of a teacher's targets, beside what other draws of its noise change: prints the table.

The published desk teacher on 300 training images, where CIFAR-10 is (BENCH_DATA); three minutes.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from oracles import CPU
from torch import Tensor

from bench.lab.compute.passes import Compute
from bench.lab.images.load import load, shuffle
from bench.lab.streams import Purpose, Streams
from bench.lab.train.batches import Batches
from bench.lab.train.teach import teach
from bench.lab.weights.build import build
from bench.lab.weights.files import load as state_of
from bench.store.records import Store
from bench.suite.reader import load as read

ROOT = Path(__file__).parents[2]
IMAGES, DRAWS = 300, 8


@pytest.mark.skipif("BENCH_DATA" not in os.environ, reason="needs the training images")
def test_views() -> None:
    recipe = read(ROOT / "suites" / "paper.toml", "desk").weights["cni"]
    record = Store(ROOT).find(recipe)
    assert record is not None
    teacher = build(recipe, state_of(record.path)).eval()
    shipped = load("cifar10", "train", Path(os.environ["BENCH_DATA"]))
    rows = shuffle(len(shipped.images), 0)[:IMAGES]
    images, labels = torch.from_numpy(shipped.images[rows]), torch.from_numpy(shipped.labels[rows])

    def view(augment: str, seed: int) -> Tensor:
        batches = Batches(images, labels, augment, CPU)  # type: ignore[arg-type]
        return batches(torch.arange(IMAGES), torch.Generator().manual_seed(seed))[0]

    original, both = view("none", 0), view("crop-flip", 1)
    dice = torch.Generator().manual_seed(2)
    down, right = torch.randint(9, (2, IMAGES), generator=dice).tolist()
    padded = torch.nn.functional.pad(original, (4, 4, 4, 4))
    crop = torch.stack([padded[i, :, y : y + 32, x : x + 32] for i, (y, x) in enumerate(zip(down, right, strict=True))])
    views = {"other draws": original, "flip": original.flip(3), "crop": crop, "crop and flip": both}
    for rule in ("vote", "soft"):
        first = targets(teacher, original, rule, Streams(0, 0, CPU))
        print(f"\n{rule} of {DRAWS} draws, {IMAGES} images: argmax changed, %; total variation, points")
        for name, batch in views.items():
            found = targets(teacher, batch, rule, Later(0, 0, CPU))
            changed = 100 * (found.argmax(1) != first.argmax(1)).float().mean()
            print(f"{name:16s}{changed:8.1f}{100 * 0.5 * (found - first).abs().sum(1).mean():8.1f}")


class Later(Streams):
    """Draws that come a hundred later."""

    def number(self, purpose: Purpose, *index: int) -> int:
        return super().number(purpose, index[0] + 100)


def targets(teacher, batch: Tensor, rule, streams: Streams) -> Tensor:
    return teach(teacher, batch, rule, DRAWS, 1.0, streams, compute=Compute(CPU, microbatch=50))

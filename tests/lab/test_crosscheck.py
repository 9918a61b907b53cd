"""Our attacks beside their peers' on a real network and on a classifier whose answer is known."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import NoisyLinear
from torch import nn

from bench.lab.compute.passes import Compute
from bench.lab.examine.crosscheck import Row, agreed, crosscheck, drawn_together, words
from bench.lab.images import load
from bench.lab.streams import Streams
from bench.lab.weights.fetch import fetch
from bench.models.classifier import Plain
from bench.recipes import Fetched
from bench.votes import intervals
from bench.votes.sharing import estimate

pytest.importorskip("foolbox")

CPU = torch.device("cpu")
NAMES = [
    "PGD (ours)",
    "PGD (torchattacks)",
    "PGD (foolbox)",
    "APGD-CE (pyautoattack)",
    "APGD-CE (torchattacks)",
]


def test_on_a_real_network_every_image_ends_the_same() -> None:
    """At an eps where about half of the images fall, so that agreement is not trivial."""
    images = load.load().take(slice(0, 16))
    source = fetch(Fetched(kind="autoattack-example"), Path())
    rows = crosscheck(
        source, load.as_tensor(images.images), torch.from_numpy(images.labels),
        eps=Fraction(1, 255), step=Fraction(1, 510), steps=3, apgd_steps=3,
        streams=Streams(0, 0, CPU), compute=Compute(CPU, microbatch=16),
    )  # fmt: skip
    assert [row.attack for row in rows] == [*NAMES, "APGD-T (pyautoattack)", "strong (ours)"]
    assert 0 < rows[0].robust.value < 0.9
    assert [row.agreement for row in rows[1:3]] == [1.0, 1.0]
    assert all(row.identical is not None and row.identical >= 0.9 for row in rows[1:3])
    assert agreed(rows) and "every image ends as with PGD (ours)" in words(rows)


def test_on_a_linear_classifier_all_reach_the_closed_form() -> None:
    source, generator = NoisyLinear(0.0, 2), torch.Generator().manual_seed(4)
    images = torch.rand(64, 3, 4, 4, generator=generator) * 0.4 + 0.3
    labels = torch.arange(64) % 2
    gap = (source.weight[1] - source.weight[0]) * (1 - 2 * labels.unsqueeze(1))
    robust = (-(images.flatten(1) * gap).sum(1) > 0.01 * gap.abs().sum(1)).double().mean()
    rows = crosscheck(
        source, images, labels, eps=Fraction(1, 100), step=Fraction(1, 100), steps=4, apgd_steps=10,
        streams=Streams(0, 0, CPU), compute=Compute(CPU),
    )  # fmt: skip
    assert 0.05 < robust < 0.8
    assert [row.robust.value for row in rows] == [pytest.approx(float(robust))] * 6


def test_a_stochastic_source_is_compared_on_shared_fresh_draws() -> None:
    source, generator = NoisyLinear(3.0), torch.Generator().manual_seed(4)
    images, labels = torch.rand(128, 3, 4, 4, generator=generator), torch.arange(128) % 5
    rows = crosscheck(
        source, images, labels, eps=Fraction(1, 100), step=Fraction(1, 200), steps=4, apgd_steps=5, draws=8,
        streams=Streams(0, 0, CPU), compute=Compute(CPU),
    )  # fmt: skip
    assert all(row.robust.low < row.robust.value < row.robust.high for row in rows)
    assert all(row.agreement is not None and 0.8 < row.agreement <= 1 for row in rows[1:3])
    assert any(row.robust.value * 128 * 8 % 8 for row in rows)  # shares of draws, not of images


def test_images_that_err_together_are_not_so_many_answers() -> None:
    """400 images that are all right or all wrong in each of 8 draws are 8 answers, not 3,200."""
    right = np.tile(np.array([1, 0, 1, 1, 0, 1, 0, 1], bool), (400, 1))
    together, apart = drawn_together(right), drawn_together(np.random.default_rng(0).random((400, 8)) < 5 / 8)
    wide, narrow = (intervals.of_share(estimate(one.each, [(1.0, one)]), 3200) for one in (together, apart))
    assert wide.high - wide.low > 0.5 and narrow.high - narrow.low < 0.06
    once = drawn_together(right[:, :1])
    assert intervals.of_share(estimate(once.each, [(1.0, once)]), 400)[1:] == (0.0, 1.0)


def test_a_difference_is_called_one() -> None:
    robust = intervals.share(50, 100)
    far = Row("B", "A", robust, 0.7, 0.0, intervals.Difference(-0.3, -0.4, -0.2, 1e-6))
    near = far._replace(difference=intervals.Difference(-0.01, -0.04, 0.02, 0.5))
    reference = Row("A", "", robust, None, None, None)
    assert not agreed([reference, far]) and agreed([reference, near])
    stronger = far._replace(alike=False)
    assert agreed([reference, stronger])
    said = words([reference, stronger])
    assert "leaves 30.0 points less than A: under PGD alone this model looks more robust" in said
    assert "leaves no less" in words([reference, near._replace(alike=False)])
    assert "differs, beyond its paired interval, from A" in words([reference, far])
    assert "agrees, within its paired interval, with A" in words([reference, near])


def test_a_masked_gradient_is_seen_by_apgd_t_and_autoattack() -> None:
    """Logits so confident that the cross-entropy's gradient is 0 in float32: PGD finds nothing, other losses do."""
    images = load.load().take(slice(0, 12))
    net = fetch(Fetched(kind="autoattack-example"), Path())
    source = Plain(Louder(net), 10).eval()
    rows = crosscheck(
        source, load.as_tensor(images.images), torch.from_numpy(images.labels),
        eps=Fraction(2, 255), step=Fraction(1, 255), steps=3, apgd_steps=5, autoattack=False,
        streams=Streams(0, 0, CPU), compute=Compute(CPU, microbatch=16),
    )  # fmt: skip
    by_name = {row.attack: row for row in rows}
    targeted = by_name["APGD-T (pyautoattack)"]
    assert by_name["PGD (ours)"].robust.value >= 0.5 and targeted.robust.value <= 0.25
    assert "APGD-T (pyautoattack): leaves" in words(rows) and "looks more robust than it is" in words(rows)


class Louder(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 1e3 * self.net(images)


def test_autoattack_is_run_whole_where_it_is_asked_for() -> None:
    source, generator = NoisyLinear(0.0, 5), torch.Generator().manual_seed(4)
    images, labels = torch.rand(12, 3, 4, 4, generator=generator), torch.arange(12) % 5
    rows = crosscheck(
        source, images, labels, eps=Fraction(1, 500), step=Fraction(1, 1000), steps=1, apgd_steps=2, autoattack=True,
        streams=Streams(0, 0, CPU), compute=Compute(CPU),
    )  # fmt: skip
    assert rows[-1].attack == "AutoAttack standard (pyautoattack)" and rows[-1].reference == "PGD (ours)"
    assert rows[-1].robust.value <= rows[0].robust.value

"""`strong` on models that hide their gradient: found by interception and named; nothing is said of honest ones."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from oracles import compute, noise_images, small_net, streams
from torch import Tensor, nn

from bench.lab.craft import craft
from bench.models.classifier import Plain
from bench.models.smoothing import Smoothed
from bench.recipes import PGD, Strong


class Rounded(nn.Module):
    """Inputs rounded to 16 levels, which leaves no gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net((images * 15).round() / 15)


@pytest.mark.parametrize("sigma", [0.0, 0.02])
def test_a_hidden_gradient_is_found_and_named(sigma: float) -> None:
    plain, images = small_net(), noise_images(40)
    labels = plain(images).argmax(1)
    inner = Plain(Rounded(plain), 10).eval()
    model = Smoothed(inner, sigma).eval() if sigma else inner
    attack = Strong(eps=Fraction(1, 10), gradients=300)
    made = craft(attack, model, images, labels, streams(), compute())
    with torch.no_grad():
        left = (inner(made.images).argmax(1) == labels).float().mean()
        pgd = craft(PGD(eps=Fraction(1, 10), step=Fraction(1, 40)), model, images, labels, streams(), compute())
        plainly = (inner(pgd.images).argmax(1) == labels).float().mean()
    assert left <= 0.05 < 0.3 < plainly
    assert made.account is not None and any("round" in words for words in made.account.findings)


@pytest.mark.parametrize("sigma", [0.0, 0.02])
def test_nothing_is_said_of_an_honest_model(sigma: float) -> None:
    plain, images = small_net(seed=3), noise_images(40, seed=2)
    labels = plain(images).argmax(1)
    model = Smoothed(plain, sigma).eval() if sigma else plain
    made = craft(Strong(eps=Fraction(1, 100), gradients=150), model, images, labels, streams(), compute())
    assert made.account is not None and made.account.findings == ()
    assert len(made.account.spent) == 40 and max(made.account.spent) <= 150

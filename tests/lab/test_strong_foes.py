"""Models made to be beaten by something plainer than `strong`: what each hid from an earlier form of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from oracles import compute, noise_images, small_net, streams
from torch import Tensor, nn

from bench.lab.attacks.ball import Ball
from bench.lab.attacks.strong import craft
from bench.lab.attacks.strong.ascent import moving
from bench.lab.attacks.strong.race import Raced, worse
from bench.lab.attacks.strong.search import Search
from bench.lab.attacks.view import View
from bench.lab.craft import craft as checked
from bench.models.adapters.randomised import GlobalRandom
from bench.models.classifier import Classifier, Plain, Realisation
from bench.recipes import PGD, Square, Strong

EPS = Fraction(1, 50)


class Over(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


class Decoys(Over):
    """Ten classes more, always just below the largest: every margin to a near class leads nowhere, and MALT's order has
    nothing else among its nine."""

    def forward(self, images: Tensor) -> Tensor:
        logits = 20 * self.net(images)
        wave = torch.randn(images[0].numel(), 10, generator=torch.Generator().manual_seed(0))
        height = 0.04 * torch.sin((images.flatten(1) - 0.5) @ wave / 30)
        return torch.cat([logits, logits.amax(1, keepdim=True) - 0.05 + height], 1)


class Level(Over):
    """No slope at any image that bytes hold, where attacks begin that do not begin at random."""

    def forward(self, images: Tensor) -> Tensor:
        turns = 2 * math.pi * 255
        return self.net(images - torch.sin(turns * images) / turns)


class Partly(Over):
    """Rounded where the first pixels are bright, honest elsewhere: few of the images that are looked at say so."""

    def forward(self, images: Tensor) -> Tensor:
        bright = images[:, :1, :4, :4].mean((1, 2, 3), keepdim=True) > 0.55
        return self.net(torch.where(bright, (images * 15).round() / 15, images))


def left(model: Classifier, images: Tensor, labels: Tensor) -> int:
    with torch.no_grad():
        return int((model(images).argmax(1) == labels).sum())


@pytest.mark.parametrize(("foe", "classes"), [(Decoys, 20), (Level, 10), (Partly, 10)])
def test_nothing_plainer_finds_more(foe: Callable[[nn.Module], nn.Module], classes: int) -> None:
    plain, images = small_net(seed=2), (noise_images(30, seed=7) * 255).round() / 255
    model = Plain(foe(plain), classes).eval()
    labels = model(images).argmax(1)
    attack = Strong(eps=EPS)
    ours = left(model, craft(attack, model, images, labels, streams(), compute()).images, labels)
    others = [PGD(eps=EPS, step=EPS / 4, steps=20), PGD(eps=EPS, step=EPS / 10, steps=100), Square(eps=EPS)]
    theirs = [left(model, checked(one, model, images, labels, streams(), compute()).images, labels) for one in others]
    assert ours <= min(theirs) < 30, (ours, theirs)


class NoisyDecoys(Over):
    """The same with waves drawn anew at each pass: in no draw does a margin to a near class lead anywhere."""

    def forward(self, images: Tensor) -> Tensor:
        logits = 20 * self.net(images)
        height = 0.04 * torch.sin((images.flatten(1) - 0.5) @ torch.randn(images[0].numel(), 10) / 14)
        return torch.cat([logits, logits.amax(1, keepdim=True) - 0.05 + height], 1)


def test_pgd_over_draws_finds_no_more_behind_decoys() -> None:
    plain, images = small_net(seed=2), noise_images(16, seed=7)
    model = GlobalRandom(NoisyDecoys(plain), 20).eval()
    labels = plain(images).argmax(1)
    view = View(model, images.shape, streams(), compute())
    eot = PGD(eps=EPS, step=EPS / 4, steps=15, eot=20)
    found = (craft(Strong(eps=EPS), model, images, labels, streams(), compute()).images,
             checked(eot, model, images, labels, streams(), compute()).images)  # fmt: skip
    ours, theirs = (view.right(made, labels, 8).mean() for made in found)
    assert ours <= theirs + 0.01 and theirs < 0.8, (ours, theirs)


def test_a_path_leaves_what_is_flat_and_no_other_slope_changes() -> None:
    slope = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    slope[1] = 0
    rows = torch.tensor([0, 4, 2])
    moved = moving(slope, rows, 6, streams(), 1, 2)
    assert torch.equal(moved[[0, 2]], slope[[0, 2]]) and bool(moved[1].any())
    assert torch.equal(moving(slope[1:2], rows[1:2], 6, streams(), 1, 2), moved[1:2])  # whoever else is there


class Two(Classifier):
    """A coin of which one side is a network and the other says nothing; its mean is another, useless network."""

    stochastic = True
    classes = 10

    def __init__(self, net: nn.Module, mean: nn.Module) -> None:
        super().__init__()
        self.net, self.other = net, mean

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        shift = 0.02 * torch.randn((), generator=generator)
        return lambda images, rows=None: self.net(images + shift)

    def mean(self) -> Classifier:
        return Plain(self.other, 10)


def test_a_way_that_is_shown_to_be_worse_leaves_and_a_cheap_one_that_is_not_stays() -> None:
    images = noise_images(60, seed=7)
    for mean, stays in ((small_net(seed=9), False), (small_net(seed=2), True)):
        model = Two(small_net(seed=2), mean).eval()
        labels = small_net(seed=2)(images).argmax(1)
        search = Search(Strong(eps=EPS, gradients=400), View(model, images.shape, streams(), compute()), images, labels)
        raced = Raced(search)
        raced.hunt()
        assert (raced.best_ways()[0].name == "mean network") == stays
    some = torch.linspace(0, 1, 40)
    assert worse(some - 0.1, some) and not worse(some, some) and not worse(some[:2] - 0.1, some[:2])


def test_the_dual_norm_is_what_a_step_gains() -> None:
    slope = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for norm in ("Linf", "L2"):
        ball = Ball(1.0, norm)
        assert torch.allclose((ball.along(slope) * slope).sum((1, 2, 3)), ball.steepness(slope))

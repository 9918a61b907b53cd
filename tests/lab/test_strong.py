"""`strong` against what is known exactly: closed forms, convex programs, networks settled by branching."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import numpy as np
import pytest
import torch
from oracles import compute, noise_images, small_net, streams
from scipy.optimize import linprog
from torch import Tensor, nn

from bench.lab.attacks.ball import Ball
from bench.lab.attacks.strong.search import Search
from bench.lab.attacks.strong.sure import Sure
from bench.lab.attacks.view import View
from bench.lab.compute.passes import Compute
from bench.lab.craft import craft
from bench.models.classifier import Classifier, Plain
from bench.recipes import PGD, Strong

Norm = Literal["Linf", "L2"]


def run(attack: Strong, model: Classifier, images: Tensor, labels: Tensor, counted: Compute | None = None) -> Search:
    search = Search(attack, View(model, images.shape, streams(), counted or compute()), images, labels)
    Sure(search).hunt()
    return search


def right(model: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images).argmax(1) == labels


class Affine(nn.Module):
    """Logits W x + b."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T + self.bias


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("seed", [0, 1])
def test_linear_closed_form(norm: Norm, seed: int) -> None:
    """Right everywhere in the ball exactly where every class's gap exceeds eps times its dual norm."""
    dice = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, 48, generator=dice)
    images = 0.5 + 0.2 * (torch.rand(200, 3, 4, 4, generator=dice) - 0.5)
    model = Plain(Affine(weight, -0.5 * weight.sum(1)), 6).eval()
    logits = model(images)
    labels = logits.argmax(1)
    gap = logits.gather(1, labels.unsqueeze(1)) - logits
    steep = Ball(1.0, norm).steepness((weight[labels].unsqueeze(1) - weight).flatten(0, 1)[..., None, None])
    room = gap / steep.view(200, 6).clamp_min(1e-12)
    room = room.scatter(1, labels.unsqueeze(1), torch.inf).amin(1)
    eps = Fraction(str(round(float(room.median()), 6)))
    clear = (room - float(eps)).abs() > 1e-5
    left = right(model, run(Strong(eps=eps, norm=norm), model, images, labels).best.images, labels)
    assert torch.equal(left[clear], (room > float(eps))[clear])
    assert eps < Fraction(2, 5) and 50 < int(left.sum()) < 150  # clamping aside, and neither trivial


class Hull(nn.Module):
    """Two classes: 0, and the largest of several planes: to leave class 1 all planes must be low at once."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.planes = Affine(weight, bias)

    def forward(self, images: Tensor) -> Tensor:
        top = self.planes(images).amax(1)
        return torch.stack([torch.zeros_like(top), top], 1)


def test_piecewise_linear_by_linear_programs() -> None:
    """The least value of a maximum of planes over the L-inf ball and the box is a linear program's."""
    dice = torch.Generator().manual_seed(3)
    weight, eps = torch.randn(5, 12, generator=dice), 0.15
    net = Hull(weight, -0.5 * weight.sum(1) + 0.1)
    model = Plain(net, 2).eval()
    images = torch.rand(120, 3, 2, 2, generator=dice)
    images = images[net(images)[:, 1] > 0]
    least = []
    for image in images.flatten(1).double().numpy():
        bounds = [(max(0.0, v - eps), min(1.0, v + eps)) for v in image] + [(None, None)]
        planes = np.hstack([weight.double().numpy(), -np.ones((5, 1))])
        found = linprog([0.0] * 12 + [1.0], A_ub=planes, b_ub=-net.planes.bias.double().numpy(), bounds=bounds)
        least.append(found.fun)
    truth = torch.tensor(least)
    labels = torch.ones(len(images), dtype=torch.long)
    left = right(model, run(Strong(eps=Fraction("0.15")), model, images, labels).best.images, labels)
    clear = truth.abs() > 1e-3
    assert torch.equal(left[clear], (truth > 0)[clear])
    assert 5 < int(left.sum()) < len(images) - 5 and clear.float().mean() > 0.95


def settle(layers: list[tuple[np.ndarray, np.ndarray]], image: np.ndarray, label: int, ball: Ball) -> bool | None:
    """Whether a ReLU network is right in all of the ball, by branching on boxes with interval bounds; None: open."""
    low, high = np.maximum(image - ball.eps, 0)[None], np.minimum(image + ball.eps, 1)[None]
    for _ in range(24):
        middle = (low + high) / 2
        if ball.norm == "L2":
            near = np.clip(image, low, high) - image
            kept = np.square(near).sum(1) <= ball.eps**2
            low, high, middle = low[kept], high[kept], middle[kept]
            inside = np.square(middle - image).sum(1) <= ball.eps**2
        else:
            inside = np.ones(len(low), bool)
        value, lo, hi = middle, low, high
        for number, (weight, bias) in enumerate(layers):
            if number == len(layers) - 1:  # of the gaps to the label, which cancel what both logits share
                weight, bias = weight[label] - np.delete(weight, label, 0), bias[label] - np.delete(bias, label)
            up, down = np.maximum(weight, 0), np.minimum(weight, 0)
            lo, hi = lo @ up.T + hi @ down.T + bias, hi @ up.T + lo @ down.T + bias
            value = value @ weight.T + bias
            if number < len(layers) - 1:
                value, lo, hi = (np.maximum(part, 0) for part in (value, lo, hi))
        if (inside & (value.min(1) < -1e-6)).any():
            return False
        open_ = lo.min(1) <= 0
        low, high = low[open_], high[open_]
        if not len(low):
            return True
        if len(low) > 5_000:
            return None
        axis = (high - low).argmax(1)
        cut = (low + high)[np.arange(len(low)), axis] / 2
        left_high, right_low = high.copy(), low.copy()
        left_high[np.arange(len(low)), axis] = right_low[np.arange(len(low)), axis] = cut
        low, high = np.concatenate([low, right_low]), np.concatenate([left_high, high])
    return None


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_relu_network_settled_by_branching(norm: Norm) -> None:
    """Of every image that exact search breaks an example is found, and of none that it proves right."""
    dice = torch.Generator().manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=dice) * (2 / parameter.shape[-1]) ** 0.5
    net[1].weight.data *= 4
    net[1].bias.data = -0.5 * net[1].weight.data.sum(1)
    model = Plain(net.eval().requires_grad_(False), 4).eval()
    images = torch.rand(60, 2, 1, 1, generator=dice)
    labels = model(images).argmax(1)
    eps = Fraction(1, 8)
    layers = [(m.weight.double().numpy(), m.bias.double().numpy()) for m in net if isinstance(m, nn.Linear)]
    truth = [settle(layers, image, int(label), Ball(float(eps), norm)) for image, label in
             zip(images.flatten(1).double().numpy(), labels, strict=True)]  # fmt: skip
    left = right(model, run(Strong(eps=eps, norm=norm), model, images, labels).best.images, labels)
    wrong = [n for n, (said, known) in enumerate(zip(left.tolist(), truth, strict=True)) if known not in (None, said)]
    assert not wrong and truth.count(None) <= 4
    assert truth.count(True) > 10 and truth.count(False) > 5


class Answering(nn.Module):
    """A network whose outputs were changed, its answers kept."""

    def __init__(self, net: nn.Module, kind: str) -> None:
        super().__init__()
        self.net, self.kind = net, kind

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(images)
        match self.kind:
            case "half":
                return logits.half()
            case "softmax":
                return logits.softmax(1)
            case _:
                return logits * float(self.kind)


def test_no_scale_and_no_softmax_hides_anything() -> None:
    """Logits times 1e-4 to 1e4, in float16, or as probabilities leave what the plain network leaves; PGD does not."""
    plain = small_net(seed=1)
    images = noise_images(60, seed=5)
    labels = plain(images).argmax(1)
    attack = Strong(eps=Fraction(1, 100), gradients=100)

    def left(kind: str) -> int:
        model = Plain(Answering(plain, kind), 10).eval()
        search = run(attack, model, images, labels)
        assert "no gradient" not in search.end and "class 1" in search.names  # of large logits
        return int(right(plain, search.best.images, labels).sum())

    reference = left("1")
    assert 5 < reference < 55
    assert all(abs(left(kind) - reference) <= 1 for kind in ("1e-4", "1e4", "1e6", "half", "softmax"))
    pgd = PGD(eps=Fraction(1, 100), step=Fraction(1, 400), steps=20, random_start=False)
    masked = Plain(Answering(plain, "1e6"), 10).eval()
    assert int(right(plain, craft(pgd, masked, images, labels, streams(), compute()).images, labels).sum()) > reference


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_every_pass_is_booked_and_none_beyond_the_budget(norm: Norm) -> None:
    model, images = small_net(), noise_images(20)
    labels = model(images).argmax(1)
    counted = compute()
    attack = Strong(eps=Fraction(1, 50), norm=norm, gradients=33, tolerance=0.0)
    search = run(attack, model, images, labels, counted)
    assert float(search.spent.max()) <= 33 and len(search.bought) >= 2
    assert float(search.spent.sum()) == counted.backwards + 0.5 * (counted.forwards - counted.backwards)
    assert sum(one.gain for one in search.bought) == pytest.approx(float(search.best.fooled.float().mean()))
    assert torch.equal(~search.best.fooled, right(model, search.best.images, labels))


def test_an_image_that_is_fooled_costs_no_more() -> None:
    model, images = small_net(), noise_images(12)
    labels = model(images).argmax(1)
    labels[:6] = (labels[:6] + 1) % 10
    search = run(Strong(eps=Fraction(1, 500), tolerance=0.0, gradients=60), model, images, labels)
    assert search.spent[:6].tolist() == [0.5] * 6 and (search.best.since[:6] == 0).all()
    assert torch.equal(search.best.images[:6], images[:6])


def test_gradients_that_are_hidden_leave_it_to_scores() -> None:
    """Rounded logits have no gradient; the score-based member finds what there is, and its name is kept."""

    class Rounded(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, images: Tensor) -> Tensor:
            return (self.net(images) * 500).round() / 500 + 0 * images.sum()

    model, images = Plain(Rounded(small_net()), 10).eval(), noise_images(30)
    labels = model(images).argmax(1)
    search = run(Strong(eps=Fraction(1, 25), gradients=300), model, images, labels)
    assert search.names[-1] == "score" and search.bought[-1].gain > 0.4
    assert int(search.best.fooled.sum()) > 12


def test_it_ends_where_its_members_buy_nothing_and_says_so() -> None:
    model, images = small_net(), noise_images(20)
    labels = model(images).argmax(1)
    search = run(Strong(eps=Fraction(0), gradients=10_000, tolerance=0.01), model, images, labels)
    assert "less than the tolerance" in search.end and float(search.spent.max()) < 300
    assert "budget" in run(Strong(eps=Fraction(0), gradients=50), model, images, labels).end
    assert "every image" in run(Strong(eps=Fraction(1, 2)), model, images, labels).end

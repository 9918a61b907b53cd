"""Classifiers whose right answers are known in closed form, and real ones that need no download."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.lab.compute.passes import Compute
from bench.lab.images.load import as_tensor, load
from bench.lab.judge import Judged
from bench.lab.streams import Purpose, Streams
from bench.models.classifier import Classifier, Plain, Realisation

CPU = torch.device("cpu")


def compute(microbatch: int = 64) -> Compute:
    return Compute(CPU, microbatch=microbatch)


def streams(seed: int = 0, shard: int = 0) -> Streams:
    return Streams(seed, shard, CPU)


class Witness(Streams):
    """Streams that remember what they were asked for, and pass the memory to all streams made from them."""

    asked: set[str] = set()  # noqa: RUF012

    def number(self, purpose: Purpose, *index: int) -> int:
        self.asked.add(purpose)
        return super().number(purpose, *index)


class Linear(Classifier):
    """Two classes: logits (0, w.x + b). Within eps in L-inf, clamping aside, the margin falls by eps |w|_1."""

    stochastic = False
    classes = 2

    def __init__(self, weight: Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight, requires_grad=False), bias

    def values(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.flatten() + self.bias

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            value = self.values(images)
            return torch.stack([torch.zeros_like(value), value], 1)

        return realisation

    def robust(self, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        """Where no perturbation within eps changes the answer, clamping aside: (n,) bool."""
        value = self.values(images) * (2 * labels - 1)
        return value > eps * self.weight.abs().sum()


def linear_problem(n: int, seed: int) -> tuple[Linear, Tensor, Tensor]:
    """A linear classifier, and images far from 0 and 1 with its own answers as labels.

    Their distances to the boundary in L-inf are spread up to about 0.08.
    """
    dice = torch.Generator().manual_seed(seed)
    model = Linear(torch.randn(3, 4, 4, generator=dice))
    model.bias = -0.5 * float(model.weight.sum())
    distance = 0.16 * torch.rand(n, 1, 1, 1, generator=dice) - 0.08
    images = 0.5 + distance * model.weight.sign() + 0.005 * torch.randn(n, 3, 4, 4, generator=dice)
    return model, images, (model.values(images) > 0).long()


class Dice(Classifier):
    """Says class c with probability chances[c], image by image and draw by draw."""

    classes = 10
    stochastic = True

    def __init__(self, chances: list[float]) -> None:
        super().__init__()
        self.chances = torch.tensor(chances)

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        said = torch.multinomial(self.chances, shape[0], replacement=True, generator=generator)
        logits = nn.functional.one_hot(said, self.classes).float()
        return lambda images, rows=None: logits if rows is None else logits[rows]


class ConstantP(Classifier):
    """Right with probability p at every draw, whatever the image: no attack changes its expected accuracy.

    It knows the labels by row. The image enters by a slope too small to decide anything, so that
    attacks have a gradient to follow.
    """

    stochastic = True
    classes = 10

    def __init__(self, labels: Tensor, p: float) -> None:
        super().__init__()
        self.labels, self.p = labels, p

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        luck = torch.rand(shape[0], generator=generator)
        size = 1 + torch.rand(shape[0], generator=generator)
        answers = torch.where(luck < self.p, self.labels, (self.labels + 1) % self.classes)
        table = nn.functional.one_hot(answers, self.classes) * size.unsqueeze(1)

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            return table[slice(None) if rows is None else rows] + 1e-3 * images.flatten(1).mean(1, keepdim=True)

        return realisation


@functools.cache
def resnet18() -> Plain:
    """The ResNet-18 that pyautoattack ships: trained without defence, 93.5 % clean, 0 % under PGD-10."""
    import pyautoattack
    from pyautoattack.examples.resnet import ResNet18

    net = ResNet18()
    path = Path(pyautoattack.__file__).parent / "examples" / "model_test.pt"
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return Plain(net.eval().requires_grad_(False), 10).eval()


@functools.cache
def shipped_test() -> tuple[Tensor, Tensor]:
    """The first 1,000 test images of CIFAR-10 as float32 in [0, 1], and their labels."""
    images = load("cifar10", "test").take(slice(0, 1000))
    return as_tensor(images.images), torch.from_numpy(images.labels.copy())


def test_images(n: int, start: int = 0) -> tuple[Tensor, Tensor]:
    images, labels = shipped_test()
    return images[start : start + n], labels[start : start + n]


test_images.__test__ = False  # type: ignore[attr-defined]


def small_net(classes: int = 10, seed: int = 0, side: int = 8) -> Plain:
    """A small convolutional network with random weights, for images (n, 3, side, side)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * side * side, classes))
    return Plain(net.eval().requires_grad_(False), classes).eval()


def noise_images(n: int, side: int = 8, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


@functools.cache
def trained(adversarial: bool, epochs: int = 2) -> Plain:
    """A small network trained on the shipped excerpt: on clean images, or on one-step examples at 8/255.

    Fast adversarial training (Wong et al. 2020): a random start, one step of 10/255, Adam. Honest and
    weak; the same weights each time on one machine.
    """
    shipped = load("cifar10", "excerpt")
    images, labels = as_tensor(shipped.images), torch.from_numpy(shipped.labels.copy())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 8 * 8, 10),
        )  # fmt: skip
        steps = epochs * (len(images) // 100)
        optimiser = torch.optim.Adam(net.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
        order = torch.cat([torch.randperm(len(images)) for _ in range(epochs)])
        for batch in order[: steps * 100].view(steps, 100):
            x, y = images[batch], labels[batch]
            if adversarial:
                delta = torch.empty_like(x).uniform_(-8 / 255, 8 / 255).requires_grad_(True)
                (slope,) = torch.autograd.grad(nn.functional.cross_entropy(net(x + delta), y), delta)
                x = (x + (delta.detach() + 10 / 255 * slope.sign()).clamp(-8 / 255, 8 / 255)).clamp(0, 1)
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimiser.step()
            schedule.step()
    return Plain(net.eval().requires_grad_(False), 10).eval()


def shard_of(images, labels):
    n = len(images)
    return Judged(images, labels, np.arange(n), np.zeros(n, np.float32), np.full(n, -1, np.int8))


class NoisyLinear(Classifier):
    """A linear classifier whose logits get noise: what was drawn shows in what it says."""

    def __init__(self, sigma: float, classes: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(classes, 48, generator=generator), requires_grad=False)
        self.sigma, self.classes, self.stochastic = sigma, classes, sigma > 0
        self.drawn: list[Tensor] = []

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        noise = torch.zeros(shape[0], self.classes)
        if self.sigma:
            noise = self.sigma * torch.randn(shape[0], self.classes, generator=generator)
        self.drawn.append(noise)

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            return images.flatten(1) @ self.weight.T + (noise if rows is None else noise[rows])

        return realisation

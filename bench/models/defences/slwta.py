"""Stochastic local winner-takes-all units in the place of ReLUs.

Panousis, Chatzis & Theodoridis, "Stochastic Local Winner-Takes-All Networks Enable Profound Adversarial Robustness"
(Bayesian Deep Learning workshop at NeurIPS 2021).
Published claim, of the weights in their repository: CIFAR-10, WRN-34-1, 86.56 % clean, 76.08 % under AutoAttack's
`rand`.
Definition: neighbouring channels (2k, 2k + 1) compete at each pixel of each image: xi = softmax((h + Gumbel) / tau)
over the pair, and h xi goes on; tau is 0.67 in training and 0.01 afterwards. The difference of two Gumbel variables is
logistic: xi = sigmoid((a - b + logit(u)) / tau) with one u ~ U(0, 1) a pair is the same law. As tau falls to 0 the
mean of xi tends to sigmoid(a - b), the unit without noise at temperature 1, whose gradient does not vanish.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.models.classifier import Classifier, Plain, Realisation, Where
from bench.models.defences.base import Change, PerImage, altered

SMALLEST = 2.0**-25  # of u: half the distance of two neighbouring draws of a float32


class LWTA(nn.Module):
    """A unit without its noise, at temperature 1; `temp` is a number that their checkpoints hold and nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.temp = nn.Parameter(torch.tensor(0.67))

    def forward(self, h: Tensor) -> Tensor:
        return compete(h, torch.zeros((), device=h.device), 1.0)


def compete(h: Tensor, noise: Tensor, tau: float) -> Tensor:
    """h (n, 2k, ...) times its shares of winning; `noise` (n, k, ...) is logistic, or 0."""
    a, b = h[:, ::2], h[:, 1::2]
    share = torch.sigmoid((a - b + noise) / tau)
    return torch.stack([a * share, b * (1 - share)], 2).flatten(1, 2)


class Block(nn.Module):
    """BN, LWTA, 3x3, BN, LWTA, 3x3, plus the input, or a 1x1 convolution of the activated input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.lwta1 = nn.BatchNorm2d(inputs), LWTA()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2, self.lwta2 = nn.BatchNorm2d(outputs), LWTA()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = inputs == outputs
        self.convShortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.lwta1(self.bn1(x))
        residual: Tensor = self.conv2(self.lwta2(self.bn2(self.conv1(active))))
        return residual + (x if self.convShortcut is None else self.convShortcut(active))


class Group(nn.Module):
    """The blocks of one stage, under the name that the published checkpoint gives them."""

    def __init__(self, blocks: int, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        parts = [Block(outputs if i else inputs, outputs, 1 if i else stride) for i in range(blocks)]
        self.layer = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y


class LWTAWideResNet(nn.Module):
    """WRN-`depth`-`width` of such units: (n, channels, h, w) in [0, 1], not normalised, to logits.

    `spare` adds `sub_block1`, which the published checkpoint holds and no forward pass calls. ValueError as for
    `WideResNet`.
    """

    def __init__(
        self,
        depth: int = 34,
        width: int = 1,
        classes: int = 10,
        generator: torch.Generator | None = None,
        spare: bool = False,
        channels: int = 3,
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1 or width < 1 or classes < 1:
            raise ValueError(f"depth is 6 n + 4, width and classes at least 1: {depth}, {width}, {classes}")
        widths = (16, 16 * width, 32 * width, 64 * width)
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.block1 = Group(blocks, widths[0], widths[1], 1)
        if spare:
            self.sub_block1 = Group(blocks, widths[0], widths[1], 1)
        self.block2 = Group(blocks, widths[1], widths[2], 2)
        self.block3 = Group(blocks, widths[2], widths[3], 2)
        self.bn1, self.lwta, self.fc = nn.BatchNorm2d(widths[3]), LWTA(), nn.Linear(widths[3], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        nn.init.kaiming_normal_(self.fc.weight, nonlinearity="linear", generator=generator)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(images))))
        logits: Tensor = self.fc(self.lwta(self.bn1(x)).mean((2, 3)))
        return logits


class SLWTA(Classifier):
    """A network of `LWTA` units with their noise, at temperature `trained` in training mode and `judged` in evaluation.

    ValueError for a network without such units, or a temperature that is not positive.
    """

    stochastic = True
    alters = True
    where = Where("features", shared=False)

    def __init__(self, net: nn.Module, classes: int, trained: float = 0.67, judged: float = 0.01) -> None:
        super().__init__()
        self.net, self.classes, self.trained, self.judged = net, classes, trained, judged
        self.sites = tuple(name for name, module in net.named_modules() if isinstance(module, LWTA))
        if not self.sites or not min(trained, judged) > 0:
            raise ValueError("the network must have LWTA units, and temperatures must be positive")

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        noise = PerImage(shape[0], generator)

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            stream, tau = noise.stream(rows), self.trained if self.training else self.judged

            def unit(h: Tensor) -> Tensor:
                return compete(h, torch.logit(stream.uniform(h[:, ::2]), SMALLEST), tau)

            forwards: dict[str, Change] = dict.fromkeys(self.sites, unit)
            with altered(self.net, forwards):
                logits: Tensor = self.net(images)
            return logits

        return realisation

    def mean(self) -> Classifier:
        """Every unit with the mean of its shares as tau falls to 0: no noise, temperature 1."""
        return Plain(self.net, self.classes)

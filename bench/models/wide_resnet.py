"""Wide residual networks with pre-activation blocks (Zagoruyko & Komodakis 2016, "Wide Residual Networks")."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CIFAR10_MEAN = (0.49140, 0.48216, 0.44653)
CIFAR10_STD = (0.24703, 0.24349, 0.26159)


class Block(nn.Module):
    """BN, ReLU, 3x3, BN, ReLU, 3x3, plus the input, or a 1x1 convolution (`sc`) of the activated input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = inputs == outputs and stride == 1
        self.sc = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        residual: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return residual + (x if self.sc is None else self.sc(active))


class WideResNet(nn.Module):
    """A WRN-`depth`-`width` for small images: (n, 3, h, w) float32 in [0, 1] -> logits (n, classes).

    `depth` is 6 n + 4: three groups of n blocks with 16, 32 and 64 times `width` channels, the
    second and third group entered with stride 2 (ValueError for another depth, or a width or
    number of classes below 1). `mean` and `std` (one number a channel, in units of the input)
    are buffers: the network normalises its own input. Convolutions start from a normal
    distribution with variance 2 / fan_out (He et al. 2015; fan_out as in the authors' code), the
    linear layer with variance 1 / fan_in and no bias, all drawn from `generator` if one is given.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        depth: int = 28,
        width: int = 4,
        classes: int = 10,
        mean: tuple[float, ...] = CIFAR10_MEAN,
        std: tuple[float, ...] = CIFAR10_STD,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"a wide ResNet has depth 6 n + 4 (10, 16, 22, 28, ...), not {depth}")
        if width < 1 or classes < 1:
            raise ValueError(f"width and classes must be at least 1, not {width} and {classes}")
        self.depth, self.width, self.classes = depth, width, classes
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        channels = [16] + [16 * width * 2**group for group in range(3) for _ in range(blocks)]
        strides = [2 if group and not block else 1 for group in range(3) for block in range(blocks)]
        self.conv1 = nn.Conv2d(len(mean), 16, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*map(Block, channels, channels[1:], strides))
        self.bn = nn.BatchNorm2d(channels[-1])
        self.fc = nn.Linear(channels[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        nn.init.kaiming_normal_(self.fc.weight, nonlinearity="linear", generator=generator)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        x = self.blocks(self.conv1((images - self.mean) / self.std))
        logits: Tensor = self.fc(F.relu(self.bn(x)).mean((2, 3)))
        return logits

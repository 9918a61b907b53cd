"""Stochastic LWTA as a user would hand it over: a plain `nn.Module` that draws its noise in `forward` and says nothing.

The definition is that of bench/models/defences/slwta.py, written as the softmax over each pair of channels with Gumbel
noise (Panousis et al. 2021); the weights are your copy of the authors' checkpoint, in models/slwta/ckpt.pt.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

CHECKPOINT = Path(__file__).parents[1] / "models" / "slwta" / "ckpt.pt"


class LWTA(nn.Module):
    """Neighbouring channels compete at each pixel, by a relaxed draw at temperature 0.01."""

    def __init__(self) -> None:
        super().__init__()
        self.temp = nn.Parameter(torch.tensor(0.67))  # in the checkpoint; of training alone

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        pairs = x.view(n, channels // 2, 2, height, width)
        gumbel = -torch.log(-torch.log(torch.rand_like(pairs).clamp(1e-8, 1 - 1e-7)))
        return (pairs * torch.softmax((pairs + gumbel) / 0.01, 2)).view(n, channels, height, width)


class Block(nn.Module):
    """Normalise, compete, convolve, twice; a shortcut of 1 x 1 where the width changes."""

    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.lwta1 = nn.BatchNorm2d(given), LWTA()
        self.conv1 = nn.Conv2d(given, width, 3, stride, 1, bias=False)
        self.bn2, self.lwta2 = nn.BatchNorm2d(width), LWTA()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.convShortcut = nn.Conv2d(given, width, 1, stride, bias=False) if given != width else None

    def forward(self, x: Tensor) -> Tensor:
        inner = self.lwta1(self.bn1(x))
        short = x if self.convShortcut is None else self.convShortcut(inner)
        return short + self.conv2(self.lwta2(self.bn2(self.conv1(inner))))


class Stage(nn.Module):
    """Five blocks."""

    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        blocks = [Block(given if i == 0 else width, width, stride if i == 0 else 1) for i in range(5)]
        self.layer = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Net(nn.Module):
    """WRN-34-1 on images (n, 3, 32, 32) in [0, 1], not normalised: logits (n, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1, self.sub_block1 = Stage(16, 16, 1), Stage(16, 16, 1)  # the second is stored and never called
        self.block2, self.block3 = Stage(16, 32, 2), Stage(32, 64, 2)
        self.bn1, self.lwta, self.fc = nn.BatchNorm2d(64), LWTA(), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(self.lwta(self.bn1(x)).mean((2, 3)))


def load() -> nn.Module:
    """The network with the authors' weights."""
    net = Net()
    kept = torch.load(CHECKPOINT, weights_only=True, map_location="cpu")["model_state_dict"]
    shapes = {name: value.shape for name, value in net.state_dict().items()}
    plain = {name.removeprefix("module."): value for name, value in kept.items()}
    net.load_state_dict({name: value.reshape(shapes[name]) for name, value in plain.items()})
    return net.eval()

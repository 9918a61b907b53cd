"""Small models as a program would hold them; their classes can be named by a suite."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Small(nn.Module):
    """Deterministic: images of any size and 3 channels to `classes` logits."""

    def __init__(self, classes: int = 8, channels: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(channels, 8, 3, stride=2, padding=1)
            self.pool, self.head = nn.AdaptiveAvgPool2d(4), nn.Linear(128, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(torch.relu(self.conv(images))).flatten(1))


class Noisy(Small):
    """Randomised in forward, from torch's global generator."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images + 0.1 * torch.randn_like(images))


class Kept(Small):
    """Randomised in its state: noise that stays until it is drawn anew."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("noise", torch.zeros(8))

    def redraw(self, generator: torch.Generator) -> None:
        self.noise.copy_(0.3 * torch.randn(8, generator=generator, device=generator.device))

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + self.noise


class Dropped(Small):
    """Two classes of grey images, by dropout that stays on."""

    def __init__(self) -> None:
        super().__init__(2, 1)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.pool(torch.relu(self.conv(images))).flatten(1)
        return self.head(nn.functional.dropout(hidden, 0.4, training=True))

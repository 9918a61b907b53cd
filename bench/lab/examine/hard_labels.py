"""What hard labels alone allow: a surrogate distilled from them, and an attack that asks for nothing else.

No confidence, gradient or score of the model is used, so that nothing but its answers can mislead these.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.lab.attacks import losses
from bench.lab.attacks.ball import Ball
from bench.lab.attacks.view import View
from bench.lab.examine.outputs import Case
from bench.models.classifier import Classifier, Plain

EPOCHS, BATCH = 16, 100
FARTHEST = 0.5  # how far along a direction an image that is wrong is looked for, in pixels
HALVINGS = 6


def distilled(case: Case, pool: Tensor, eps: float, epochs: int = EPOCHS) -> Classifier:
    """A small network that says what the model says: of `pool` (m, c, h, w) in [0, 1], and of random corners near it
    (Papernot et al. 2017, arXiv 1602.02697, with random directions in place of its own).
    """
    dice = case.streams.generator("craft", 70)
    signs = torch.randint(0, 2, pool.shape, generator=dice, device=pool.device) * 2.0 - 1
    asked = torch.cat([pool, (pool + eps * signs).clamp(0, 1)])
    said = _answers(case, asked)
    net = _network(case.model.classes, pool.shape[1], dice).to(pool.device)
    steps = epochs * -(-len(asked) // BATCH)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(asked), generator=dice, device=dice.device)
        for rows in order.chunk(-(-len(order) // BATCH)):
            flip = torch.rand(len(rows), generator=dice, device=dice.device) < 0.5
            images = torch.where(flip.view(-1, 1, 1, 1), asked[rows].flip(3), asked[rows])
            with torch.enable_grad():
                loss = functional.cross_entropy(net(images), said[rows])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return Plain(net.eval().requires_grad_(False), case.model.classes).eval()


def decided(case: Case, ball: Ball, queries: int, draws: int = 5) -> Tensor:
    """Images (n, c, h, w) of the ball, the nearest wrong ones along directions of signs (RayS, Chen & Gu 2020, arXiv
    2006.12792): blocks of signs are flipped where that keeps the image wrong, and the distance is halved then.

    A query is one image; a randomised model is wrong where most of `draws` draws are. Who is within eps leaves.
    """
    images, n, size = case.images, len(case.images), case.images[0].numel()
    unit = 1.0 if ball.norm == "Linf" else size**0.5
    signs = torch.ones(n, size, device=images.device)
    radius = torch.full((n,), FARTHEST * unit, device=images.device)
    reached = torch.zeros(n, dtype=torch.bool, device=images.device)
    spent = torch.zeros(n, device=images.device)

    def wrong(ways: Tensor, far: Tensor, rows: Tensor) -> Tensor:
        step = (far / unit).view(-1, 1, 1, 1) * ways.view(-1, *images.shape[1:])
        spent[rows] += 1
        return _wrong(case, (images[rows] + step).clamp(0, 1), rows, draws)

    block, level = 0, 0
    while True:
        rows = ((spent < queries) & ~(reached & (radius <= ball.eps))).nonzero().squeeze(1)
        if not len(rows):
            break
        ways, width = signs[rows].clone(), -(-size // 2**level)
        if level or block:
            ways[:, block * width : (block + 1) * width] *= -1
        better = wrong(ways, radius[rows], rows)
        rows, ways = rows[better], ways[better]
        signs[rows], reached[rows] = ways, True
        low, high = torch.zeros(len(rows), device=images.device), radius[rows]
        for _ in range(HALVINGS if len(rows) else 0):
            middle = (low + high) / 2
            fooled = wrong(ways, middle, rows)
            high, low = torch.where(fooled, middle, high), torch.where(fooled, low, middle)
        radius[rows] = high
        block += 1
        if block >= 2**level:
            block, level = 0, min(level + 1, size.bit_length() - 1)
    near = radius.clamp_max(ball.eps) / unit
    return ball.project(images + near.view(-1, 1, 1, 1) * signs.view_as(images), images)


def _wrong(case: Case, images: Tensor, rows: Tensor, draws: int) -> Tensor:
    """Where most draws (of those that craft) are wrong: (m,) bool."""
    total = torch.zeros(len(rows), device=images.device)
    for logits in case.view.all_logits(images, rows, draws, "craft", 71):
        total += losses.wrong(logits, case.labels[rows])
    return total > case.view.draws(draws) / 2


def _answers(case: Case, images: Tensor) -> Tensor:
    """The model's labels (m,) int64 of images, one draw each."""
    said = []
    for part in images.chunk(-(-len(images) // max(1, case.compute.microbatch))):
        view = View(case.model, part.shape, case.streams, case.compute)
        said.append(view.logits(part, None, "craft", 72).argmax(1))
    return torch.cat(said)


def _network(classes: int, channels: int, dice: torch.Generator) -> nn.Module:
    """Four convolutions for images of any size, initialised from `dice` alone."""
    widths, layers = (channels, 32, 64, 128, 128), []
    for k in range(4):
        layers += [nn.Conv2d(widths[k], widths[k + 1], 3, stride=1 + (k > 0), padding=1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * 128, classes))
    home = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=dice, device=dice.device)))
    for module in net:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=home)
            module.bias.data.zero_()  # type: ignore[union-attr]
    return net

"""Square attack in L-inf (Andriushchenko et al. 2020, arXiv 1912.00049): random search, no gradients.

For a stochastic source the margin of each query is the mean over draws of its own, which the best image so far
meets too, and no image leaves early: the form that AutoAttack's authors describe for randomised defences, without
an incumbent that holds by luck.
"""

from __future__ import annotations

import bisect
import math

import torch
from torch import Tensor

from bench.lab.attacks import Crafted, losses
from bench.lab.attacks.view import Found, View
from bench.lab.compute.passes import Compute
from bench.lab.streams import Streams
from bench.models.classifier import Classifier
from bench.recipes import Square

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries, of a budget of 10,000, after which the share of changed pixels halves (the paper's section 5)."""


def craft(
    attack: Square, source: Classifier, images: Tensor, labels: Tensor, streams: Streams, compute: Compute
) -> Crafted:
    """Images within attack.eps of `images` (n, 3, h, w) that the source gets wrong, where the search finds them.

    A query is one image seen by the source (over `draws` draws); the first one is the start. Of a stochastic source's
    restarts the one is kept that is wrong most often over draws that no query met.
    """
    view = View(source, images.shape, streams, compute)
    found = Found(images)
    rows: Tensor | None = None
    for restart in range(attack.restarts):
        if not view.stochastic and restart > 0:
            rows = (~found.fooled).nonzero().squeeze(1)
            if len(rows) == 0:
                break
        _walk(attack, view, images, labels, rows, restart, found=found)
    claimed = view.claims(found.images, labels) if view.stochastic else found.fooled.to(torch.int8)
    return Crafted(found.images, claimed)


def side(attack: Square, query: int, height: int, width: int) -> int:
    """The side in pixels of the square that a query changes, its budget scaled to the paper's 10,000."""
    share = attack.p_init / 2 ** bisect.bisect_left(HALVINGS, query * 10_000 // attack.queries)
    return min(max(round(math.sqrt(share * height * width)), 1), height, width)


def _walk(
    attack: Square, view: View, images: Tensor, labels: Tensor, rows: Tensor | None, restart: int, *, found: Found
) -> None:
    own = Found(images)
    eps = float(attack.eps)
    for query in range(attack.queries):
        dice = view.streams.generator("craft", restart, query)
        at: Tensor | slice = slice(None) if rows is None else rows
        centre = images[at]
        if query == 0:
            delta = eps * signs((len(images), images.shape[1], 1, images.shape[3]), dice, images)[at]
            proposal = (centre + delta).clamp_(0, 1)
        else:
            window, sign = squares(side(attack, query, *images.shape[2:]), dice, images)
            proposal = torch.where(window[at], (centre + eps * sign[at]).clamp_(0, 1), own.images[at])
        margin, errors = view.expected(losses.margin, proposal, labels[at], rows, attack.draws, restart, query)
        if view.stochastic:
            if query > 0:
                own.loss, _ = view.expected(losses.margin, own.images, labels, None, attack.draws, restart, query)
            errors = torch.zeros_like(errors)  # so few draws tell more by their margins
        own.offer(proposal, margin, errors, restart, rows)
        if not view.stochastic:
            stay = (errors < 1).nonzero().squeeze(1)
            rows = stay if rows is None else rows[stay]
            if len(rows) == 0:
                break
    if view.stochastic:
        own.loss, own.errors = view.standing(own.images, labels, None, attack.draws, attack.restarts)
    found.offer(own.images, own.loss, own.errors, restart, None)


def signs(shape: tuple[int, ...], dice: torch.Generator, like: Tensor) -> Tensor:
    return torch.randint(0, 2, shape, generator=dice, device=like.device).to(like.dtype).mul_(2).sub_(1)


def squares(side: int, dice: torch.Generator, images: Tensor) -> tuple[Tensor, Tensor]:
    """For each image a square window (n, 1, h, w) bool, placed uniformly, and a sign a channel (n, 3, 1, 1)."""
    n, channels, height, width = images.shape
    device = images.device
    top = torch.randint(0, height - side + 1, (n, 1, 1, 1), generator=dice, device=device)
    left = torch.randint(0, width - side + 1, (n, 1, 1, 1), generator=dice, device=device)
    down = torch.arange(height, device=device).view(1, 1, -1, 1) - top
    right = torch.arange(width, device=device).view(1, 1, 1, -1) - left
    window = (down >= 0) & (down < side) & (right >= 0) & (right < side)
    return window, signs((n, channels, 1, 1), dice, images)

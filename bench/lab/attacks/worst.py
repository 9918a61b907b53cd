"""The worst of several attacks for each image, chosen on draws of its own and never on those that judge."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.lab.attacks import Crafted
from bench.lab.attacks.view import Found, View
from bench.lab.compute.passes import Compute
from bench.lab.streams import Streams
from bench.models.classifier import Classifier
from bench.recipes import Worst


def craft(
    attack: Worst,
    source: Classifier,
    images: Tensor,
    labels: Tensor,
    streams: Streams,
    compute: Compute,
    *,
    run: Callable[..., Crafted],
) -> Crafted:
    """One image of each original (n, 3, h, w): of the attack that errs most often on `selection` draws, the larger
    margin breaking ties.

    `run(attack, source, images, labels, streams, compute)` crafts with one of the attacks, each on
    streams of its own.
    """
    view = View(source, images.shape, streams, compute)
    found = Found(images)
    claims = []
    for number, one in enumerate(attack.attacks):
        own = streams._replace(seed=streams.number("craft", number))
        crafted = run(one, source, images, labels, own, compute)
        margin, errors = view.standing(crafted.images, labels, None, attack.selection, 1)
        found.offer(crafted.images, margin, errors, number, None)
        claims.append(crafted.claimed)
    claimed = torch.stack(claims).gather(0, found.since.unsqueeze(0)).squeeze(0)
    return Crafted(found.images, claimed)

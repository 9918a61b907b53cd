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
from bench.store.bought import Account, Bought


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
    streams of its own. Where one of them keeps an account (`strong`), so does this: what each attack added, and what
    that one says of the source.
    """
    view = View(source, images.shape, streams, compute)
    found = Found(images)
    claims, bought, findings, n = [], list[Bought](), dict[str, None](), max(1, len(images))
    adapts, whole = False, compute.forwards + compute.backwards
    for number, one in enumerate(attack.attacks):
        before, passes = float(found.errors.sum()), compute.forwards + compute.backwards
        own = streams._replace(seed=streams.number("craft", number))
        crafted = run(one, source, images, labels, own, compute)
        paid = (compute.forwards + compute.backwards - passes) / 2 / n  # a pass without a gradient is half of one
        margin, errors = view.standing(crafted.images, labels, None, attack.selection, 1)
        found.offer(crafted.images, margin, errors, number, None)
        claims.append(crafted.claimed)
        bought.append(Bought(f"{number + 1}: {one.kind}", len(images), (float(found.errors.sum()) - before) / n, paid))
        if crafted.account is not None:
            adapts, findings = True, findings | dict.fromkeys(crafted.account.findings)
    claimed = torch.stack(claims).gather(0, found.since.unsqueeze(0)).squeeze(0)
    if not adapts:
        return Crafted(found.images, claimed)
    whose = torch.where(found.errors > 0, found.since, -1).tolist()
    members = tuple(one._replace(found=whose.count(number)) for number, one in enumerate(bought))
    each = (compute.forwards + compute.backwards - whole) / 2 / n
    said = Account(members, tuple(whose), (each,) * len(images), "each attack was tried", tuple(findings))
    return Crafted(found.images, claimed, account=said)

"""The step that makes examples: an attack on a source, its result checked before anybody counts it."""

from __future__ import annotations

from typing import NoReturn, assert_never

import torch
from torch import Tensor

from bench import UserError
from bench.lab.attacks import Crafted, pgd, square, strong, worst
from bench.lab.attacks.view import AttackError, View
from bench.lab.compute.passes import Compute
from bench.lab.streams import Streams
from bench.models.classifier import Classifier
from bench.recipes import PGD, Attack, Clean, Crafting, Peer, Square, Strong, Worst

TOLERANCE = 1e-6


def craft(
    attack: Attack,
    source: Classifier | None,
    images: Tensor,
    labels: Tensor,
    streams: Streams,
    compute: Compute,
    *,
    rows: Tensor | None = None,
    claim: int = 1,
) -> Crafted:
    """What `attack` makes of images (n, 3, h, w) float32 in [0, 1] with labels (n,) int64.

    Every image is finite, in [0, 1] and within eps (+1e-6) of its original; the source is in the
    mode it was in, and `images` are as they were. AttackError where an attack of ours breaks this,
    UserError where a peer's does, or where the attack cannot be run on this source. With `rows` (an
    audit's sample) only a PGD on those images is run, the others stay as they are. With `claim` over 1 it is the
    vote of so many draws of a stochastic source that the attack believes.
    """
    if isinstance(attack, Clean) or source is None:
        if not isinstance(attack, Clean):
            raise UserError(f"attack {_name(attack)}", "it has no source to attack", "name a source")
        return Crafted(images.clone(), torch.full(labels.shape, -1, dtype=torch.int8, device=labels.device))
    before, modes = images.clone(), {name: module.training for name, module in source.named_modules()}
    if rows is not None and isinstance(attack, PGD):
        crafted = pgd.craft(attack, source, images, labels, streams, compute, rows=rows)
    else:
        crafted = _run(attack, source, images, labels, streams, compute)
    for name, module in source.named_modules():
        if module.training != modes[name]:
            module.train(modes[name])
            _breach(attack, f"it left the source's {name or 'network'} in the other of training and evaluation mode")
    if not torch.equal(images, before):
        _breach(attack, "it wrote into the images it was given")
    check(attack, images, crafted)
    if claim > 1 and source.stochastic:
        view = View(source, images.shape, streams, compute)
        crafted = crafted._replace(claimed=view.claims(crafted.images, labels, claim))
    return crafted


def _run(
    attack: Crafting,
    source: Classifier,
    images: Tensor,
    labels: Tensor,
    streams: Streams,
    compute: Compute,
) -> Crafted:
    match attack:
        case PGD():
            return pgd.craft(attack, source, images, labels, streams, compute)
        case Square():
            return square.craft(attack, source, images, labels, streams, compute)
        case Strong():
            return strong.craft(attack, source, images, labels, streams, compute)
        case Worst():
            return worst.craft(attack, source, images, labels, streams, compute, run=craft)
        case Peer():
            from bench.lab.attacks import peers

            return peers.craft(attack, source, images, labels, streams, compute)
        case _:
            assert_never(attack)


def check(attack: Crafting, images: Tensor, crafted: Crafted) -> None:
    """AttackError (UserError for a peer's attack) unless what was crafted keeps the attack's own promise."""
    if crafted.images.shape != images.shape or crafted.images.dtype != torch.float32:
        _breach(attack, f"it returned {tuple(crafted.images.shape)} {crafted.images.dtype}")
    if crafted.claimed.shape != images.shape[:1] or crafted.claimed.dtype != torch.int8:
        _breach(attack, f"it returned claims {tuple(crafted.claimed.shape)} {crafted.claimed.dtype}")
    batches = [("", crafted.images)]
    if crafted.iterates is not None:
        batches += [(f" at step {step}", batch) for step, batch in enumerate(crafted.iterates)]
    for when, batch in batches:
        bad = ~batch.isfinite().flatten(1).all(1)
        _no_row(attack, bad, f"a value that is not finite{when}", None)
        beyond = (batch - 0.5).abs().flatten(1).amax(1) - 0.5
        _no_row(attack, beyond > TOLERANCE, f"a value outside [0, 1]{when}", beyond)
        if isinstance(attack, Worst):
            continue  # each of its attacks has kept its own promise
        length, norm = _distance(attack, batch - images)
        eps = float(attack.eps)
        # Sums over thousands of float32 differences are exact to about 1e-6 of themselves.
        slack = TOLERANCE * (1 + (eps if norm != "Linf" else 0))
        _no_row(attack, length > eps + slack, f"more than {norm} eps = {attack.eps} from its original{when}", length)


def _distance(attack: PGD | Square | Peer | Strong, difference: Tensor) -> tuple[Tensor, str]:
    norm = "Linf" if isinstance(attack, Square) else attack.norm
    flat = difference.double().flatten(1)
    match norm:
        case "Linf":
            return flat.abs().amax(1), norm
        case "L2":
            return flat.square().sum(1).sqrt(), norm
        case "L1":
            return flat.abs().sum(1), norm
        case _:
            assert_never(norm)


def _no_row(attack: Attack, bad: Tensor, what: str, value: Tensor | None) -> None:
    if bad.any():
        row = int(bad.nonzero()[0])
        number = "" if value is None else f" ({float(value[row]):.6g})"
        _breach(attack, f"image {row} of {len(bad)} has {what}{number}; {int(bad.sum())} images have")


def _breach(attack: Attack, what: str) -> NoReturn:
    if isinstance(attack, Peer):
        raise UserError(f"attack {_name(attack)}", what, "its result cannot be trusted; check its arguments and eps")
    raise AttackError(f"attack {_name(attack)}: {what}")


def _name(attack: Attack) -> str:
    return f"{attack.kind}.{attack.name}" if isinstance(attack, Peer) else attack.kind

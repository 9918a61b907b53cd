"""Projected gradient ascent in L-inf and L2 (Madry et al. 2018, arXiv 1706.06083), for stochastic sources too."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from bench import UserError
from bench.lab.attacks import Crafted, losses
from bench.lab.attacks.ball import Ball
from bench.lab.attacks.view import AttackError, Found, View
from bench.lab.compute.passes import Compute
from bench.lab.streams import Streams
from bench.models.classifier import Classifier
from bench.recipes import PGD


def craft(
    attack: PGD,
    source: Classifier,
    images: Tensor,
    labels: Tensor,
    streams: Streams,
    compute: Compute,
    *,
    rows: Tensor | None = None,
) -> Crafted:
    """Images within attack.eps of `images` (n, 3, h, w) that the source gets wrong, where PGD finds them.

    Restarts, and iterates where pick = "best", compete for each image by how often the source is wrong over
    selection draws, then by the margin (`View.standing`).
    With `rows` (indices) only those images are attacked, as they would be among all the others.
    UserError for an attack that this source cannot have; AttackError if a gradient is not finite.
    """
    starts = (start(attack, images, streams, restart) for restart in range(attack.restarts))
    return _search(attack, View(source, images.shape, streams, compute, attack.draw), images, labels, starts, rows)


def ascend(
    attack: PGD,
    source: Classifier,
    images: Tensor,
    labels: Tensor,
    start: Tensor,
    streams: Streams,
    *,
    compute: Compute,
) -> Crafted:
    """One ascent from `start` (n, 3, h, w), the attack's restarts and random start aside."""
    return _search(attack, View(source, images.shape, streams, compute, attack.draw), images, labels, iter([start]))


def start(attack: PGD, images: Tensor, streams: Streams, restart: int) -> Tensor:
    """Where a restart begins: uniform in the ball and clamped to [0, 1], or the images themselves."""
    if not attack.random_start or attack.eps == 0:
        return images
    return ball(attack).random(images, streams.generator("start", restart))


def ball(attack: PGD) -> Ball:
    """Where its iterates stay."""
    return Ball(float(attack.eps), attack.norm)


def _search(
    attack: PGD, view: View, images: Tensor, labels: Tensor, starts: Iterable[Tensor], chosen: Tensor | None = None
) -> Crafted:
    _refuse(attack, view)
    found = Found(images)
    iterates: Tensor | None = None
    finite = torch.zeros((), device=images.device)
    rows = chosen
    for restart, begin in enumerate(starts):
        if attack.early_stop and restart > 0:
            open_ = ~found.fooled
            rows = open_.nonzero().squeeze(1) if chosen is None else chosen[open_[chosen]]
            if len(rows) == 0:
                break
        path, total = _ascend(attack, view, images, labels, begin, rows, restart=restart, found=found)
        finite = finite + total
        if path:
            whole = torch.stack(path)
            mine = (found.since == restart).view(1, -1, 1, 1, 1)
            iterates = whole if iterates is None else torch.where(mine, whole, iterates)
    if not finite.isfinite():
        raise AttackError("PGD: the source's gradient is NaN or infinite, so where PGD went means nothing")
    claimed = view.claims(found.images, labels) if view.stochastic else found.fooled.to(torch.int8)
    return Crafted(found.images, claimed, iterates)


def _refuse(attack: PGD, view: View) -> None:
    if attack.early_stop and view.stochastic:
        fix = "set early_stop = false"
        raise UserError("attack pgd: early_stop", "one draw of a stochastic source does not tell if it is fooled", fix)
    if attack.accumulate and attack.momentum:
        raise UserError("attack pgd: momentum", "accumulate and momentum are two memories of one path", "choose one")
    if attack.loss == "dlr" and view.source.classes < 3:
        raise UserError("attack pgd: loss", f"dlr needs three classes, and the source has {view.source.classes}")


def _ascend(
    attack: PGD,
    view: View,
    images: Tensor,
    labels: Tensor,
    begin: Tensor,
    rows: Tensor | None,
    *,
    restart: int,
    found: Found,
) -> tuple[list[Tensor], Tensor]:
    """One restart: offers what it finds to `found`; the path if it is kept, and a number that is finite if all
    gradients were.

    `rows` are the images still in the batch; those fooled leave it where the attack stops early.
    """
    inside, size = ball(attack), float(attack.step)
    at: Tensor | slice = slice(None) if rows is None else rows
    here = begin[at]
    memory = torch.zeros_like(here)
    total = torch.zeros((), device=images.device)
    path = [images] if attack.keep_iterates else []
    current = begin
    for step in range(attack.steps):
        slope, logits = _slope(attack, view, here, labels[at], rows, restart, step=step)
        total = total + slope.abs().sum()
        if attack.pick == "best" or attack.early_stop:
            margin, errors = _standing(attack, view, here, labels[at], rows, logits)
            found.offer(here, margin, errors, restart, rows, only=errors == 1 if attack.pick == "last" else None)
        if attack.early_stop:
            stay = (errors < 1).nonzero().squeeze(1)
            rows = stay if rows is None else rows[stay]
            at, here, slope, memory = rows, here[stay], slope[stay], memory[stay]
        memory = _remember(attack, memory, slope)
        here = inside.project(here + size * inside.along(memory), images[at])
        if attack.keep_iterates:
            current = here if rows is None else current.index_copy(0, rows, here)
            path.append(current)
    margin, errors = _standing(attack, view, here, labels[at], rows)
    found.offer(here, margin, errors, restart, rows)
    return path, total


def _standing(
    attack: PGD, view: View, here: Tensor, labels: Tensor, rows: Tensor | None, logits: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`View.standing` of an iterate, as far as anything depends on it; `logits` where the source has given them.

    The draws are the same for all candidates, which therefore compare better.
    """
    alone = view.stochastic and attack.pick == "last" and attack.restarts == 1
    if alone or len(here) == 0:
        return torch.zeros(len(here), device=here.device), torch.zeros(len(here), device=here.device)
    if logits is not None and not view.stochastic:
        return losses.margin(logits, labels), losses.wrong(logits, labels).float()
    return view.standing(here, labels, rows, attack.selection, 0)


def _remember(attack: PGD, memory: Tensor, slope: Tensor) -> Tensor:
    """What the next step follows the sign of."""
    if attack.accumulate:
        return memory + slope
    if attack.momentum:
        length = slope.abs().sum((1, 2, 3), keepdim=True).clamp_min(torch.finfo(slope.dtype).tiny)
        return attack.momentum * memory + slope / length
    return slope


def _slope(
    attack: PGD, view: View, here: Tensor, labels: Tensor, rows: Tensor | None, restart: int, *, step: int
) -> tuple[Tensor, Tensor]:
    """Gradient (n, 3, h, w) at an iterate, over the attack's draws for this step, and the logits of one of them."""
    if len(here) == 0:
        return here, here.new_zeros(0, view.source.classes)
    if attack.gradient == "mean-loss":
        return _mean_loss(attack, view, here, labels, rows, restart, step=step)
    if attack.loss == "ce":
        return _smooth_adv(attack, view, here, labels, rows, restart, step=step)
    return _of_mean_softmax(attack, view, here, labels, rows, restart, step=step)


def _mean_loss(
    attack: PGD, view: View, here: Tensor, labels: Tensor, rows: Tensor | None, restart: int, *, step: int
) -> tuple[Tensor, Tensor]:
    loss = losses.named(attack.loss)
    turns = view.gradients(loss, here, labels, rows, attack.gradients_a_step, "grad", restart, step)
    _, slope, logits = next(turns)
    for _, turn, _ in turns:
        slope = slope + turn
    return slope / view.draws(attack.gradients_a_step), logits


def _smooth_adv(
    attack: PGD, view: View, here: Tensor, labels: Tensor, rows: Tensor | None, restart: int, *, step: int
) -> tuple[Tensor, Tensor]:
    """Of -log of the mean p_y. Its gradient is the mean of the draws' gradients of -log p_y, weighted by p_y.

    The weights are kept relative to the largest p_y so far, so that one pass over the draws is
    enough and a p_y below the smallest float is no zero gradient.
    """
    top = torch.full_like(labels, -torch.inf, dtype=torch.float32)
    weights = torch.zeros_like(top)
    slope = torch.zeros_like(here)
    turns = view.gradients(losses.cross_entropy, here, labels, rows, attack.gradients_a_step, "grad", restart, step)
    for value, turn, said in turns:
        logits = said
        higher = torch.maximum(top, -value)
        old, new = (top - higher).exp(), (-value - higher).exp()
        weights = weights * old + new
        slope = slope * old.view(-1, 1, 1, 1) + turn * new.view(-1, 1, 1, 1)
        top = higher
    return slope / weights.view(-1, 1, 1, 1), logits


def _of_mean_softmax(
    attack: PGD, view: View, here: Tensor, labels: Tensor, rows: Tensor | None, restart: int, *, step: int
) -> tuple[Tensor, Tensor]:
    """Any loss of the mean softmax, in two passes: its slope to the mean first, then that slope through each draw."""
    draws = view.draws(attack.gradients_a_step)
    chances = view.chances(here, rows, attack.gradients_a_step, "grad", restart, step)
    with torch.enable_grad():
        leaf = chances.requires_grad_(True)
        loss = losses.of_chances(attack.loss, leaf, labels)
        (outer,) = torch.autograd.grad(loss.sum(), leaf)

    def through(logits: Tensor, outer: Tensor) -> Tensor:
        return (logits.softmax(1) * outer).sum(1)

    slope = torch.zeros_like(here)
    for _, turn, said in view.gradients(through, here, outer, rows, attack.gradients_a_step, "grad", restart, step):
        logits = said
        slope = slope + turn / draws
    return slope, logits

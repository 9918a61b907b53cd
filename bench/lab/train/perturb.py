"""The attack inside the training loop: PGD without anything that does not move an image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.lab.attacks import pgd
from bench.lab.attacks.view import attacked
from bench.lab.compute.passes import Compute
from bench.lab.streams import Streams
from bench.models.classifier import Classifier
from bench.recipes import PGD


def perturb(
    attack: PGD, source: Classifier, images: Tensor, labels: Tensor, streams: Streams, compute: Compute
) -> Tensor:
    """Images (n, 3, h, w) moved by `attack` on `source`, which is in eval mode with frozen parameters.

    The PGD of the usual recipes (cross-entropy, last iterate) takes a loop that makes no choice,
    claims nothing and never waits for the device; it takes the steps of `bench.lab.attacks.pgd`, draw by
    draw. Any other is left to that module.
    """
    usual = attack.loss == "ce" and attack.gradient == "mean-loss" and attack.pick == "last"
    if not usual or attack.restarts > 1 or attack.early_stop:
        return pgd.craft(attack, source, images, labels, streams, compute).images
    inside, size = pgd.ball(attack), float(attack.step)
    source, frozen = attacked(source, attack.draw), attack.draw == "frozen"
    here = pgd.start(attack, images, streams, 0)
    memory: Tensor | None = None
    for step in range(attack.steps):
        slope: Tensor | None = None
        for draw in range(attack.gradients_a_step if source.stochastic else 1):
            generator = streams.generator("grad") if frozen else streams.generator("grad", 0, step, draw)
            turn = _slope(source, here, labels, generator, compute)
            slope = turn if slope is None else slope + turn
        assert slope is not None
        if attack.accumulate:
            memory = slope if memory is None else memory + slope
        elif attack.momentum:
            slope = slope / slope.abs().sum((1, 2, 3), keepdim=True).clamp_min(torch.finfo(slope.dtype).tiny)
            memory = slope if memory is None else attack.momentum * memory + slope
        else:
            memory = slope
        here = inside.project(here + size * inside.along(memory), images)
    return here


def _slope(source: Classifier, here: Tensor, labels: Tensor, generator: torch.Generator, compute: Compute) -> Tensor:
    with torch.no_grad():
        realisation = source.realise(here.shape, generator)
    parts = []
    for first in range(0, len(here), compute.microbatch):
        rows = slice(first, first + compute.microbatch)
        leaf = here[rows].detach().requires_grad_(True)
        with torch.enable_grad(), compute.autocast():
            loss = F.cross_entropy(realisation(leaf, rows).float(), labels[rows], reduction="sum")
        parts.append(torch.autograd.grad(loss, leaf)[0])
    compute.forwards += len(here)
    compute.backwards += len(here)
    return parts[0] if len(parts) == 1 else torch.cat(parts)

"""What a model's gradients show before it is attacked: flat, saturated, false or drowned in noise."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bench.lab.attacks import losses
from bench.lab.attacks.ball import Ball
from bench.lab.compute.passes import Disconnected, Loss
from bench.lab.examine.outputs import JITTER, Case, distance
from bench.lab.examine.rules import Finding, tested, too_rare

FEW = 24  # images of the checks that take many passes
AGREE = 0.5
WAYS, STEPS = 4, (1e-3, 2e-4, 4e-3)  # of pixels
OTHERWISE = "attack it through a view (`strong`), by finite differences, transfer or black-box"


def has_gradient(case: Case) -> bool:
    """Whether autograd finds a way from the output to the image at all."""
    try:
        slope_of(case.few(1))
    except Disconnected:
        return False
    return True


def gradients(slope: Tensor | None) -> Finding:
    """Share of images whose gradient of the margin is zero or not finite (Pintor et al. I1); `slope` (n, c, h, w)."""
    if slope is None:
        advice = "a part of the model has no derivative: attack it with BPDA, by transfer and black-box"
        return Finding("gradients", "autograd finds no way from output to image", "suspicious", advice)
    dead = _dead(slope)
    figure = f"{100 * dead:.0f} % of images have a zero or non-finite gradient"
    if dead > 0.05:
        advice = "a part of the model is flat or detached: attack it with BPDA, by transfer and black-box"
        return Finding("gradients", figure, "suspicious", advice)
    return Finding("gradients", figure, "ok")


def saturation(case: Case, slope: Tensor) -> Finding:
    """Share of images where cross-entropy has underflowed though the margin still has a gradient."""
    few = case.few(FEW)
    gone = _dead(slope_of(few, losses.cross_entropy))
    alive = 1 - _dead(slope[: len(few.images)])
    figure = (
        f"{100 * gone:.0f} % of images have no gradient of the cross-entropy, {100 * alive:.0f} % one of the margin"
    )
    if gone > 0.05 and alive > 0.5:
        advice = "the logits are too large for the softmax: attack with loss = 'dlr' or 'margin'"
        return Finding("saturation", figure, "suspicious", advice)
    return Finding("saturation", figure, "ok")


def repeats(case: Case) -> Finding:
    """One forward pass has one gradient: two backward passes of the same draw at the same images must agree."""
    few = case.few(4)
    one, other = (slope_of(few, losses.margin).flatten(1).double() for _ in range(2))
    apart = float(((one - other).norm(dim=1) / one.norm(dim=1).clamp_min(1e-30)).nan_to_num(0.0).max())
    figure = f"two gradients of one draw differ by {apart:.2g} of their length"
    if apart > 0.05:
        return Finding("backward-noise", figure, "suspicious", "noise in the backward pass alone: " + OTHERWISE)
    return Finding("backward-noise", figure, "ok")


def watched(case: Case) -> Finding:
    """A pass whose gradient is asked for must answer as one whose is not: attacks see the first, judges the second."""
    few = case.few(8)
    rows, draw = torch.arange(len(few.images), device=few.images.device), few.view.draw("select", 99)
    seen = few.compute.gradient(draw, few.images, few.labels, losses.margin, rows)[2]
    apart = distance(seen, few.compute.logits(draw, few.images, rows))
    figure = f"answers with and without a gradient are {apart:.2g} apart"
    if apart > JITTER:
        advice = "it knows when it is attacked, by requires_grad or the gradient mode: attack what the judge sees"
        return Finding("watched", figure, "suspicious", advice)
    return Finding("watched", figure, "ok")


def differences(case: Case) -> Finding:
    """The gradient against central differences, in value, image by image, along random signs of every pixel.

    An image disagrees where they are more than half of their length apart at each of three step lengths. A gradient
    with parts left out, scaled, turned round or from elsewhere keeps its sign of ascent, and not its value.
    """
    few = replace(case.few(FEW), compute=replace(case.compute, precision="float32"))
    coarse = [p.dtype for p in case.model.parameters() if p.is_floating_point() and p.dtype.itemsize < 4]
    if coarse:
        return Finding("differences", f"its weights are {coarse[0]}, too coarse for differences", "cannot tell")
    few = replace(few, images=few.images * 0.96 + 0.02)  # inside [0, 1], so that no clamp has two slopes there
    view, rows, dice = few.view, torch.arange(len(few.images), device=few.images.device), few.streams
    draw, slope = view.draw("select", 99), slope_of(few, losses.margin).double()
    signs = torch.randint(
        0, 2, (WAYS, *few.images.shape), generator=dice.generator("select", 85), device=few.images.device
    )
    signs = 2 * signs.to(few.images.dtype) - 1
    told = torch.stack([(slope * way).flatten(1).sum(1) for way in signs])
    apart = torch.full((len(rows),), torch.inf, dtype=torch.float64, device=rows.device)
    for step in STEPS:
        open_ = rows[apart > AGREE]
        if not len(open_):
            break
        seen = []
        for way in signs[:, open_]:
            up, down = (
                losses.margin(view.compute.logits(draw, few.images[open_] + size * way, open_), few.labels[open_])
                for size in (step, -step)
            )
            seen.append((up - down).double() / (2 * step))
        met, claimed = torch.stack(seen), told[:, open_]
        gap = (met - claimed).norm(dim=0) / torch.maximum(met.norm(dim=0), claimed.norm(dim=0)).clamp_min(1e-30)
        apart[open_] = torch.minimum(apart[open_], gap.nan_to_num(torch.inf))
    wrong, n = int((apart > AGREE).sum()), len(rows)
    figure = f"gradient and differences disagree on {wrong} of {n} images, by {float(apart.median()):.2g} (median)"
    advice = "the backward pass is not the forward pass's (parts left out, turned or false): " + OTHERWISE
    return tested("differences", figure, too_rare(n - wrong, n), advice)


def uphill(case: Case, ball: Ball, slope: Tensor) -> Finding:
    """A step along the gradient, of a 16th of the ball, must raise the loss of the same draw; images where it does."""
    draw, compute = case.view.draw("select", 99), case.view.compute
    step = ball.eps / 16
    moved = (case.images + step * ball.along(slope)).clamp(0, 1)
    before, after = (losses.margin(compute.logits(draw, images), case.labels) for images in (case.images, moved))
    rises, n = int((after > before).sum()), len(before)
    figure = f"a step of {step:.2g} along the gradient raises the loss of {rises} of {n} images"
    advice = "the gradient is no guide (shattered or false): use finite differences, BPDA or transfer"
    return tested("uphill", figure, too_rare(rises, n), advice)


def signal(case: Case, eot: int, draws: int = 6) -> Finding:
    """Squared length of the expected gradient against the variance left after averaging `eot` draws (median image)."""
    if not case.model.stochastic:
        return Finding("gradient-noise", "declared deterministic", "ok")
    view = case.view
    found = view.gradients(losses.cross_entropy, case.images, case.labels, None, draws, "select", 98)
    stack = torch.stack([slope.flatten(1) for _, slope, _ in found]).double()
    lengths, mean = stack.square().sum((0, 2)), stack.mean(0).square().sum(1)
    noise = (lengths - draws * mean) / (draws - 1)
    strength = (mean - noise / draws).clamp_min(0)
    ratio = float((strength / (noise / eot).clamp_min(1e-300)).median())
    figure = f"signal to noise {ratio:.2g} at EoT {eot}"
    if ratio < 1:
        wanted = "far more" if ratio < 0.01 else f"about {eot / ratio:.0f}"
        advice = f"the gradient drowns in the noise: use {wanted} draws a step"
        return Finding("gradient-noise", figure, "cannot tell", advice)
    return Finding("gradient-noise", figure, "ok")


def unstable(case: Case, ball: Ball, points: int = 4) -> Finding:
    """How much the margin of one draw changes at random points of the ball, relative to itself (Pintor et al. I2)."""
    case = case.few(FEW)
    view = case.view
    draw, dice = view.draw("select", 87), case.streams.generator("select", 86)
    here = losses.margin(view.compute.logits(draw, case.images), case.labels)
    total = torch.zeros_like(here)
    for _ in range(points):
        there = losses.margin(view.compute.logits(draw, ball.random(case.images, dice)), case.labels)
        total += ((there - here).abs() / here.abs().clamp_min(1e-12)).clamp_max(1)
    change = float((total / points).median())
    figure = f"random points of the ball change the margin by {100 * change:.0f} % (median image)"
    if change > 0.5:
        return Finding("unstable", figure, "cannot tell", "gradients look a short way here: use more and smaller steps")
    return Finding("unstable", figure, "ok")


def slope_of(case: Case, loss: Loss = losses.margin) -> Tensor:
    """The gradient (n, c, h, w) of one draw, the same at each call."""
    rows = torch.arange(len(case.images), device=case.images.device)
    slope: Tensor = case.view.compute.gradient(case.view.draw("select", 99), case.images, case.labels, loss, rows)[1]
    return slope


def _dead(slope: Tensor) -> float:
    flat = slope.flatten(1)
    return float(((flat == 0).all(1) | ~flat.isfinite().all(1)).float().mean())

"""What a model's gradients show before it is attacked: flat, saturated, false or drowned in noise."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.lab.attacks import losses
from bench.lab.attacks.ball import Ball
from bench.lab.compute.passes import Disconnected, Loss
from bench.lab.examine.outputs import Case
from bench.lab.examine.rules import Finding, rises_too_rarely


def has_gradient(case: Case) -> bool:
    """Whether autograd finds a way from the output to the image at all."""
    try:
        _gradient(case, losses.margin, case.images[:1])
    except Disconnected:
        return False
    return True


def gradients(case: Case, connected: bool = True) -> Finding:
    """Share of images whose gradient of the margin is zero or not finite (Pintor et al. I1)."""
    if not connected:
        advice = "a part of the model has no derivative: attack it with BPDA, by transfer and black-box"
        return Finding("gradients", "autograd finds no way from output to image", "suspicious", advice)
    dead = _dead(_gradient(case, losses.margin, case.images)[1])
    figure = f"{100 * dead:.0f} % of images have a zero or non-finite gradient"
    if dead > 0.05:
        advice = "a part of the model is flat or detached: attack it with BPDA, by transfer and black-box"
        return Finding("gradients", figure, "suspicious", advice)
    return Finding("gradients", figure, "ok")


def saturation(case: Case) -> Finding:
    """Share of images where cross-entropy has underflowed though the margin still has a gradient."""
    gone = _dead(_gradient(case, losses.cross_entropy, case.images)[1])
    alive = 1 - _dead(_gradient(case, losses.margin, case.images)[1])
    figure = (
        f"{100 * gone:.0f} % of images have no gradient of the cross-entropy, {100 * alive:.0f} % one of the margin"
    )
    if gone > 0.05 and alive > 0.5:
        advice = "the logits are too large for the softmax: attack with loss = 'dlr' or 'margin'"
        return Finding("saturation", figure, "suspicious", advice)
    return Finding("saturation", figure, "ok")


def uphill(case: Case, ball: Ball) -> Finding:
    """A step along the gradient, of a 16th of the ball, must raise the loss of the same draw; images where it does."""
    view = case.view
    draw = view.draw("select", 97)
    before, slope, _ = view.compute.gradient(draw, case.images, case.labels, losses.margin)
    step = ball.eps / 16
    moved = (case.images + step * ball.along(slope)).clamp(0, 1)
    after = losses.margin(view.compute.logits(draw, moved), case.labels)
    rises, n = int((after > before).sum()), len(before)
    figure = f"a step of {step:.2g} along the gradient raises the loss of {rises} of {n} images"
    if rises_too_rarely(rises, n):
        advice = "the gradient is no guide (shattered or false): use finite differences, BPDA or transfer"
        return Finding("uphill", figure, "suspicious", advice)
    return Finding("uphill", figure, "ok")


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


def unstable(case: Case, ball: Ball, points: int = 8) -> Finding:
    """How much the margin of one draw changes at random points of the ball, relative to itself (Pintor et al. I2)."""
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


def _gradient(case: Case, loss: Loss, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows = torch.arange(len(images), device=images.device)
    view = case.view
    return view.compute.gradient(view.draw("select", 99), images, case.labels[: len(images)], loss, rows)


def _dead(slope: Tensor) -> float:
    flat = slope.flatten(1)
    return float(((flat == 0).all(1) | ~flat.isfinite().all(1)).float().mean())

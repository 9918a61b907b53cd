"""Optimisers by recipe: groups of parameters, the learning rate of each step, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.recipes import Optimiser, Schedule


def optimiser(recipe: Optimiser, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser, with up to three groups: weights; the norms' parameters and biases; the noise's.

    Each group keeps the learning rate that a schedule of 1 gives it in `group["base"]`.
    """
    groups: dict[str, list[nn.Parameter]] = {"weights": [], "norm": [], "noise": []}
    for name, parameter in model.named_parameters():
        if "noise" in name.split("."):
            groups["noise"].append(parameter)
        else:
            groups["norm" if parameter.dim() <= 1 else "weights"].append(parameter)
    rates = {"weights": 1.0, "norm": recipe.norm_lr, "noise": recipe.noise_lr}
    decays = {
        "weights": recipe.weight_decay,
        "norm": recipe.norm_weight_decay,
        "noise": recipe.noise_weight_decay,
    }
    settings = [
        {
            "params": members,
            "lr": recipe.lr * rates[kind],
            "base": recipe.lr * rates[kind],
            "weight_decay": decays[kind],
        }
        for kind, members in groups.items()
        if members
    ]
    match recipe.kind:
        case "sgd":
            nesterov = recipe.nesterov and recipe.momentum > 0
            return torch.optim.SGD(settings, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=True)
        case "adam":
            return torch.optim.Adam(settings, lr=recipe.lr, betas=_pair(recipe.betas), fused=True)
        case "adamw":
            return torch.optim.AdamW(settings, lr=recipe.lr, betas=_pair(recipe.betas), fused=True)


def _pair(betas: tuple[float, ...]) -> tuple[float, float]:
    first, second = betas
    return first, second


def rate(schedule: Schedule, epochs: int, steps: int, at: int) -> float:
    """What step `at` (from 0) of epochs x steps multiplies the learning rate with, in (0, 1].

    "multistep": gamma for each milestone (in epochs) that has passed. "cosine": from 1 to 0 by half a
    cosine over the steps after warm-up (Loshchilov & Hutter 2017). "onecycle": from 1/25 up to 1 over the
    warm-up, or 30 % of training where that is 0, then down to 1/250,000, both by half a cosine (Smith &
    Topin 2017, with PyTorch's constants; momentum stays as it is). The others rise linearly
    during warm-up. The rate is that of each step, not of each epoch.
    """
    total = epochs * steps
    warm = schedule.warmup * steps
    if schedule.kind == "onecycle":
        rise = min(warm or 0.3 * total, total)
        if at < rise:
            return _between(1 / 25, 1.0, at / rise)
        return _between(1.0, 1 / 250_000, (at - rise) / max(1.0, total - 1 - rise))
    rising = min(1.0, (at + 1) / warm) if warm else 1.0
    match schedule.kind:
        case "constant":
            return rising
        case "multistep":
            passed = sum(at >= milestone * steps for milestone in schedule.milestones)
            return rising * float(schedule.gamma**passed)
        case "cosine":
            return rising * _between(1.0, 0.0, max(0.0, at - warm) / max(1.0, total - warm))


def _between(start: float, stop: float, share: float) -> float:
    return stop + (start - stop) * (1 + math.cos(math.pi * min(1.0, share))) / 2


def average(pairs: Sequence[tuple[Tensor, Tensor]], decay: float, at: int) -> None:
    """Move the first tensor of each pair towards the second: an exponential moving average at step `at` (from 0).

    The decay starts low, min(decay, (1 + at) / (10 + at)), so that the start is soon forgotten.
    """
    decay = min(decay, (1 + at) / (10 + at))
    torch._foreach_lerp_([mean for mean, _ in pairs], [now for _, now in pairs], 1 - decay)

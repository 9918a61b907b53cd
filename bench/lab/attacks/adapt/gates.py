"""Saturated gates brought to unit scale, and oscillating branches dropped from the backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench.lab.attacks.adapt.passes import SAME, Pass, Rule, argument
from bench.lab.attacks.adapt.twins import through

SATURATED = 2.0
"""Mean size of a gate's argument, of an image, above which its derivative is nearly nothing."""


def _size(values: Tensor) -> Tensor:
    """Mean absolute value of each image (all but the first axis), to divide by; 1 where it is not saturated."""
    axes = tuple(range(1, values.dim())) if values.dim() > 1 else (0,)
    size = values.detach().abs().mean(axes, keepdim=True)
    return torch.where(size > SATURATED, size, torch.ones_like(size))


def _gated(at: Pass, name: str, argued: Tensor, spread: Tensor, curve: Callable[[Tensor], Tensor]) -> Any:
    """`curve` of an argument whose mean `spread` is 1 instead, in the backward pass or in both."""
    if not spread.is_floating_point() or spread.numel() == 0:
        return SAME
    size = _size(spread)
    if not bool((size > 1).any()) or not bool(size.isfinite().all()):
        return SAME
    if "unit-scale-both" in at.kinds:
        return curve(argued / size)
    if not argued.requires_grad or not at.meets("unit-scale", name):
        return SAME
    return through(curve(argued.detach()), curve(argued / size))


def _pointwise(curve: Callable[[Tensor], Tensor]) -> Rule:
    def rule(at: Pass, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        argued = argument(args, kwargs, 0, "input")
        return _gated(at, name, argued, argued, curve)

    return rule


def _softmax(at: Pass, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    argued, axis = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "dim")
    if axis is None or kwargs.get("dtype") is not None or not argued.is_floating_point():
        return SAME
    return _gated(at, name, argued, argued - argued.mean(axis, keepdim=True), lambda z: z.softmax(axis))


def _gumbel(at: Pass, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """gumbel_softmax(logits, tau, hard, eps, dim): its noise, its temperature and its hard choice are all inside."""
    logits, tau = argument(args, kwargs, 0, "logits"), argument(args, kwargs, 1, "tau", 1.0)
    hard, axis = argument(args, kwargs, 2, "hard", False), argument(args, kwargs, 4, "dim", -1)
    noise = -torch.empty_like(logits, memory_format=torch.legacy_contiguous_format).exponential_().log()
    if at.meets("expectation", name):
        noise = torch.zeros_like(noise)
    argued = (logits + noise) / tau
    soft = _gated(at, name, argued, argued - argued.mean(axis, keepdim=True), lambda z: z.softmax(axis))
    soft = argued.softmax(axis) if soft is SAME else soft
    if not hard:
        return soft
    one_hot = torch.zeros_like(soft).scatter_(axis, soft.argmax(axis, keepdim=True), 1.0)
    return one_hot - soft.detach() + soft


def _wave(at: Pass, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A wave with many turns over an image: its slope says nothing of where it leads."""
    argued = argument(args, kwargs, 0, "input")
    if not argued.requires_grad or argued.numel() < 2 or float(argued.detach().float().std()) < math.pi:
        return SAME
    return func(argued.detach()) if at.meets("steep", name) else SAME


RULES: dict[str, Rule] = {
    "sigmoid": _pointwise(torch.sigmoid),
    "expit": _pointwise(torch.sigmoid),
    "special_expit": _pointwise(torch.sigmoid),
    "tanh": _pointwise(torch.tanh),
    "erf": _pointwise(torch.erf),
    "special_erf": _pointwise(torch.erf),
    "hardsigmoid": _pointwise(functional.hardsigmoid),
    "softmax": _softmax,
    "gumbel_softmax": _gumbel,
    "sin": _wave,
    "cos": _wave,
    "tan": _wave,
}

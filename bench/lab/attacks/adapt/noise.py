"""Expectations in place of random numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.lab.attacks.adapt.choices import choose
from bench.lab.attacks.adapt.passes import SAME, Pass, Rule, argument

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def _filled(mean: Callable[[Args, Kwargs], float]) -> Rule:
    """Fills what the call returns (in place where it fills in place): shape, dtype, device, generator as there."""

    def rule(at: Pass, name: str, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
        if not at.meets("expectation", name):
            return SAME
        out = func(*args, **kwargs)
        with torch.no_grad():
            return out.fill_(mean(args, kwargs))

    return rule


def _normal(at: Pass, name: str, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """torch.normal(mean, std): the mean, with its gradient."""
    if not at.meets("expectation", name):
        return SAME
    out, mean = func(*args, **kwargs), argument(args, kwargs, 0, "mean")
    return mean.expand_as(out) if isinstance(mean, Tensor) else out.fill_(float(mean))


def _bernoulli(at: Pass, name: str, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """torch.bernoulli(chances): the chances; Tensor.bernoulli(p): p."""
    if not at.meets("expectation", name):
        return SAME
    p = argument(args, kwargs, 1, "p")
    return args[0].clone() if p is None else torch.full_like(args[0], float(p))


def _filled_bernoulli(at: Pass, name: str, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    if not at.meets("expectation", name):
        return SAME
    out, p = func(*args, **kwargs), argument(args, kwargs, 1, "p", 0.5)
    with torch.no_grad():
        return out.copy_(p.expand_as(out)) if isinstance(p, Tensor) else out.fill_(float(p))


def _dropout(at: Pass, name: str, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Dropout keeps the mean: its expectation is its input."""
    if not argument(args, kwargs, 2, "training", True) or not at.meets("expectation", name):
        return SAME
    return argument(args, kwargs, 0, "input")


def _multinomial(at: Pass, name: str, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """The likeliest class, and the chances behind it as its soft choice."""
    if not at.meets("expectation", name):
        return SAME
    out, chances = func(*args, **kwargs), argument(args, kwargs, 0, "input")
    best = chances.argmax(-1, keepdim=True).expand_as(out).contiguous()
    return choose(best, chances / chances.sum(-1, keepdim=True)) if out.shape[-1] == 1 else best


def _of(value: float) -> Rule:
    return _filled(lambda args, kwargs: value)


RULES: dict[str, Rule] = {
    "rand": _of(0.5),
    "rand_like": _of(0.5),
    "randn": _of(0.0),
    "randn_like": _of(0.0),
    "uniform_": _filled(
        lambda args, kwargs: (argument(args, kwargs, 1, "from", 0.0) + argument(args, kwargs, 2, "to", 1.0)) / 2
    ),
    "normal_": _filled(lambda args, kwargs: argument(args, kwargs, 1, "mean", 0.0)),
    "exponential_": _filled(lambda args, kwargs: 1 / argument(args, kwargs, 1, "lambd", 1.0)),
    "cauchy_": _filled(lambda args, kwargs: argument(args, kwargs, 1, "median", 0.0)),
    "log_normal_": _filled(
        lambda args, kwargs: math.exp(
            argument(args, kwargs, 1, "mean", 1.0) + argument(args, kwargs, 2, "std", 2.0) ** 2 / 2
        )
    ),
    "geometric_": _filled(lambda args, kwargs: 1 / argument(args, kwargs, 1, "p")),
    "normal": _normal,
    "bernoulli": _bernoulli,
    "bernoulli_": _filled_bernoulli,
    "multinomial": _multinomial,
    "poisson": lambda at, name, func, args, kwargs: args[0].clone() if at.meets("expectation", name) else SAME,
    **dict.fromkeys(
        ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"), _dropout
    ),
}

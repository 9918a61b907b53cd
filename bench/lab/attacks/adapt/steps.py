"""Straight-through estimates in place of rounding, casts and comparisons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.lab.attacks.adapt.passes import SAME, Pass, Rule, argument
from bench.lab.attacks.adapt.twins import attach, live, swapped, through, twin

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Call = Callable[..., Any]


def _unit(values: Tensor) -> Tensor:
    return values / values.detach().abs().mean().clamp_min(torch.finfo(values.dtype).tiny)


def _stepped(soft: Callable[[Tensor], Tensor]) -> Rule:
    """The function's own values, with the slope of `soft`; in place where the function is."""

    def rule(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
        argued = live(args[0]) if args else None
        if argued is None or not argued.is_floating_point() or not at.meets("straight-through", name):
            return SAME
        smooth = soft(argued)
        if name.endswith("_"):
            gain = smooth - smooth.detach()
            return func(*args, **kwargs).add_(gain)
        return through(func(args[0].detach(), *args[1:], **kwargs), smooth)

    return rule


def _divided(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
    """a // b, and division with a rounding mode: the slope of a / b."""
    rounds = name in ("__floordiv__", "floor_divide") or kwargs.get("rounding_mode") is not None
    if not rounds or (live(args[0]) is None and live(args[1]) is None):
        return SAME
    if not at.meets("straight-through", name):
        return SAME
    hard, soft = func(*args, **kwargs), swapped(args[0]) / swapped(args[1])
    return through(hard, soft) if hard.is_floating_point() else attach(hard, soft)


def _cast(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
    """A cast to integers keeps a twin; a cast back to floats has its gradient."""
    argued = live(args[0])
    if argued is None:
        return SAME
    hard = func(*args, **kwargs)
    if not isinstance(hard, Tensor):
        return hard
    if hard.is_floating_point():
        return hard if twin(args[0]) is None else through(hard, argued)
    if twin(args[0]) is not None or at.meets("straight-through", name):
        attach(hard, argued)
    return hard


def _compared(sign: float) -> Rule:
    """a > b (sign 1), a < b (sign -1), as a sigmoid of the difference brought to unit scale."""

    def rule(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
        a, b = (live(value) for value in args[:2])
        if (a is None and b is None) or not at.meets("straight-through", name):
            return SAME
        hard = func(*args, **kwargs)
        gap = swapped(args[0]) - swapped(args[1])
        return attach(hard, torch.sigmoid(sign * _unit(gap.float())))

    return rule


def _equal(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
    """a == b and a != b: a peak of unit width; of an index with a soft choice behind it, that choice."""
    different = name in ("ne", "__ne__", "not_equal")
    for index in args[:2]:
        chances = getattr(index, "_chosen", None)
        if chances is not None:
            hard = func(*args, **kwargs)
            if isinstance(hard, Tensor) and hard.numel() == chances.numel():
                chances = chances.reshape(hard.shape)
                return attach(hard, 1 - chances if different else chances)
            return hard
    if (live(args[0]) is None and live(args[1]) is None) or not at.meets("straight-through", name):
        return SAME
    hard, gap = func(*args, **kwargs), _unit((swapped(args[0]) - swapped(args[1])).float())
    soft = torch.exp(-gap.abs())
    return attach(hard, 1 - soft if different else soft)


def _where(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
    """where(c, a, b) and a.where(c, b): c's gradient is that of c a + (1 - c) b."""
    if len(args) != 3 or not isinstance(args[0], Tensor):
        return SAME
    first = args[0].dtype == torch.bool
    condition, a, b = (args[0], args[1], args[2]) if first else (args[1], args[0], args[2])
    soft = twin(condition)
    if soft is None:
        return SAME
    a, b = swapped(a), swapped(b)
    out = torch.where(condition, a, b)
    if not out.is_floating_point():
        return SAME
    gap = (a.detach() if isinstance(a, Tensor) else a) - (b.detach() if isinstance(b, Tensor) else b)
    return out + ((soft - soft.detach()) * gap).to(out.dtype)


def _masked(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
    """masked_fill, and x[mask] = number: the mask's gradient is that of x + mask (number - x)."""
    target, mask, value = args[0], argument(args, kwargs, 1, "mask"), argument(args, kwargs, 2, "value")
    soft = twin(mask)
    if soft is None or not target.is_floating_point() or not isinstance(value, int | float | Tensor):
        return SAME
    if name == "__setitem__" and (soft.shape != target.shape or (isinstance(value, Tensor) and value.dim())):
        return SAME
    gain = ((soft - soft.detach()) * (value - target.detach().clone())).to(target.dtype)
    out = func(*args, **kwargs)
    if name == "masked_fill":
        return out + gain
    target.add_(gain)
    return out


def _bucketed(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
    """bucketize(x, boundaries): x itself, scaled to the number of buckets."""
    argued, edges = live(args[0]), argument(args, kwargs, 1, "boundaries")
    if argued is None or not isinstance(edges, Tensor) or edges.numel() < 2:
        return SAME
    if not at.meets("straight-through", name):
        return SAME
    span = float(edges.max() - edges.min())
    return attach(func(*args, **kwargs), argued * ((edges.numel() - 1) / span)) if span > 0 else SAME


RULES: dict[str, Rule] = {
    **{
        spelt: _stepped(lambda x: x)
        for stem in ("round", "floor", "ceil", "trunc", "fix")
        for spelt in (stem, f"{stem}_")
    },
    **{spelt: _stepped(lambda x: torch.tanh(_unit(x))) for spelt in ("sign", "sign_", "sgn", "sgn_")},
    "heaviside": _stepped(lambda x: torch.sigmoid(_unit(x))),
    **dict.fromkeys(("__floordiv__", "floor_divide", "div", "divide", "true_divide"), _divided),
    **dict.fromkeys(
        ("byte", "char", "short", "int", "long", "bool", "to", "type", "type_as", "float", "double", "half"), _cast
    ),
    **dict.fromkeys(("gt", "ge", "greater", "greater_equal", "__gt__", "__ge__"), _compared(1.0)),
    **dict.fromkeys(("lt", "le", "less", "less_equal", "__lt__", "__le__"), _compared(-1.0)),
    **dict.fromkeys(("eq", "ne", "__eq__", "__ne__", "not_equal"), _equal),
    "where": _where,
    **dict.fromkeys(("masked_fill", "masked_fill_", "__setitem__"), _masked),
    "bucketize": _bucketed,
}

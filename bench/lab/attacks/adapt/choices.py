"""Soft choices in place of argmax, one_hot, topk masks and lookups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.lab.attacks.adapt.passes import SAME, Pass, Rule, argument
from bench.lab.attacks.adapt.twins import attach, live, through, twin

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Call = Callable[..., Any]

KEPT = frozenset(
    ("unsqueeze", "squeeze", "view", "reshape", "flatten", "long", "int", "to", "contiguous", "clone", "detach", "cpu")
)
"""After these an index is still the same choice."""


def choose(index: Tensor, chances: Tensor) -> Tensor:
    """`index` with the soft choice behind it: chances (..., classes) of each of its entries, in its order."""
    index._chosen = chances  # type: ignore[attr-defined]
    return index


def _soft(values: Tensor, axis: int) -> Tensor:
    """Softmax at unit scale, with the classes moved to the last axis."""
    apart = (values - values.mean(axis, keepdim=True)).float()
    size = apart.detach().abs().mean().clamp_min(1e-12)
    return (apart / size).softmax(axis).movedim(axis, -1)


def _arg(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
    """argmax, argmin, and max and min along an axis: the index remembers the softmax behind it."""
    values, axis = live(args[0]), argument(args, kwargs, 1, "dim")
    if values is None or (axis is not None and not isinstance(axis, int)):
        return SAME
    if axis is None and not name.startswith("arg"):
        return SAME
    if not at.meets("soft-choice", name):
        return SAME
    out = func(*args, **kwargs)
    values = -values if name in ("argmin", "min") else values
    chances = _soft(values.flatten(), 0) if axis is None else _soft(values, axis)
    choose(out if isinstance(out, Tensor) else out[1], chances)
    return out


def _topk(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
    """topk(values, k, dim, largest): its indices remember how nearly each entry is among them."""
    values, k = live(args[0]), argument(args, kwargs, 1, "k")
    axis = argument(args, kwargs, 2, "dim", -1)
    if values is None or not at.meets("soft-choice", name):
        return SAME
    out = func(*args, **kwargs)
    values = values if argument(args, kwargs, 3, "largest", True) else -values
    gap = values - values.detach().topk(k, axis).values.select(axis, k - 1).unsqueeze(axis)
    size = gap.detach().abs().mean().clamp_min(1e-12)
    members = (gap / size).softmax(axis) if k == 1 else torch.sigmoid(gap / size)
    out[1]._members = (members, axis)
    return out


def _one_hot(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
    index, out = args[0], func(*args, **kwargs)
    chances, order = getattr(index, "_chosen", None), twin(index)
    if chances is not None and chances.numel() == out.numel():
        return attach(out, chances.reshape(out.shape))
    if order is not None:  # an ordinal, such as a quantised value: near classes are near
        classes = torch.arange(out.shape[-1], device=out.device, dtype=order.dtype)
        return attach(out, (-(order.unsqueeze(-1) - classes).square()).softmax(-1))
    return out


def _scatter(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
    """scatter(dim, index, number) onto a constant: the mask that it makes gets the choice's gradient."""
    target, axis, index = args[0], argument(args, kwargs, 1, "dim"), argument(args, kwargs, 2, "index")
    value = argument(args, kwargs, 3, "value", argument(args, kwargs, 3, "src"))
    chances, members = getattr(index, "_chosen", None), getattr(index, "_members", None)
    soft = None
    if chances is not None and chances.numel() == target.numel() and index.dim() == target.dim():
        soft = chances.reshape(*target.movedim(axis, -1).shape).movedim(-1, axis)
    elif members is not None and members[0].shape == target.shape:
        soft = members[0]
    if soft is None or not isinstance(value, int | float):
        return SAME
    gain = (soft - soft.detach()) * float(value)
    out = func(*args, **kwargs)
    if not out.is_floating_point():
        return attach(out, soft)
    return out.add_(gain.to(out.dtype)) if name.endswith("_") else out + gain.to(out.dtype)


def _looked_up(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
    """table[index] and embedding(index, table): the mean of the rows by the soft choice, or the table's slope."""
    table, index = (args[0], args[1]) if name == "__getitem__" else (argument(args, kwargs, 1, "weight"), args[0])
    if not isinstance(index, Tensor) or index.dtype == torch.bool or not table.is_floating_point():
        return SAME
    chances, order = getattr(index, "_chosen", None), twin(index)
    if chances is not None and chances.shape[-1] == len(table):
        out = func(*args, **kwargs)
        return through(out, (chances.to(table.dtype) @ table.flatten(1 if table.dim() > 1 else 0)).reshape(out.shape))
    if order is not None and table.dim() == 1 and len(table) > 1:
        out, slope = func(*args, **kwargs), float(table[-1] - table[0]) / (len(table) - 1)
        return through(out, slope * order)
    return SAME


RULES: dict[str, Rule] = {
    **dict.fromkeys(("argmax", "argmin", "max", "min"), _arg),
    "topk": _topk,
    "one_hot": _one_hot,
    **dict.fromkeys(("scatter", "scatter_"), _scatter),
    **dict.fromkeys(("__getitem__", "embedding"), _looked_up),
}

"""Graphs that were cut: detach, no_grad, tensor hooks, and detours out of torch, joined again."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.lab.attacks.adapt.passes import SAME, Pass, Rule
from bench.lab.attacks.adapt.twins import attach, live, through, twin

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Call = Callable[..., Any]

MOST = 64
"""Tensors that have left torch which one that comes in is compared with."""


def uncut(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
    """detach(), detach_() and .data: the tensor itself."""
    x = args[0]
    if live(x) is None or not at.meets("undone-detach", name):
        return SAME
    other = twin(x)
    if other is not None:
        return attach(func(*args, **kwargs), other)
    return x if name.endswith("_") else x.view_as(x)


def _grad_mode(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
    """no_grad and set_grad_enabled: refused where they would switch gradients off."""
    if args[0] or not torch.is_grad_enabled() or not at.meets("undone-detach", "no_grad"):
        return SAME
    return None


def _requires(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
    """requires_grad_(): a tensor that is no leaf any more is left as it is."""
    return SAME if args[0].is_leaf else args[0]


class _NoHandle:
    """What registering a hook returns where none was."""

    def remove(self) -> None: ...


def _hook(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
    return _NoHandle() if at.meets("hooks", name) else SAME


def _leaves(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
    """numpy(), __array__ and tolist: what has a gradient is remembered, until something of its shape comes back."""
    source = live(args[0])
    if source is None:
        return SAME
    if at.meets("reconnected", name):
        at.left.append(source)
    return func(args[0].detach(), *args[1:], **kwargs)


def comes(at: Pass, name: str, func: Call, args: Args, kwargs: Kwargs) -> Any:
    """A tensor made of something that is none: joined to the one that left which it resembles most."""
    if not at.left or (args and isinstance(args[0], Tensor)) or "reconnected" not in at.kinds:
        return SAME
    out = func(*args, **kwargs)
    found = [item for item in map(lambda source: _fitted(out, source), _candidates(at.left, out)) if item is not None]
    if not found:
        return out
    _, soft = max(found, key=lambda item: item[0])
    return through(out, soft) if out.is_floating_point() else attach(out, soft)


def _candidates(left: list[Tensor], out: Tensor) -> list[Tensor]:
    """Those that left which have the shape of `out`, axes moved where needed; or as many as make it up."""
    found = [source for source in left[-MOST:] if source.shape == out.shape]
    if not found:
        turned = [source for source in left[-MOST:] if sorted(source.shape) == sorted(out.shape)]
        for source in turned:
            for axes in itertools.permutations(range(source.dim())):
                if tuple(source.shape[axis] for axis in axes) == out.shape:
                    found.append(source.permute(axes))
                    break
    if not found and out.dim() > 1 and len(left) >= len(out):
        parts = left[-len(out) :]
        if all(part.shape == out.shape[1:] for part in parts):
            found.append(torch.stack(parts))
    return found


def _fitted(out: Tensor, source: Tensor) -> tuple[float, Tensor] | None:
    """How alike the two are (correlation), and the source scaled to what came back by least squares."""
    with torch.no_grad():
        y, x = out.double(), source.double()
        y, x = y - y.mean(), x - x.mean()
        square = float(x.square().sum())
        if square == 0:
            return None
        slope = float((x * y).sum()) / square
        spread = float(y.square().sum()) / square
    alike = slope / spread**0.5 if spread > 0 else 0.0
    scale = slope if abs(alike) > 0.2 else max(spread**0.5, 1e-12)
    return abs(alike), scale * source


RULES: dict[str, Rule] = {
    "detach": uncut,
    "detach_": uncut,
    "_set_grad_enabled": _grad_mode,
    "requires_grad_": _requires,
    "register_hook": _hook,
    "numpy": _leaves,
    "__array__": _leaves,
    "tolist": _leaves,
    "as_tensor": comes,
    "asarray": comes,
    "tensor": comes,
    "from_numpy": comes,
}

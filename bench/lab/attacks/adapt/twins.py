"""Numbers that autograd drops carry a twin: a float tensor of the same values that has a gradient.

Comparisons, casts to integers and indices have no derivative in torch. Each result keeps a twin (and an index the
soft choice behind it) as an attribute, until it is a float again: then the twin's gradient is put behind it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Call = Callable[..., Any]

_BOOLEAN: dict[str, Callable[..., Tensor]] = {
    "bitwise_not": lambda a: 1 - a,
    "__invert__": lambda a: 1 - a,
    "logical_not": lambda a: 1 - a,
    "bitwise_and": lambda a, b: a * b,
    "__and__": lambda a, b: a * b,
    "logical_and": lambda a, b: a * b,
    "bitwise_or": lambda a, b: a + b - a * b,
    "__or__": lambda a, b: a + b - a * b,
    "logical_or": lambda a, b: a + b - a * b,
    "bitwise_xor": lambda a, b: a + b - 2 * a * b,
    "__xor__": lambda a, b: a + b - 2 * a * b,
    "logical_xor": lambda a, b: a + b - 2 * a * b,
}


def through(hard: Tensor, soft: Tensor) -> Tensor:
    """The values of `hard` with the gradient of `soft`: straight through, for tensors of one shape."""
    return hard.detach() + (soft - soft.detach()).to(hard.dtype)


def attach(hard: Tensor, soft: Tensor) -> Tensor:
    """`hard`, an integer or boolean tensor, with a twin whose gradient is that of `soft`."""
    hard._twin = through(hard.to(soft.dtype), soft)  # type: ignore[attr-defined]
    return hard


def twin(value: Any) -> Tensor | None:
    """The twin of a tensor, if it has one."""
    return getattr(value, "_twin", None) if isinstance(value, Tensor) else None


def live(value: Any) -> Tensor | None:
    """What carries a value's gradient: the tensor itself, its twin, or nothing."""
    if not isinstance(value, Tensor):
        return None
    other = twin(value)
    if other is not None:
        return other
    return value if value.requires_grad else None


def swapped(value: Any) -> Any:
    """Arguments with twins in place of the tensors that have one."""
    if isinstance(value, Tensor):
        other = twin(value)
        return value if other is None else other
    if type(value) in (list, tuple):
        return type(value)(swapped(item) for item in value)
    if type(value) is dict:
        return {key: swapped(item) for key, item in value.items()}
    return value


def any_twin(values: Any) -> bool:
    """Whether an argument, or an item of a list among the arguments, has a twin."""
    for value in values:
        if isinstance(value, Tensor):
            if twin(value) is not None:
                return True
        elif type(value) in (list, tuple) and any_twin(value):
            return True
    return False


def carry(name: str, func: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The call's own result, with the gradient that its arguments' twins give it."""
    changes_self = (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")
    if changes_self and isinstance(args[0], Tensor) and args[0].is_floating_point() and twin(args[0]) is None:
        with contextlib.suppress(Exception):
            return func(*swapped(args), **swapped(kwargs))
        return func(*args, **kwargs)
    before = (swapped(args), swapped(kwargs))
    hard = func(*args, **kwargs)
    if changes_self and isinstance(hard, Tensor):
        with contextlib.suppress(AttributeError):
            del hard._twin  # type: ignore[attr-defined]
        plain = getattr(torch.Tensor, name[:-1] if not name.startswith("__i") else "__" + name[3:], None)
        if plain is None:
            return hard
        func = plain
    with contextlib.suppress(Exception), torch.enable_grad():
        soft = _BOOLEAN[name](*before[0]) if name in _BOOLEAN else func(*before[0], **before[1])
        return _joined(hard, soft)
    return hard


def _joined(hard: Any, soft: Any) -> Any:
    if isinstance(hard, Tensor) and isinstance(soft, Tensor):
        if hard.shape != soft.shape or not soft.requires_grad:
            return hard
        if not hard.is_floating_point():
            return attach(hard, soft)
        return soft if soft.dtype == hard.dtype else through(hard, soft)
    if isinstance(hard, tuple | list) and isinstance(soft, tuple | list) and len(hard) == len(soft):
        items = [_joined(one, other) for one, other in zip(hard, soft, strict=True)]
        return type(hard)(items) if type(hard) in (list, tuple) else hard
    return hard

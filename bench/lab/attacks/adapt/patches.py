"""What a function mode does not see, patched for one pass: custom functions, from_numpy, scripted functions."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function

from bench.lab.attacks.adapt import paths
from bench.lab.attacks.adapt.passes import SAME, Pass
from bench.lab.attacks.adapt.twins import live, through

Call = Callable[..., Any]
Held = tuple[Any, str, Any]
"""Who holds a function (a class, a module of the network, a namespace), under which name, and the function."""


class _Context:
    """Stands for `ctx` where a function's forward is run as ordinary code; it takes whatever it is told."""

    def __init__(self, inputs: tuple[Any, ...]) -> None:
        self.needs_input_grad = tuple(isinstance(x, Tensor) and x.requires_grad for x in inputs)
        self.saved_tensors: tuple[Any, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors

    def mark_dirty(self, *tensors: Any) -> None: ...

    def mark_non_differentiable(self, *tensors: Any) -> None: ...

    def set_materialize_grads(self, value: bool) -> None: ...


@contextlib.contextmanager
def patched(at: Pass, held: list[Held]) -> Iterator[None]:
    """Custom functions differentiated anew, tensors made of arrays joined again; everything as it was afterwards."""
    original, thread = Function.__dict__["apply"], threading.get_ident()
    from_numpy = torch.from_numpy

    def apply(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
        run = original.__get__(None, cls)
        return _anew(at, cls, run, args, kwargs) if threading.get_ident() == thread else run(*args, **kwargs)

    def joined(ndarray: Any) -> Tensor:
        if threading.get_ident() != thread:
            return from_numpy(ndarray)
        with torch._C.DisableTorchFunction():  # else the rule's own detach would be undone
            out = paths.comes(at, "from_numpy", from_numpy, (ndarray,), {})
            return from_numpy(ndarray) if out is SAME else cast(Tensor, out)

    with contextlib.ExitStack() as stack:
        for holder, name, value in held:
            stack.callback(_put, holder, name, value)
            if isinstance(value, torch.jit.ScriptFunction):
                _put(holder, name, functools.partial(_bridged, at, value))
            else:
                _put(holder, name, functools.partial(apply, _function(value)))
        stack.callback(setattr, Function, "apply", original)
        Function.apply = classmethod(apply)
        stack.callback(setattr, torch, "from_numpy", from_numpy)
        torch.from_numpy = joined
        yield


def _anew(at: Pass, cls: type[Function], run: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    inputs = [x for x in map(live, args) if x is not None]
    if cls.__module__.startswith("torch.") or not inputs or not at.meets("custom-functions", cls.__name__):
        return run(*args, **kwargs)
    with_context = cls.setup_context is Function.setup_context
    copies = tuple(x.clone() if isinstance(x, Tensor) and x.is_floating_point() else x for x in args)
    out = cls.forward(_Context(args), *copies, **kwargs) if with_context else cls.forward(*copies, **kwargs)
    if not isinstance(out, Tensor) or live(out) is not None:
        return out
    for x in inputs:
        if x.shape == out.shape and out.is_floating_point():
            with torch._C.DisableTorchFunction():
                return through(out, x)
    return run(*args, **kwargs)


def _bridged(at: Pass, script: Call, *args: Any, **kwargs: Any) -> Any:
    """A scripted function: straight through it where it has no derivative and keeps its argument's shape."""
    out = script(*args, **kwargs)
    x = live(args[0]) if args else None
    if x is None or not isinstance(out, Tensor) or out.shape != x.shape or not out.is_floating_point():
        return out
    with torch._C.DisableTorchFunction():
        if not dead(out, x) or not at.meets("bridges", getattr(script, "name", "scripted function")):
            return out
        return through(out, x)


def dead(out: Tensor, x: Tensor) -> bool:
    """Whether `out` has no gradient to `x` at all, or one that is zero everywhere."""
    if not out.requires_grad:
        return True
    dice = torch.Generator(device=out.device).manual_seed(0)
    weights = torch.randn(out.shape, generator=dice, device=out.device).to(out.dtype)
    (slope,) = torch.autograd.grad(out, x, weights, retain_graph=True, allow_unused=True)
    return slope is None or not bool(slope.any())


def held(model: nn.Module) -> list[Held]:
    """Where a model's code keeps `SomeFunction.apply` or a scripted function under a name of its own.

    Looked at are its modules' attributes, their classes', and the namespaces in which their methods and the custom
    functions of those namespaces are written.
    """
    found: dict[tuple[int, str], Held] = {}

    def look(holder: Any, names: MutableMapping[str, Any]) -> None:
        for name, value in list(names.items()):
            plain = value.__func__ if isinstance(value, staticmethod) else value
            if _function(plain) is not None or isinstance(plain, torch.jit.ScriptFunction):
                found[id(holder), name] = (holder, name, value)

    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        look(module, module.__dict__)
        for cls in type(module).__mro__:
            if cls.__module__.split(".")[0] in ("torch", "builtins", "typing", "abc"):
                continue
            look(cls, dict(vars(cls)))
            for function in vars(cls).values():
                if isinstance(function, FunctionType):
                    look(function.__globals__, function.__globals__)
    for custom in _subclasses(Function):
        namespace = sys.modules.get(custom.__module__)
        if namespace is not None and not custom.__module__.startswith("torch."):
            look(namespace, vars(namespace))
    return list(found.values())


def _function(value: Any) -> Any:
    value = value.__func__ if isinstance(value, staticmethod) else value
    owner = getattr(value, "__self__", None) if inspect.isbuiltin(value) and value.__name__ == "apply" else None
    return owner if isinstance(owner, type) and issubclass(owner, Function) else None


def _subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    below: type[Any]
    for below in cls.__subclasses__():
        yield below
        yield from _subclasses(below)


def _put(holder: Any, name: str, value: Any) -> None:
    if isinstance(holder, dict):
        holder[name] = value
    elif isinstance(holder, type) and callable(value) and not isinstance(value, staticmethod):
        setattr(holder, name, staticmethod(value) if isinstance(value, functools.partial) else value)
    else:
        setattr(holder, name, value)

"""What a user's code holds on to beside source and tensors: numbers in attributes, closures, defaults and globals."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from bench.suite.code import own

DEEP = 4  # containers within containers, and functions that call functions
OF_ALL = frozenset(vars(nn.Module()))


def numbers(value: Any, deep: int = DEEP) -> str | None:
    """A number, an array or tensor, or a container of such alone, as text that tells it from others; None of the rest.

    Text is left out: it may be a path or a device, which differ where the code does not.
    """
    if value is None or isinstance(value, bool | int | float | complex):
        return repr(value)
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, Tensor | np.ndarray):
        with contextlib.suppress(RuntimeError, TypeError, ValueError):
            array = value.detach().cpu().float().numpy() if isinstance(value, Tensor) else value
            if array.dtype.kind in "biufc":
                digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
                return f"{value.dtype} {tuple(value.shape)} {digest}"
        return None
    if deep and isinstance(value, list | tuple):
        parts = [numbers(one, deep - 1) for one in value]
        return None if None in parts else f"[{', '.join(map(str, parts))}]"
    if deep and isinstance(value, Mapping):
        pairs = {str(name): numbers(one, deep - 1) for name, one in value.items()}
        return None if None in pairs.values() else repr(sorted(pairs.items()))
    return None


def of_network(net: nn.Module) -> dict[str, str]:
    """The numbers in attributes of a network's parts, and what the functions and methods of the user's hold."""
    found: dict[str, str] = {}
    for place, module in net.named_modules():
        with contextlib.suppress(TypeError, RuntimeError):  # compiled modules have no dictionary of their own
            for name, value in vars(module).items():
                if name not in OF_ALL and (said := numbers(value)) is not None:
                    found[f"{place}.{name}"] = said
                if name == "function" or inspect.isfunction(value) or inspect.ismethod(value):
                    found |= {f"{place}.{name} {key}": text for key, text in of_function(value).items()}
        for name, method in vars(type(module)).items() if _own(type(module)) else ():
            if inspect.isfunction(method):
                found |= {f"{place}.{name} {key}": text for key, text in of_function(method).items()}
    return found


def of_function(function: Any, deep: int = DEEP) -> dict[str, str]:
    """The numbers that a function of the user's closes over, has as defaults or names as globals; of functions of
    theirs that it calls, their source and the same."""
    found: dict[str, str] = {}
    for name, value in _named(function):
        said = numbers(value)
        if said is not None:
            found[name] = said
        elif isinstance(value, nn.Module):
            found |= {f"{name} {key}": str(numbers(tensor)) for key, tensor in value.state_dict().items()}
        elif deep and (inspect.isfunction(value) or inspect.ismethod(value)) and _own(value):
            with contextlib.suppress(OSError, TypeError):
                found[f"{name}()"] = inspect.getsource(value)
            found |= {f"{name} {key}": text for key, text in of_function(value, deep - 1).items()}
    return found


def _named(function: Any) -> Iterator[tuple[str, Any]]:
    """Everything that a function, a bound method, a partial or an object that can be called has at hand, by name."""
    if hasattr(function, "func") and hasattr(function, "keywords"):
        yield from ((f"argument {i}", value) for i, value in enumerate(function.args))
        yield from function.keywords.items()
        function = function.func
    if not inspect.isroutine(function) and not isinstance(function, nn.Module):
        yield from sorted(getattr(function, "__dict__", {}).items())
        function = vars(type(function)).get("__call__", function)
    if inspect.ismethod(function) and not isinstance(function.__self__, nn.Module):
        yield from sorted(getattr(function.__self__, "__dict__", {}).items())
    function = inspect.unwrap(getattr(function, "__func__", function))
    if not inspect.isfunction(function):
        return
    yield from ((f"default {i}", value) for i, value in enumerate(function.__defaults__ or ()))
    yield from (function.__kwdefaults__ or {}).items()
    with contextlib.suppress(TypeError, ValueError):
        seen = inspect.getclosurevars(function)
        yield from sorted({**seen.globals, **seen.nonlocals}.items())


def _own(thing: Any) -> bool:
    try:
        return own(Path(inspect.getsourcefile(thing) or inspect.getfile(thing)).resolve())
    except (TypeError, OSError):
        return False

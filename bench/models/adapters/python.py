"""A model from the user's own code: a function that returns a network or a Classifier."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from bench.models.adapters.checkpoint import Loaded


def load(name: str, classes: int, *, root: Path = Path(), arguments: dict[str, Any] | None = None) -> Loaded:
    """What ``package.module:function`` or ``path/to/file.py:function`` returns when called with `arguments`.

    A path is taken from `root` unless it is absolute. The function returns an nn.Module, images
    (n, 3, h, w) in [0, 1] to logits, or a bench.models.classifier.Classifier. This runs the user's
    code. FileNotFoundError and ImportError for a missing file or module; ValueError for a missing
    function, arguments it does not take, or a result of another kind.
    """
    function, file = _find(name, root)
    given = dict(arguments or {})
    try:
        inspect.signature(function).bind(**given)
    except TypeError as error:
        raise ValueError(f"{name} cannot be called with {given}: {error}.") from None
    net = function(**given)
    if not isinstance(net, nn.Module):
        raise ValueError(f"{name} returned a {type(net).__name__}, not a torch.nn.Module.")
    return Loaded(net.eval(), int(getattr(net, "classes", classes)), (file,) if file else (), name)


def _find(name: str, root: Path) -> tuple[Callable[..., Any], Path | None]:
    where, _, attribute = name.rpartition(":")
    if not where or not attribute:
        raise ValueError(f"{name!r} names no function. Write package.module:function or path/to/file.py:function.")
    if where.endswith(".py"):
        path = root / where
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}, which {name} names.")
        module = _from_file(path.resolve())
    else:
        try:
            module = importlib.import_module(where)
        except ModuleNotFoundError as error:
            raise ImportError(f"Module {where}, which {name} names, cannot be imported: {error}.") from None
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ValueError(f"{where} has no function {attribute}.")
    return function, Path(module.__file__) if module.__file__ else None


def _from_file(path: Path) -> Any:
    """The file as a module under a name of its own, so that its classes can be found again."""
    name = f"model_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module

"""What a loaded model is made of: a digest of its numbers, and which files were read while it was loaded."""

from __future__ import annotations

import _io
import builtins
import contextlib
import hashlib
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.suite.code import own


def fingerprint(net: nn.Module, held: bool = True) -> str:
    """SHA-256 over a network's parameters and buffers, and, if `held`, over tensors that its parts hold on to."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_tensors(net, held), key=lambda item: item[0]):
        digest.update(f"{name!r} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _tensors(net: nn.Module, held: bool) -> Iterator[tuple[str, Tensor]]:
    yield from net.named_parameters(remove_duplicate=False)
    yield from net.named_buffers(remove_duplicate=False)
    for name, module in net.named_modules() if held else ():
        with contextlib.suppress(TypeError):  # compiled modules have no dictionary of their own
            for key, value in vars(module).items():
                if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
                    yield f"{name}.{key}", torch.tensor(value.tolist())
                elif isinstance(value, Tensor):
                    yield f"{name}.{key}", value


def _bytes(tensor: Tensor) -> Any:
    whole = tensor.detach().cpu().contiguous().reshape(-1)
    try:
        return whole.view(torch.uint8).numpy().data
    except RuntimeError:  # sparse, quantised and other layouts, which have no plain bytes
        return repr(tensor).encode()


@contextlib.contextmanager
def reading() -> Iterator[list[Path]]:
    """Note which of the user's files are opened inside, as far as Python opens them."""
    seen: dict[Path, None] = {}
    before = builtins.open, io.open, _io.open_code

    def note(file: Any) -> None:
        with contextlib.suppress(OSError, TypeError, ValueError):
            path = Path(file).resolve()
            if path.parent.name == "__pycache__":  # code is taken from there where it is current
                path = Path(importlib.util.source_from_cache(str(path)))
            if path.is_file() and own(path) and not path.is_relative_to("/proc"):
                seen[path] = None

    def noting(file: Any, *args: Any, **kwargs: Any) -> Any:
        opened = before[0](file, *args, **kwargs)
        mode = str(args[0] if args else kwargs.get("mode", "r"))
        if not isinstance(file, int) and "r" in mode:
            note(file)
        return opened

    def noting_code(path: str) -> Any:
        opened = before[2](path)
        note(path)
        return opened

    found: list[Path] = []
    builtins.open = io.open = noting
    _io.open_code = noting_code  # how Python reads modules, those too that no sys.modules knows
    try:
        yield found
    finally:
        builtins.open, io.open, _io.open_code = before
        found += seen

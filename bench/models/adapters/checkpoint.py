"""Weights from files that may hold anything: only tensors are read, code never runs."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".th")


class Loaded(NamedTuple):
    """What an adapter hands back: the network, in [0, 1] images to logits; its classes; the files that its
    weights or code are from; and the library with its version."""

    net: nn.Module
    classes: int
    files: tuple[Path, ...]
    source: str


def read(path: Path) -> Any:
    """What a checkpoint holds, tensors on the CPU: a mapping by name, or whatever else is made of plain values.

    ``.safetensors`` as it is (also the index of a sharded one, ``*.safetensors.index.json``),
    everything else by ``torch.load(weights_only=True)``. FileNotFoundError if there is no such
    file; ValueError for a pickle that would run code, a web page saved in a checkpoint's place
    (what a refused download leaves), and a damaged file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.name.endswith(".safetensors.index.json"):
        return _sharded(path)
    with path.open("rb") as file:
        head = file.read(512).lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(f"{path} is a web page and not a checkpoint: its download was refused. Fetch it by hand.")
    if path.suffix == ".safetensors":
        return _safetensors(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickle protocols; what matters raises
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = _reason(str(error))
        raise ValueError(
            f"{path} is refused: it holds more than tensors, and reading it could run code ({reason}). "
            "Load it once where you trust it, and save its state_dict as safetensors."
        ) from None
    except Exception as error:  # damaged bytes fail in any way
        raise ValueError(f"{path} is not a checkpoint that can be read: {_reason(str(error))}") from None


def state_of(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a checkpoint holds: itself, or under state_dict, model, net or model_state_dict.

    A common prefix ``module.`` (DataParallel) or ``_orig_mod.`` (torch.compile) is dropped.
    ValueError if there is none.
    """
    for name in ("state_dict", "model_state_dict", "model", "net"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{path} holds no state dict: a mapping from names to tensors.")
    state = dict(content)
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def fill(net: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict, every name and shape of it; ValueError names what does not fit."""
    try:
        net.load_state_dict(dict(state))
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the network: {_reason(str(error), 400)}") from None


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"{path} is not a sound safetensors file: {_reason(str(error))}") from None


def _sharded(index: Path) -> dict[str, Tensor]:
    try:
        files = sorted({str(file) for file in json.loads(index.read_text("utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ValueError(f"{index} is not an index of safetensors shards.") from None
    tensors: dict[str, Tensor] = {}
    for file in files:
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise ValueError(f"{index} names {file!r}, which is no safetensors file beside it.")
        tensors |= read(index.parent / file)
    return tensors


def _reason(text: str, most: int = 200) -> str:
    """The telling line of a long message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = next((line for line in lines if "Unsupported" in line or "GLOBAL" in line), lines[0] if lines else "")
    return (telling if most <= 200 else " ".join(lines))[:most]

"""Weights on disk: safetensors shards of at most 15 MB with a card."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bench import UserError

SHARD_BYTES = 15_000_000
CARD = "model.toml"
INDEX = "model.safetensors.index.json"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float8": torch.float8_e4m3fn}
# What a file may hold, with bytes an element; safetensors knows more, we read no more.
DTYPES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
HEADER_BYTES, TOTAL_BYTES = 4_000_000, 4_000_000_000
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")
DAMAGED = "the weights are damaged: fetch or make them again"


def save(
    directory: Path,
    state: Mapping[str, Tensor],
    storage: Literal["float32", "bfloat16"] = "float32",
    noise_storage: Literal["float32", "bfloat16", "float8"] = "float32",
    card: Mapping[str, Any] | None = None,
) -> None:
    """Write `state` into `directory` as safetensors shards of at most 15 MB, with the card `model.toml`.

    Floating tensors are stored in `storage`, except the noise's covariance factors (names that end in
    `.factor`), stored in `noise_storage`. "float8" is e4m3 with a scale for each column: `x.factor`
    is stored divided by `x.factor.scale` (1, rank), which brings each column's largest entry to
    448, the largest e4m3 number. The shards follow huggingface_hub's sharded format; a tensor too
    large for a shard is cut along its rows into `x.rows0`, `x.rows1`, ... The card's [files] holds
    each file's SHA-256.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu()
        if not tensor.is_floating_point():
            stored[name] = tensor
        elif not name.endswith(".factor"):
            stored[name] = tensor.to(PRECISIONS[storage])
        elif noise_storage == "float8":
            scale = tensor.abs().amax(0, keepdim=True).clamp_min(1e-30) / torch.finfo(torch.float8_e4m3fn).max
            stored[name], stored[f"{name}.scale"] = (tensor / scale).to(torch.float8_e4m3fn), scale
        else:
            stored[name] = tensor.to(PRECISIONS[noise_storage])
    hashes = write_shards(directory, stored)
    (directory / CARD).write_text(toml({**(card or {}), "files": hashes}), encoding="utf-8")


def load(directory: Path) -> dict[str, Tensor]:
    """The state that `save` stored in `directory`, floating tensors as float32.

    Sizes are checked against the files before anything is allocated, and only safetensors are
    read. UserError names the file that is missing, damaged or of another format.
    """
    tensors = read_shards(directory)
    for name in [name for name in tensors if name.endswith(".factor.scale")]:
        factor, scale = tensors.get(name.removesuffix(".scale")), tensors.pop(name)
        if factor is None or scale.shape != (1, *factor.shape[1:]):
            raise UserError(str(directory), f"{name} does not fit its factor", DAMAGED)
        tensors[name.removesuffix(".scale")] = factor.float() * scale.float()
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def write_shards(directory: Path, tensors: Mapping[str, Tensor], limit: int = SHARD_BYTES) -> dict[str, str]:
    """Write tensors as safetensors files of at most `limit` bytes; returns each file's SHA-256 by name.

    Every file is on the disk (fsync) when this returns.
    """
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save as serialise

    room = limit - 100_000 if limit > 1_000_000 else limit // 2  # what the header needs
    pieces: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        rows = max(1, room // max(1, tensor[:1].nbytes)) if tensor.dim() else 1
        if tensor.nbytes <= room or len(tensor) <= 1:
            pieces[name] = tensor
        else:
            # A piece is a copy: pieces that share their storage would count as one tensor.
            pieces |= {f"{name}.rows{i}": part.clone() for i, part in enumerate(torch.split(tensor, rows))}
    split = split_torch_state_dict_into_shards(pieces, max_shard_size=room)
    hashes = {}
    for file, names in split.filename_to_tensors.items():
        content = serialise({name: pieces[name] for name in names}, {"format": "pt"})
        hashes[file] = durable(directory / file, content)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        hashes[INDEX] = durable(directory / INDEX, json.dumps(index, indent=1, sort_keys=True).encode())
    return hashes


def read_shards(directory: Path) -> dict[str, Tensor]:
    """The tensors that `write_shards` wrote, in their stored precision; UserError as for `load`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    expected: set[str] | None = None
    if (directory / INDEX).is_file():
        try:
            index = json.loads((directory / INDEX).read_text(encoding="utf-8"))["weight_map"]
            expected, files = set(index), sorted({str(file) for file in index.values()})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(str(directory / INDEX), "is not an index of shards", DAMAGED) from None
        if any(Path(file).name != file or not file.endswith(".safetensors") for file in files):
            raise UserError(str(directory / INDEX), "names something other than a safetensors file beside it", DAMAGED)
    else:
        files = ["model.safetensors"]
    tensors: dict[str, Tensor] = {}
    total = 0
    for file in files:
        path = directory / file
        if not path.is_file():
            others = sorted(item.name for item in directory.glob("*") if item.suffix in PICKLES)
            if others:
                raise UserError(str(directory / others[0]), "only safetensors are read", "convert it first")
            raise UserError(str(path), "there is no such file", DAMAGED)
        total += path.stat().st_size
        if total > TOTAL_BYTES:
            raise UserError(str(path), f"more than {TOTAL_BYTES // 10**9} GB of weights", DAMAGED)
        check_header(path)
        try:
            tensors |= load_file(path)
        except (SafetensorError, ValueError, OSError, KeyError) as error:
            raise UserError(str(path), f"cannot be read: {error}", DAMAGED) from None
    if expected is not None and expected != tensors.keys():
        raise UserError(
            str(directory / INDEX), f"names {sorted(expected ^ tensors.keys())[0]}, the shards differ", DAMAGED
        )
    return _joined(tensors, directory)


def _joined(tensors: dict[str, Tensor], directory: Path) -> dict[str, Tensor]:
    whole = {name: tensor for name, tensor in tensors.items() if not re.search(r"\.rows\d+$", name)}
    cut: dict[str, dict[int, Tensor]] = {}
    for name in tensors.keys() - whole.keys():
        stem, number = name.rsplit(".rows", 1)
        cut.setdefault(stem, {})[int(number)] = tensors[name]
    for stem, parts in cut.items():
        try:
            # Not torch.cat: it has no kernel for 8-bit floats on every device.
            raw = torch.cat([parts[i].view(torch.uint8) for i in range(len(parts))])
        except (KeyError, RuntimeError):
            what = f"{stem} lacks a piece, or has pieces that do not fit"
            raise UserError(str(directory), what, DAMAGED) from None
        whole[stem] = raw.view(parts[0].dtype)
    return whole


def check_header(path: Path) -> None:
    """UserError unless `path` begins with a safetensors header that describes exactly this file's bytes."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(HEADER_BYTES, size - 8):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(file.read(length))
        used = 0
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, stop = entry["data_offsets"]
            shape = [int(extent) for extent in entry["shape"]]
            if min(shape, default=0) < 0 or stop - start != math.prod(shape) * DTYPES[entry["dtype"]]:
                raise ValueError(f"the size of {name} does not fit its shape")
            used += stop - start
        if used != size - 8 - length:
            raise ValueError(f"{used} bytes of tensors in {size - 8 - length} bytes of data")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"is not a sound safetensors file: {error}"
        raise UserError(str(path), what, DAMAGED) from None


def durable(path: Path, content: bytes) -> str:
    """Write a file and wait for the disk; returns the content's SHA-256."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()


def toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """A nested mapping of strings, numbers, booleans, lists and mappings as TOML; None is left out."""

    def key(name: str) -> str:
        return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)

    def value(item: Any) -> str:
        match item:
            case Mapping():
                return "{" + ", ".join(f"{key(k)} = {value(v)}" for k, v in item.items() if v is not None) + "}"
            case list() | tuple():
                return "[" + ", ".join(value(entry) for entry in item) + "]"
            case float() if not math.isfinite(item):
                return str(item)
            case bool() | int() | float():
                return json.dumps(item)
            case _:
                # JSON's escapes are TOML's, except that TOML wants DEL escaped and no surrogate pairs.
                return json.dumps(str(item), ensure_ascii=False).replace("\x7f", "\\u007f")

    plain = {k: v for k, v in table.items() if v is not None and not isinstance(v, Mapping)}
    lines = [f"{key(k)} = {value(v)}" for k, v in plain.items()]
    text = "\n".join(lines) + "\n" if lines else ""
    for name, entry in table.items():
        if isinstance(entry, Mapping):
            path = f"{prefix}{key(name)}"
            text += f"\n[{path}]\n" + toml(entry, f"{path}.")
    return text

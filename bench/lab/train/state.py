"""Where a training stands, on disk: two whole states at most, either of which can be gone on from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from bench import UserError
from bench.lab.weights.files import durable, read_shards, write_shards

FACTS = "state.json"


class State(NamedTuple):
    """Tensors by name, on the CPU, and what else it takes to go on; `facts["step"]` is the number of steps done."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def write(directory: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Save a state, whole or not at all, in files of at most 15 MB; the one before it stays, older ones go.

    The name appears by one rename, after every file is on the disk.
    """
    directory.mkdir(parents=True, exist_ok=True)
    final = directory / f"step-{facts['step']:09d}"
    fresh = directory / f".fresh-{os.getpid()}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    body = {"facts": dict(facts), "files": write_shards(fresh, tensors)}
    durable(fresh / FACTS, json.dumps({**body, "sha256": _digest(body)}).encode())
    _settle(fresh)
    if final.exists():
        shutil.rmtree(final)
    fresh.rename(final)
    _settle(directory)
    for old in _states(directory)[:-2]:
        shutil.rmtree(old, ignore_errors=True)


def read(directory: Path, key: str, inputs: str, note: Callable[[str], None]) -> State | None:
    """The newest sound state of this recipe `key` and these `inputs`; None if there is none.

    `note` is told of each state that is damaged, or of another training, and passed over.
    """
    for leftover in directory.glob(".fresh-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    passed = False
    for path in reversed(_states(directory)):
        try:
            state = _read(path)
        except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            note(f"the saved state {path.name} is damaged ({error}): going back to the one before it")
            passed = True
            continue
        if (state.facts.get("key"), state.facts.get("inputs")) != (key, inputs):
            note(f"the saved state {path.name} is of another training: not used")
            continue
        return state
    if passed:
        note("no saved state is sound: training starts again")
    return None


def _read(path: Path) -> State:
    body = json.loads((path / FACTS).read_text(encoding="utf-8"))
    if body.pop("sha256") != _digest(body):
        raise ValueError(f"{FACTS} is not what was written")
    for name, digest in body["files"].items():
        if hashlib.sha256((path / name).read_bytes()).hexdigest() != digest:
            raise ValueError(f"{name} is not what was written")
    return State(read_shards(path), body["facts"])


def _states(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("step-*") if path.is_dir())


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _settle(directory: Path) -> None:
    """Wait until a directory's own entries are on the disk."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""What a call's plain arguments may be: each as the harness has it, or a user's error that names it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from bench import UserError, nearest
from bench.recipes.base import Arithmetic

PRECISIONS: dict[str, Arithmetic] = {"float32": "float32", "bfloat16": "bfloat16", "auto": "auto"}
LARGEST = 2**63 - 1


def whole(where: str, value: Any, fix: str = "", least: int = 1, most: int = LARGEST) -> int:
    """A whole number of Python's, NumPy's or torch's, from `least` to `most`; no bool and no float."""
    try:
        found = None if isinstance(value, bool | float) else operator.index(value)
    except (TypeError, ValueError):
        found = None
    if found is None or not least <= found <= most:
        above = "on" if most == LARGEST and (found is None or found < least) else f"to {most:,}"
        raise UserError(where, f"{value!r} is not a whole number from {least} {above}", fix or "give such a one")
    return found


def auto(where: str, value: Any, most: int = LARGEST) -> int | Literal["auto"]:
    """A whole number from 1 on, or "auto"."""
    if isinstance(value, str) and value == "auto":
        return "auto"
    return whole(where, value, f'give one, or {where}="auto"', most=most)


def seed_of(seed: Any) -> int:
    """A seed: a whole number from 0 to 2^63 - 1."""
    return whole("seed", seed, "the same seed makes the same numbers again", least=0)


def precision_of(precision: Any) -> Arithmetic:
    """One of the precisions that are known."""
    if not isinstance(precision, str) or precision not in PRECISIONS:
        fix = nearest(str(precision), PRECISIONS)
        raise UserError("precision", f"{precision!r} is none that is known here", fix)
    return PRECISIONS[precision]


def device_of(device: Any) -> str:
    """A device by its name, also a torch.device."""
    if type(device).__name__ == "device":
        return str(device)
    if not isinstance(device, str):
        raise UserError("device", f"{device!r} is no device", 'use "auto", "cpu", "cuda" or "cuda:1"')
    return device


def folder_of(where: str, folder: Any) -> Path | None:
    """A folder, or None."""
    if folder is None or isinstance(folder, Path):
        return folder
    if not isinstance(folder, str):
        raise UserError(where, f"{folder!r} is no folder", "give a path as text or a pathlib.Path")
    return Path(folder)


def redraw_of(redraw: Any) -> Callable[[Any], Any] | None:
    """A function of a generator, or None."""
    if redraw is not None and not callable(redraw):
        what = f"{redraw!r} is no function"
        raise UserError("redraw", what, "give a function of a torch.Generator that draws the model's noise anew")
    return redraw  # type: ignore[no-any-return]

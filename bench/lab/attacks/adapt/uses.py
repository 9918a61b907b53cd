"""Which kinds a model uses, how often, and where: one pass with everything on."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import torch
from torch import nn

from bench.lab.attacks.adapt.kinds import Kind
from bench.models import classifier
from bench.models.adapters import python, randomised, wrappers

_HERE = str(Path(__file__).parents[2])
_TORCH = str(Path(torch.__file__).parent)
_OURS = (_HERE, *(inspect.getfile(module) for module in (classifier, python, randomised, wrappers)))


class Uses:
    """Counts (kind, operation, place); a place is "net.py line 41", a layer's name, or empty where none is known."""

    def __init__(self, model: nn.Module | None = None) -> None:
        self.counts: Counter[tuple[Kind, str, str]] = Counter()
        self.places: list[str] = []
        self.inner: dict[int, str] = {}
        self.bridges: list[str] = []
        self._names = {id(module): name for name, module in model.named_modules()} if model is not None else {}

    def note(self, kind: Kind, operation: str) -> None:
        """One more use, by whoever called this far up the stack."""
        self.counts[kind, operation, self.place()] += 1

    @property
    def kinds(self) -> set[Kind]:
        """The kinds that were met at all."""
        return {kind for kind, _, _ in self.counts}

    def hidden_by(self, kind: Kind, most: int = 3) -> str:
        """"`round` in net.py line 41, `byte` in ...": the most frequent operations of a kind."""
        found = [(count, f"`{name}`" + (f" in {place}" if place else "")) for (k, name, place), count in
                 self.counts.items() if k == kind]  # fmt: skip
        texts = [text for _, text in sorted(found, key=lambda item: -item[0])]
        rest = f" and {len(texts) - most} more places" if len(texts) > most else ""
        return ", ".join(texts[:most]) + rest

    def place(self) -> str:
        """The user's file and line on the stack, else the name of the layer of torch's own that is running."""
        frame: FrameType | None = sys._getframe(1)
        layer = ""
        while frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(_HERE) and frame.f_code.co_name in ("realisation", "realise"):
                break
            if not file.startswith((_TORCH, "<", *_OURS)):
                return f"{Path(file).name} line {frame.f_lineno}"
            if not layer and file.startswith(_TORCH):
                layer = self._names.get(id(frame.f_locals.get("self")), "")
            frame = frame.f_back
        return f"layer {layer}" if layer else ""

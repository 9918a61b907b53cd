"""The ResNet-18 that comes with AutoAttack: trained on CIFAR-10 without any defence, no download needed."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from pathlib import Path

from bench.models.adapters.checkpoint import Loaded, fill, read, state_of


def load() -> Loaded:
    """Images (n, 3, 32, 32) in [0, 1], without normalisation, to 10 logits; in eval mode.

    ImportError if pyautoattack, or the examples in it, are not installed.
    """
    spec = importlib.util.find_spec("pyautoattack")
    folder = Path(spec.origin).parent / "examples" if spec is not None and spec.origin is not None else None
    if folder is None or not (folder / "model_test.pt").is_file():
        raise ImportError("AutoAttack's example model is not here. Install it with: pip install 'freshdraws[peers]'")
    net = importlib.import_module("pyautoattack.examples.resnet").ResNet18()
    file = folder / "model_test.pt"
    fill(net, state_of(read(file), file), file)
    return Loaded(net.eval(), 10, (file,), f"pyautoattack {importlib.metadata.version('pyautoattack')}")

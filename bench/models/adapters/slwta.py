"""The checkpoint of stochastic LWTA that its authors published, from a user's own copy.

The file is `model-cifar-wideResNet/ckpt.pt` of the public repository konpanousis/Adversarial-LWTA-AutoAttack: a
WRN-34-1. The repository names no licence, so it comes with nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from bench.models.adapters.checkpoint import Loaded, fill, read, state_of
from bench.models.defences.slwta import SLWTA, LWTAWideResNet

FILE = "model-cifar-wideResNet/ckpt.pt of the public repository konpanousis/Adversarial-LWTA-AutoAttack"


def load(file: Path | None) -> Loaded:
    """The randomised classifier: images (n, 3, h, w) in [0, 1], without normalisation, to logits; in eval mode.

    Depth, width and classes are read off the tensors. FileNotFoundError without the file; ValueError for one that
    holds more than tensors or does not fit.
    """
    if file is None or not file.is_file():
        where = "No file is named." if file is None else f"There is no file {file}."
        raise FileNotFoundError(f"{where} Put your copy of {FILE} there, and name it as file = ...")
    state = state_of(read(file), file)
    net = LWTAWideResNet(*_shape(state, file), spare=any(name.startswith("sub_block1.") for name in state))
    fill(net, state, file)
    classes = len(state["fc.bias"])
    return Loaded(SLWTA(net, classes).eval(), classes, (file,), "Adversarial-LWTA-AutoAttack's checkpoint")


def _shape(state: Mapping[str, Tensor], file: Path) -> tuple[int, int, int]:
    """Depth, width and classes."""
    blocks = sum(name.startswith("block1.layer.") and name.endswith(".conv1.weight") for name in state)
    wanted = ("bn1.weight", "fc.bias")
    if blocks == 0 or any(name not in state or state[name].dim() != 1 for name in wanted):
        raise ValueError(f"{file} is no checkpoint of a wide residual network with LWTA units.")
    return 6 * blocks + 4, max(1, len(state["bn1.weight"]) // 64), len(state["fc.bias"])

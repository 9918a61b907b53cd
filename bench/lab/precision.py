"""Which arithmetic `precision = "auto"` is, for one model on one device."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.lab.compute import Compute
from bench.lab.draws import Streams
from models.classifier import Classifier

IMAGES = 64
"""Images that both precisions answer before the faster one is trusted."""
MOST = 2
"""Of these, how many may be answered differently: near ties that any change of arithmetic tips."""
WORTHWHILE = 32 * 32 * 32
"""Numbers that a network's widest layer has for one image, below which a CPU gains nothing by bfloat16."""


def supported(device: torch.device) -> bool:
    """Whether the device has arithmetic for bfloat16; emulated it is far slower than float32."""
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def gains(device: torch.device, widest: int) -> bool:
    """Whether bfloat16 is faster here for a network whose `widest` layer has so many numbers an image.

    It looks at no clock, so that every worker and every later run decides alike.
    """
    return supported(device) and (device.type != "cpu" or widest >= WORTHWHILE)


def answers_alike(model: Classifier, images: Tensor, float32: Compute, bfloat16: Compute) -> bool:
    """Whether `model` predicts the same classes for images (n, 3, h, w) in both precisions, but for MOST in IMAGES.

    One draw of a stochastic model, the same for both, from a stream that neither attacks nor judges.
    """
    generator = Streams(0, 0, images.device).generator("train") if model.stochastic else None
    with torch.no_grad():
        realisation = model.realise(images.shape, generator)
    one, other = (compute.logits(realisation, images).argmax(1) for compute in (float32, bfloat16))
    return int((one != other).sum()) * IMAGES <= MOST * len(images)

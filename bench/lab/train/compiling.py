"""Whether compiling a training is worth what it costs."""

from __future__ import annotations

import importlib.util
import shutil

import torch
from torch import nn

COST = 90.0
"""Seconds that compiling both directions, in training and under attack, takes."""

# Images a second of a WRN-28-4 with colored noise on an H100, eager and compiled, in bfloat16 at batch 1024.
GFLOP = 1.69
GRADIENTS = (35_800, 83_500)
STEPS = (33_000, 37_700)


def repays(gradients: float, trained: float, gflop: float, device: str, compiler: bool) -> bool:
    """Whether compiling saves at least twice what it costs.

    `gradients` images to perturb (times attack steps) and `trained` images to learn from are ahead, with a
    network of `gflop` billion operations an image forward. It depends on the work alone, not on
    a clock, so that a resumed training decides as it did. On a CPU it never does: measured on 2
    cores, a compiled WRN-10-1 in channels_last is no faster in float32 and slower in bfloat16.
    """
    if device != "cuda" or not compiler:
        return False

    def saved(images: float, speeds: tuple[int, int]) -> float:
        return images * gflop / GFLOP * (1 / speeds[0] - 1 / speeds[1])

    return saved(gradients, GRADIENTS) + saved(trained, STEPS) >= 2 * COST


def compiler() -> bool:
    """Whether what torch.compile needs is there: a C compiler, and Triton for a GPU."""
    found = any(shutil.which(name) for name in ("cc", "gcc", "clang"))
    return found and (not torch.cuda.is_available() or importlib.util.find_spec("triton") is not None)


def gigaflops(net: nn.Module, side: int = 32) -> float:
    """Billions of floating-point operations of one image's forward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    device = next(net.parameters()).device
    with torch.no_grad(), counter:
        net(torch.zeros(1, 3, side, side, device=device))
    return counter.get_total_flops() / 1e9

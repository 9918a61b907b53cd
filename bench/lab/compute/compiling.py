"""Compiling a network: whether it is worth what it costs, and for the one batch size that it is done for."""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.store.machine import instructions

Forward = Callable[[Tensor], Tensor]


class Gain(NamedTuple):
    """What compiling gives: images a second, eager and compiled, of forward passes, gradients to the input and training
    steps of a network of `gflop` billion operations; `cost` in seconds, of both directions in training and attack."""

    gflop: float
    forwards: tuple[int, int]
    gradients: tuple[int, int]
    steps: tuple[int, int]
    cost: float


GPU = Gain(1.69, (94_700, 164_600), (35_800, 83_500), (33_000, 37_700), 90.0)
"""A WRN-28-4 with colored noise on an H100, in bfloat16 at batch 1024."""
AMX = Gain(0.43, (1, 1), (620, 770), (422, 565), 120.0)
"""A WRN-28-2 with colored noise on two cores with matrix units (AMX), in bfloat16 at batch 128: compiling leaves
convolutions as they are, but batch norm, ReLU and noise are over half of a step there. Without such units it gives
nothing: in float32 on two cores with AVX2 an adversarial step took 4.04 s compiled and 4.09 s eager."""
NARROWEST = 0.4
"""Billions of operations of the smallest network known to gain on a CPU: a WRN-10-1 does not."""


def gain(device: str, precision: str, gflop: float) -> Gain | None:
    """What compiling a network gives on this device; None where it gives nothing, or nobody knows."""
    if device == "cuda":
        return GPU
    amx = device == "cpu" and precision == "bfloat16" and "amx_bf16" in instructions()
    return AMX if amx and gflop >= NARROWEST else None


def repays(gradients: float, trained: float, gflop: float, found: Gain | None, forwards: float = 0.0) -> bool:
    """Whether compiling saves at least twice what it costs.

    `gradients` images to perturb (times attack steps), `trained` images to learn from and `forwards` to
    predict (times draws) are ahead, with a network of `gflop` billion operations an image forward. It
    depends on the work and the processor's kind alone, not on a clock, so that a resumed training decides as it did.
    """
    if found is None:
        return False

    def saved(images: float, speeds: tuple[int, int]) -> float:
        return images * gflop / found.gflop * (1 / speeds[0] - 1 / speeds[1])

    ahead = saved(gradients, found.gradients) + saved(trained, found.steps) + saved(forwards, found.forwards)
    return ahead >= 2 * found.cost


def compile_for(
    net: nn.Module, size: int, backend: str = "inductor", *, backward: bool = True, autocast: bool | None = None
) -> Callable[[], None]:
    """Compile the forward pass of `net` for batches of `size` images; others run as they did. Returns what undoes it.

    One shape is one graph, so that a smaller last shard or a batch that shrinks compiles nothing anew. Nor does a pass
    of another kind: with a gradient where `backward` is false, or in another precision than `autocast` says (None:
    whatever comes first).
    """
    import torch._dynamo  # a second to import, and few runs compile

    # By default shared by all networks of a class, whose ninth shape or mode would run uncompiled without a word.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    plain: Forward = net.forward
    fast: Forward = torch.compile(plain, dynamic=False, backend=backend)

    def forward(images: Tensor) -> Tensor:
        same = autocast is None or torch.is_autocast_enabled(images.device.type) == autocast
        meant = len(images) == size and same and (backward or not torch.is_grad_enabled())
        return fast(images) if meant else plain(images)

    def undo() -> None:
        net.forward = plain

    forward.compiled_from = plain  # type: ignore[attr-defined]  # so that a copy of the network is known not to be
    net.forward = forward
    return undo


def compiler(device: str) -> bool:
    """Whether what torch.compile needs is there: Python's headers, and Triton with a C compiler for a GPU ("cuda"),
    or a C++ compiler for a CPU."""
    headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
    if device == "cuda":
        found = any(map(shutil.which, ("cc", "gcc", "clang"))) and importlib.util.find_spec("triton") is not None
    else:
        found = any(map(shutil.which, ("g++", "clang++", "c++")))
    return headers and found


def gigaflops(net: nn.Module, side: int = 32) -> float:
    """Billions of floating-point operations of one image's forward pass, of as many channels as `net` takes."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    device = next(net.parameters()).device
    with torch.no_grad(), counter:
        net(torch.zeros(1, _channels(net), side, side, device=device))
    return counter.get_total_flops() / 1e9


def _channels(net: nn.Module) -> int:
    first = next((layer for layer in net.modules() if isinstance(layer, nn.Conv2d)), None)
    return 3 if first is None else first.in_channels

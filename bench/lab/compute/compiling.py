"""Compiling a network: whether it is worth what it costs, and for the one batch size that it is done for."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable

import torch
from torch import Tensor, nn

Forward = Callable[[Tensor], Tensor]
COST = 90.0
"""Seconds that compiling both directions, in training and under attack, takes."""

# Images a second of a WRN-28-4 with colored noise on an H100, eager and compiled, in bfloat16 at batch 1024.
GFLOP = 1.69
FORWARDS = (94_700, 164_600)
GRADIENTS = (35_800, 83_500)
STEPS = (33_000, 37_700)


def repays(gradients: float, trained: float, gflop: float, device: str, compiler: bool, forwards: float = 0.0) -> bool:
    """Whether compiling saves at least twice what it costs.

    `gradients` images to perturb (times attack steps), `trained` images to learn from and `forwards` to
    predict (times draws) are ahead, with a network of `gflop` billion operations an image forward. It
    depends on the work alone, not on a clock, so that a resumed training decides as it did. On a CPU it
    never does: measured on 2 cores, a compiled WRN-10-1 in channels_last is no faster in float32 and slower
    in bfloat16.
    """
    if device != "cuda" or not compiler:
        return False

    def saved(images: float, speeds: tuple[int, int]) -> float:
        return images * gflop / GFLOP * (1 / speeds[0] - 1 / speeds[1])

    return saved(gradients, GRADIENTS) + saved(trained, STEPS) + saved(forwards, FORWARDS) >= 2 * COST


def compile_for(net: nn.Module, size: int, backend: str = "inductor") -> Callable[[], None]:
    """Compile the forward pass of `net` for batches of `size` images; others run as they did. Returns what undoes it.

    One shape is one graph, so that a smaller last shard or a batch that shrinks compiles nothing anew.
    """
    import torch._dynamo  # a second to import, and few runs compile

    # By default shared by all networks of a class, whose ninth shape or mode would run uncompiled without a word.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    plain: Forward = net.forward
    fast: Forward = torch.compile(plain, dynamic=False, backend=backend)

    def forward(images: Tensor) -> Tensor:
        return fast(images) if len(images) == size else plain(images)

    def undo() -> None:
        net.forward = plain

    forward.compiled_from = plain  # type: ignore[attr-defined]  # so that a copy of the network is known not to be
    net.forward = forward
    return undo


def compiler() -> bool:
    """Whether what torch.compile needs is there: a C compiler, and Triton for a GPU."""
    found = any(shutil.which(name) for name in ("cc", "gcc", "clang"))
    return found and (not torch.cuda.is_available() or importlib.util.find_spec("triton") is not None)


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

"""The device that work is done on, and PyTorch's switches that decide what a GPU computes: one place for all steps."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator

import torch

from bench import UserError
from bench.store.machine import gpus

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Read when CUDA starts; without it cuBLAS may sum in another order each time."""


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name` ("auto": a GPU if there is one); UserError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UserError("--device", f"no device is called {name!r}", "use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available() and gpus():
        raise UserError("--device", unusable(), "install a PyTorch built for this driver, or say --device cpu")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UserError("--device", f"this machine has no {name}", "use --device cpu or auto")
    return device


def unusable() -> str:
    """What is wrong where the driver reports a GPU and torch has none."""
    count, built = gpus(), torch.version.cuda
    found = f"{count} GPU{'s' * (count > 1)}"
    whose = f"built for CUDA {built}, which may be newer than the driver" if built else "built for CPUs alone"
    return f"the driver reports {found}, which this PyTorch {torch.__version__} ({whose}) cannot use"


def passed_over(name: str, device: torch.device) -> str | None:
    """What to tell a user whose "auto" came to a CPU although there is a GPU; None where all is well."""
    return f"{unusable()}: going on on the CPU" if name == "auto" and device.type == "cpu" and gpus() else None


def arithmetic_of(precision: str, device: torch.device, exact: bool) -> str:
    """What a record calls a precision: float32 on a GPU is "tf32", whose convolutions round each factor to 10 bits of
    mantissa (PyTorch's own default), unless work is `exact`."""
    return "tf32" if precision == "float32" and device.type == "cuda" and not exact else precision


def switch(device: torch.device, exact: bool) -> None:
    """Set PyTorch's switches for a worker's life. Under `exact` a GPU computes in IEEE float32, with kernels that give
    the same bits each time; where one has no such kernel PyTorch warns."""
    with _unwarned():
        torch.backends.cudnn.allow_tf32 = not exact
    if exact and device.type == "cuda":
        os.environ.setdefault(WORKSPACE, ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True, warn_only=True)


@contextlib.contextmanager
def switched(exact: bool) -> Iterator[None]:
    """The same for a training, put back afterwards: cuDNN may try which of its kernels is fastest, unless `exact`,
    under which an operation that gives other bits each time is an error."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=not exact, deterministic=exact, allow_tf32=not exact)
    with _unwarned():
        flags.__enter__()
    try:
        if exact:
            torch.use_deterministic_algorithms(True)
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        with _unwarned():
            flags.__exit__(None, None, None)


def _unwarned() -> warnings.catch_warnings[None]:
    """torch 2.9 warns of the switch for TF32, whose successor cannot be mixed with what other libraries call."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)

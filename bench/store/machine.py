"""This machine: its processor, whether it has a GPU (asked of the driver alone, so that no plan waits for torch), which
of them a run uses, and how its threads wait for each other."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import sys
from pathlib import Path

SPINS = 2000
"""How often a thread looks whether the others are there before it lets somebody else have its core: about 50 to 100
microseconds, as long as most waits take. GNU's own 300,000 hold the core for milliseconds, which on a shared machine
are taken from the very thread that is waited for."""


def gpus() -> int:
    """CUDA devices that the driver reports and CUDA_VISIBLE_DEVICES lets through; 0 without a driver."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "-") in ("", "-1"):
        return 0
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int()
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
            return 0
        return count.value
    except (OSError, AttributeError):
        return 0


def kind(device: str) -> str:
    """What a run with `--device DEVICE` computes on, "cpu" or "cuda": the one place that answers it."""
    return "cuda" if device.startswith("cuda") or (device == "auto" and gpus()) else "cpu"


def processor() -> str:
    """The CPU's name as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def here(device: str = "auto") -> str:
    """What manifests made on this machine name as their device: the name of the GPU in use, or the processor's."""
    if kind(device) == "cpu" or not gpus():
        return processor()
    driver, name, handle = ctypes.CDLL("libcuda.so.1"), ctypes.create_string_buffer(256), ctypes.c_int()
    number = int(device.partition(":")[2] or 0)
    if driver.cuDeviceGet(ctypes.byref(handle), number) or driver.cuDeviceGetName(name, 256, handle):
        return processor()
    return name.value.decode(errors="replace")


def share_cores() -> None:
    """Have torch's threads wait briefly (SPINS) rather than hold their cores; what a user has set stays.

    GNU's OpenMP reads its settings when torch is loaded: afterwards this does nothing. Processes started from this
    one inherit it.
    """
    if "torch" not in sys.modules and not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)


def driver() -> str | None:
    """The version of NVIDIA's driver; None without one."""
    with contextlib.suppress(OSError):
        found = re.search(r"Module\s+(\S+)", Path("/proc/driver/nvidia/version").read_text())
        return None if found is None else found[1]
    return None


def arithmetic(torch: str, threads: int, microbatch: int, exact: bool) -> str:
    """All that decides the last bits of what a processor computes, in words: equal words, equal bits."""
    switches = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
    chosen = [f"{name}={os.environ[name]}" for name in switches if name in os.environ]
    parts = f"{threads} threads, {microbatch} at a time" + (", exact" if exact else "")
    return ", ".join([f"torch {torch} with {' '.join(instructions()) or 'what it has'}", *chosen, parts])


def sizes(arithmetic: str) -> tuple[int, int, bool] | None:
    """Threads, images at a time, and whether exact, of what `arithmetic` returned; None of other words."""
    found = re.search(r"(\d+) threads, (\d+) at a time(, exact)?$", arithmetic)
    return None if found is None else (int(found[1]), int(found[2]), found[3] is not None)


def instructions() -> list[str]:
    """The processor's vector instructions: two that bear one name in a cloud may differ in them."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, flags = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return sorted(flag for flag in flags.split() if flag.startswith(("avx", "fma", "amx", "sve", "asimd")))
    return []

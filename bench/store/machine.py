"""This machine: its processor, whether it has a GPU (asked of the driver alone, so that no plan waits for torch), and
which of them a run uses."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from pathlib import Path


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
    """What manifests made on this machine name as their device: the first GPU's name, or the processor's."""
    if kind(device) == "cpu" or not gpus():
        return processor()
    driver, name, handle = ctypes.CDLL("libcuda.so.1"), ctypes.create_string_buffer(256), ctypes.c_int()
    if driver.cuDeviceGet(ctypes.byref(handle), 0) or driver.cuDeviceGetName(name, 256, handle):
        return processor()
    return name.value.decode(errors="replace")

"""Whether this machine has a GPU, asked of the driver alone so that no plan waits for torch."""

from __future__ import annotations

import ctypes
import os


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

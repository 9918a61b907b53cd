"""Memory of the device and of the host: when it was not enough, and how what was freed is used again."""

from __future__ import annotations

import ctypes
import os

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
WORDS = (
    "out of memory",
    "can't allocate memory",
    "DefaultCPUAllocator",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "unable to find an engine to execute this computation",  # cuDNN, where no algorithm's workspace fits
)


def out_of_memory(error: BaseException) -> bool:
    """Whether a RuntimeError says that the device's or the host's memory was not enough, in whoever's words."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    text = str(error)
    return any(word in text for word in WORDS)


def give_back(device: torch.device) -> None:
    """Return what the allocator keeps to the device. To be called once the error is handled: until then its traceback
    holds on to the tensors of the pass that failed."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def keep_memory(device: torch.device) -> None:
    """Have this process keep the memory of freed layers for the next ones, on a CPU under glibc; elsewhere nothing.

    glibc gives a large block back to the system as soon as it is free, and every pass asks for the same pages
    anew. Kept are at most a gigabyte, and no block above 32 MB, glibc's own bound.
    """
    if device.type == "cpu" and "CS_GNU_LIBC_VERSION" in os.confstr_names:
        settings = ctypes.CDLL(None)
        settings.mallopt(TRIM_THRESHOLD, 2**30)
        settings.mallopt(MMAP_THRESHOLD, 32 * 2**20)

"""What a manifest says of where and with what something was made."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from bench.store.machine import driver

LIBRARIES = ("torch", "torchvision", "numpy", "torchattacks", "pyautoattack", "foolbox", "robustbench", "timm")


def made_with(device: torch.device, name: str, arithmetic: str, exact: bool) -> dict[str, Any]:
    """The device called `name`, its arithmetic, threads and versions; those of cuDNN and driver with a GPU."""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    if device.type == "cuda":
        versions |= {"cuda": torch.version.cuda or "", "driver": driver() or "unknown"}
        versions |= {"cudnn": str(torch.backends.cudnn.version())}  # type: ignore[no-untyped-call]
    return {
        "device": name,
        "device_type": device.type,
        "tf32": device.type == "cuda" and not exact,
        "exact": exact,
        "threads": torch.get_num_threads(),
        "arithmetic": arithmetic,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }

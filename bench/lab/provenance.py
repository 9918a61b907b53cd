"""What a manifest says of where and with what something was made."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

LIBRARIES = ("torch", "torchvision", "numpy", "torchattacks", "pyautoattack", "foolbox", "robustbench", "timm")


def made_with(device: torch.device, name: str, arithmetic: str) -> dict[str, Any]:
    """The device called `name`, its arithmetic, threads and versions."""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return {
        "device": name,
        "device_type": device.type,
        "tf32": device.type == "cuda" and torch.backends.cudnn.allow_tf32,
        "threads": torch.get_num_threads(),
        "arithmetic": arithmetic,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }

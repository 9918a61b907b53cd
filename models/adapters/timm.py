"""Models of timm by name, with their own or declared preprocessing."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from models.adapters.checkpoint import Loaded, fill, offline, read, state_of
from models.adapters.wrappers import Prepared


def load(
    name: str,
    classes: int,
    *,
    file: Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: int | None = None,
    download: bool = True,
    arguments: dict[str, Any] | None = None,
) -> Loaded:
    """`timm.create_model(name)` in eval mode; weights from `file`, or timm's pretrained ones.

    mean and std default to the model's pretrained configuration. The images are resized only if
    `resize` says so. timm itself reads pretrained weights from its cache (Hugging Face's), or
    downloads them, as safetensors or weights_only. ValueError for an unknown name, other numbers
    of classes or weights that do not fit; FileNotFoundError if there are no weights to be had.
    """
    import timm

    if not timm.is_model(name.removeprefix("hf-hub:").split(".")[0]) and not name.startswith("hf-hub:"):
        close = timm.list_models(f"*{name.split('_')[0]}*")[:5]
        raise ValueError(f"timm has no model {name!r}; close: {', '.join(close) or 'none'}.")
    given = dict(arguments or {})
    try:
        with offline(not download):
            net = timm.create_model(
                name, pretrained=file is None, **({"num_classes": classes} if file else {}), **given
            )
    except (OSError, RuntimeError, ValueError) as error:
        words = " ".join(str(error).split())[:200]
        fix = "Declare a file with its state dict, or run once with the network"
        raise FileNotFoundError(f"timm's pretrained {name} cannot be had: {words}. {fix}.") from None
    except TypeError as error:
        raise ValueError(f"timm cannot make {name} with {given}: {error}") from None
    if file is not None:
        fill(net, state_of(read(file), file), file)
    found = int(net.num_classes)
    if found != classes:
        raise ValueError(f"timm's {name} has {found} classes, and {classes} are declared: set classes = {found}.")
    cfg = getattr(net, "pretrained_cfg", {}) or {}
    wrapped: nn.Module = Prepared(net, mean or cfg.get("mean"), std or cfg.get("std"), resize)
    return Loaded(wrapped.eval(), classes, (file,) if file else (), f"timm {importlib.metadata.version('timm')}")

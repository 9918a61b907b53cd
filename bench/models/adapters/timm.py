"""Models of timm by name, with their own or declared preprocessing."""

from __future__ import annotations

import difflib
import importlib.metadata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from bench.models.adapters.checkpoint import Loaded, fill, read, state_of
from bench.models.adapters.huggingface import files_of, repository
from bench.models.adapters.wrappers import Prepared


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

    Pretrained weights are the safetensors of the model's repository on the Hugging Face Hub, from
    the cache or downloaded; they are fetched here and not by timm, which accepts pickles and which,
    at the version that robustbench asks for, does not know recent hub clients. mean and std default
    to the pretrained configuration's. The images are resized only if `resize` says so. ValueError
    for an unknown name, other numbers of classes or weights that do not fit; FileNotFoundError if
    there are no weights to be had.
    """
    timm = library()
    if not timm.is_model(name.split(".")[0]):
        close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        raise ValueError(f"timm has no model {name!r}; close: {', '.join(close) or 'none'}.")
    given = dict(arguments or {})
    files: tuple[Path, ...]
    if file is not None:
        weights, files, state = file, (file,), state_of(read(file), file)
        given = {"num_classes": classes, **given}
    else:
        cfg = timm.get_pretrained_cfg(name)
        hub = getattr(cfg, "hf_hub_id", None)
        if not hub:
            raise FileNotFoundError(f"timm has no pretrained {name} on the hub. Declare a file with its state dict.")
        tag = f".{cfg.tag}" if cfg.tag and "." not in name else ""
        found = repository(f"{hub}{name}{tag}" if hub.endswith("/") else hub, download=download)
        weights, files, state = found.weights, files_of(found), found.state()
    try:
        net: nn.Module = timm.create_model(name, pretrained=False, **given)
    except TypeError as error:
        raise ValueError(f"timm cannot make {name} with {given}: {error}") from None
    own = int(net.num_classes)  # type: ignore[arg-type]
    if own != classes:
        raise ValueError(f"timm's {name} has {own} classes, and {classes} are declared: set classes = {own}.")
    fill(net, state, weights)
    shown: dict[str, Any] = dict(getattr(net, "pretrained_cfg", None) or {})
    wrapped = Prepared(net, mean or shown.get("mean"), std or shown.get("std"), resize)
    return Loaded(wrapped.eval(), classes, files, f"timm {importlib.metadata.version('timm')}")


def library() -> Any:
    """The module timm, whose import warns of nothing that a user could mend; ImportError, with what installs it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import timm
        except ImportError as error:
            mend = "Install it with: pip install 'freshdraws[timm]'"
            raise ImportError(f"timm cannot be imported ({error}). {mend}") from None
    return timm

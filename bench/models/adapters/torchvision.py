"""Models of torchvision by name; resize and normalisation are declared, or its weights' own."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.models.adapters.checkpoint import Loaded, fill, read, state_of
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
    """`torchvision.models.get_model(name)` in eval mode; weights from `file`, or torchvision's own.

    Which of its own, `arguments["weights"]` says (default "DEFAULT"); they are in torch.hub's cache
    or are downloaded there, checked by the hash in their name and read weights_only. Without a file
    mean and std default to those weights'. The images are resized only if `resize` says so.
    ValueError for an unknown name, other numbers of classes or weights that do not fit;
    FileNotFoundError if there are no weights to be had.
    """
    import torchvision

    given = dict(arguments or {})
    which = given.pop("weights", "DEFAULT")
    if name not in torchvision.models.list_models():
        close = torchvision.models.list_models(include=f"*{name[:6]}*")[:5]
        raise ValueError(f"torchvision has no model {name!r}; close: {', '.join(close) or 'none'}.")
    source = f"torchvision {importlib.metadata.version('torchvision')}"
    if file is not None:
        net = _make(name, {"weights": None, "num_classes": classes, **given})
        fill(net, state_of(read(file), file), file)
        return Loaded(Prepared(net, mean, std, resize).eval(), classes, (file,), source)
    try:
        weights = torchvision.models.get_model_weights(name)[which]
    except KeyError:
        known = ", ".join(entry.name for entry in torchvision.models.get_model_weights(name))
        raise ValueError(f"torchvision's {name} has no weights {which!r}; known: {known}.") from None
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not path.is_file() and not download:
        raise FileNotFoundError(f"torchvision's {name} is not here. Put {weights.url} at {path}.")
    found = len(weights.meta["categories"])
    if found != classes:
        raise ValueError(
            f"torchvision's {name} has {found} classes, and {classes} are declared: set classes = {found}."
        )
    try:
        state = torch.hub.load_state_dict_from_url(
            weights.url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except OSError as error:
        put = f"Put {weights.url} at {path}, or declare a file"
        raise FileNotFoundError(f"torchvision's {name} cannot be downloaded ({error}). {put}.") from None
    net = _make(name, {"weights": None, "num_classes": classes, **given})
    fill(net, state, path)
    shown = weights.transforms()
    return Loaded(Prepared(net, mean or shown.mean, std or shown.std, resize).eval(), classes, (path,), source)


def _make(name: str, given: dict[str, Any]) -> torch.nn.Module:
    import torchvision

    try:
        net: torch.nn.Module = torchvision.models.get_model(name, **given)
    except TypeError as error:
        raise ValueError(f"torchvision cannot make {name}: {error}") from None
    return net

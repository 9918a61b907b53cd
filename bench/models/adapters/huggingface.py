"""Models of the Hugging Face Hub, from its cache when offline."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from bench.models.adapters.checkpoint import Loaded, fill, read, state_of
from bench.models.adapters.wrappers import Prepared

FILES = ("*.safetensors", "*.safetensors.index.json", "config.json")
WEIGHTS = ("model.safetensors.index.json", "model.safetensors")


class Repository(NamedTuple):
    """A repository's files at one revision: where they are, which file holds the weights, and its config.json."""

    folder: Path
    weights: Path
    config: dict[str, Any]

    def state(self) -> dict[str, Tensor]:
        """The state dict of the weights; ValueError if they are not sound."""
        return state_of(read(self.weights), self.weights)


def repository(name: str, *, revision: str | None = None, file: str | None = None, download: bool = True) -> Repository:
    """Repository `name` (owner/name) in the cache, downloaded there if need be and allowed: safetensors only.

    FileNotFoundError if it is neither in the cache nor to be had, or has no safetensors.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(name, revision=revision, allow_patterns=list(FILES), local_files_only=not download)
        )
    except Exception as error:  # the client's errors share no base class across its versions
        if "must" in str(error) and "repo" in str(error).lower():
            raise ValueError(f"{name!r} is no repository's name: write owner/name.") from None
        words = " ".join(str(error).split())[:160]
        mend = "Run once with the network, or fill the cache with: hf download"
        raise FileNotFoundError(
            f"{name} is not in Hugging Face's cache, nor to be had ({words}). {mend} {name}"
        ) from None
    candidates = [file] if file else [*WEIGHTS, *sorted(path.name for path in folder.glob("*.safetensors"))]
    weights = next((folder / item for item in candidates if (folder / item).is_file()), None)
    if weights is None:
        wanted = file or "safetensors"
        raise FileNotFoundError(f"{name} has no {wanted}; other formats are not read, because they may run code.")
    config = folder / "config.json"
    try:
        return Repository(folder, weights, json.loads(config.read_text("utf-8")) if config.is_file() else {})
    except ValueError:
        raise ValueError(f"{config} is not JSON.") from None


def load(
    name: str,
    classes: int,
    *,
    revision: str | None = None,
    file: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: int | None = None,
    download: bool = True,
) -> Loaded:
    """A repository in timm's format: config.json names the architecture. In eval mode.

    mean and std default to the configuration's. ValueError where the architecture is not timm's,
    or the weights do not fit; FileNotFoundError as `repository`.
    """
    from bench.models.adapters.timm import library

    timm = library()
    found = repository(name, revision=revision, file=file, download=download)
    architecture = found.config.get("architecture")
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        what = "names no architecture" if architecture is None else f"names {architecture!r}, which timm lacks"
        raise ValueError(f"{name}: config.json {what}. Declare its network, or load it with kind = python.")
    own = int(found.config.get("num_classes", classes))
    if own != classes:
        raise ValueError(f"{name} has {own} classes, and {classes} are declared: set classes = {own}.")
    cfg = found.config.get("pretrained_cfg") or {}
    given = found.config.get("model_args") or {}
    net: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=classes, **given)
    fill(net, found.state(), found.weights)
    wrapped = Prepared(net, mean or cfg.get("mean"), std or cfg.get("std"), resize)
    source = f"huggingface_hub {importlib.metadata.version('huggingface_hub')}, {found.folder.name}"
    return Loaded(wrapped.eval(), classes, files_of(found), source)


def files_of(found: Repository) -> tuple[Path, ...]:
    """The files that the weights are in."""
    if found.weights.name.endswith(".index.json"):
        return (found.weights, *sorted(found.folder.glob("*.safetensors")))
    return (found.weights,)

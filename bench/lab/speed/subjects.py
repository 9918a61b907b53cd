"""The models whose speed is measured."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from bench import UserError
from bench.lab.compute.passes import laid_out
from bench.lab.weights import build, files
from bench.models.classifier import Classifier, Plain
from bench.models.noise import ColoredNoise, Noisy
from bench.recipes import Distilled, Network, Noise, Trained, parse

Note = Callable[[str], None]


class Subjects(NamedTuple):
    """The models that work is done on: one network without noise, and with colored noise in its weights.

    `trained` says whether accuracies mean anything.
    """

    name: str
    plain: Classifier
    noisy: Classifier | None
    trained: bool


def subjects(model: str, root: Path | None, device: torch.device) -> Subjects:
    """The models called `model`, as `speed` explains it."""
    if model == "resnet18":
        from bench.models.adapters import autoattack_example

        loaded = autoattack_example.load()
        plain: Classifier = Plain(loaded.net, loaded.classes)
        return Subjects("ResNet-18 without defence (pyautoattack's example)", ready(plain, device), None, True)
    if match := re.fullmatch(r"wrn-(\d+)-(\d+)", model):
        try:
            network = Network(depth=int(match[1]), width=int(match[2]))
        except ValueError:
            raise UserError("--model", f"there is no {model}", "a depth is 6 n + 4, as in wrn-28-4") from None
        recipe: Trained | Distilled = Trained(network=network, noise=Noise())
        return of(f"WRN-{match[1]}-{match[2]}, untrained", build.build(recipe), False, device)
    folder = (root or Path()) / model
    if not (folder / files.CARD).is_file():
        fix = "write wrn-28-4, resnet18, or a folder with model.toml"
        raise UserError("--model", f"{model!r} is no model and no folder of weights", fix)
    try:
        found = parse(tomllib.loads((folder / files.CARD).read_text(encoding="utf-8")).get("recipe"))
        if not isinstance(found, Trained | Distilled):
            raise ValueError("not weights of ours")
    except ValueError as error:  # a broken TOML's too
        what = f"it does not say how these weights were made: {error}"
        raise UserError(str(folder / files.CARD), what, "fetch or make them anew") from None
    return of(folder.name, build.build(found, files.load(folder)), True, device)


def of(name: str, model: Classifier, trained: bool, device: torch.device) -> Subjects:
    """A network with and without colored noise, whichever of the two `model` is."""
    if isinstance(model, Noisy):
        plain = Plain(model.net, model.classes)
        return Subjects(name, ready(plain, device), ready(model, device), trained)
    if not isinstance(model, Plain):
        return Subjects(name, ready(model, device), None, trained)
    noise = ColoredNoise(model.net, generator=torch.Generator().manual_seed(0))
    return Subjects(name, ready(model, device), ready(Noisy(model.net, noise, model.classes), device), trained)


def ready(model: Classifier, device: torch.device) -> Classifier:
    model = model.to(device).eval().requires_grad_(False)
    laid_out(model)
    if isinstance(model, Noisy):
        model.settle()
    return model

"""Other models whose examples must not be stronger than a model's own: the network that ships, and those given."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from bench.lab.attacks import losses
from bench.lab.craft import craft
from bench.lab.examine.outputs import Case
from bench.models.classifier import Classifier, Plain
from bench.recipes import PGD

KNOWS = 0.6
"""The share of the images that a surrogate must get right to be one of the same task."""


def transfers(case: Case, declared: PGD, given: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Names and images (n, 3, h, w) within eps made without the model: those given, then the shipped network's."""
    yield from given.items()
    model = shipped(case)
    if model is not None:
        yield "AutoAttack's ResNet-18", through(case, model, declared)


def shipped(case: Case) -> Classifier | None:
    """The undefended ResNet-18 that comes with AutoAttack, if it knows these images (CIFAR-10)."""
    if case.model.classes != 10 or case.images.shape[1:] != (3, 32, 32):
        return None
    model = _loaded(case.images.device)
    return model if model is not None and knows(case, model) else None


def knows(case: Case, model: Classifier, images: int = 32) -> bool:
    """Whether a surrogate gets most of the images right, and is not the model itself."""
    few = case.few(images)
    said = few.compute.logits(model.realise(few.images.shape, None), few.images)
    return float((~losses.wrong(said, few.labels)).float().mean()) >= KNOWS


def through(case: Case, model: Classifier, declared: PGD, steps: int = 6) -> Tensor:
    """The same images (n, 3, h, w), attacked on another model: few, long steps with momentum, which transfer best."""
    attack = PGD(
        eps=declared.eps, norm=declared.norm, step=declared.eps / 3, steps=steps, momentum=1.0, random_start=False,
        loss="margin",
    )  # fmt: skip
    return craft(attack, model, case.images, case.labels, case.streams, case.compute).images


@functools.cache
def _loaded(device: torch.device) -> Classifier | None:
    from bench.models.adapters import autoattack_example

    try:
        net = autoattack_example.load().net
    except (ImportError, OSError):
        return None
    return Plain(net.to(device).requires_grad_(False), 10).eval()

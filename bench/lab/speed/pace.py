"""One timed pass, which replaces a guess of what work costs here."""

from __future__ import annotations

import time

import torch

from bench.lab.compute.passes import Compute
from bench.lab.streams import Streams
from bench.lab.weights.build import build
from bench.lab.worker import Lab
from bench.models.classifier import Classifier
from bench.recipes import Data, Distilled, Examples, Model, Trained

IMAGES = 8


def of_model(lab: Lab, model: Model, data: Data) -> float:
    """Seconds that a pass of one image of the data takes through a stranger's model. UserError as the work itself."""
    images, compute = lab.shard(Examples(data=data, shard=IMAGES), 0)[0], lab.compute()
    lab.suit(compute, "float32", model, data, judging=False)
    return _timed(lab.model(model), images, compute)


def of_network(lab: Lab, weights: Trained | Distilled) -> float:
    """Seconds that a pass of one image takes through a network of ours, its weights as they are before training."""
    images, compute = torch.full((IMAGES, 3, 32, 32), 0.5, device=lab.device), lab.compute()
    return _timed(build(weights).to(lab.device), images, compute)


def _timed(model: Classifier, images: torch.Tensor, compute: Compute) -> float:
    some = images[: min(len(images), compute.microbatch)]
    generator = Streams(0, 0, images.device).generator("train") if model.stochastic else None
    with torch.no_grad():
        realisation = model.realise(some.shape, generator)
    compute.logits(realisation, some[:1])
    begin = time.perf_counter()
    compute.logits(realisation, some).sum().item()
    return (time.perf_counter() - begin) / len(some)

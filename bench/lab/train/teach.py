"""What a student is taught: the teacher's probabilities on a batch, from the cache or from fresh draws."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.lab.compute.passes import Compute
from bench.lab.streams import Streams
from bench.models.classifier import Classifier
from bench.recipes import Rule


def teach(
    teacher: Classifier,
    images: Tensor,
    rule: Rule,
    draws: int,
    temperature: float,
    streams: Streams,
    *,
    compute: Compute,
) -> Tensor:
    """The teacher's probabilities (n, classes) float32 on images (n, 3, h, w), over `draws` of its draws.

    "vote": the share of the draws that each class won, which has no temperature. "soft": the mean of
    softmax(z / temperature). A deterministic teacher is asked once.
    """
    total: Tensor | None = None
    for draw in range(draws if teacher.stochastic else 1):
        with torch.no_grad():
            realisation = teacher.realise(images.shape, streams.generator("train", draw))
        logits = compute.logits(realisation, images)
        if rule == "vote":
            part = F.one_hot(logits.argmax(1), logits.shape[1]).float()
        else:
            part = (logits / temperature).softmax(1)
        total = part if total is None else total + part
    assert total is not None
    return total / (draws if teacher.stochastic else 1)

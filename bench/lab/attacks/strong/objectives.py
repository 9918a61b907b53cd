"""What the search ascends: margins that no scale of the logits, and no softmax at the end, can saturate."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.lab.attacks import losses

Objective = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Logits (n, classes), labels (n,) and a class to aim at (n,), or None for the nearest: one number an image."""

SHARPNESS = 4.0  # of the probability margin: logits are divided until the first is this much above the third


def as_logits(outputs: Tensor) -> Tensor:
    """Outputs (n, classes) as logits: their logarithm where they are probabilities, so that a softmax hides nothing.

    Log probabilities and logits differ by a constant an image. A probability of 0 is taken for the smallest float.
    """
    outputs = outputs.float()
    with torch.no_grad():
        chances = (outputs >= 0).all(1) & ((outputs.sum(1) - 1).abs() < 1e-3)
    if not bool(chances.all()):
        return outputs
    return outputs.clamp_min(torch.finfo(outputs.dtype).tiny).log()


def margin(logits: Tensor, labels: Tensor, aim: Tensor | None) -> Tensor:
    """z_t - z_y, t the class aimed at or the largest of the others (Carlini & Wagner 2017), (n,).

    Its slope's direction, which is all that a step follows, is that of the DLR loss with its denominator held
    (Croce & Hein 2020, eq. 6): unchanged by any scale of the logits.
    """
    if aim is None:
        return losses.margin(logits, labels)
    return (logits.gather(1, aim.unsqueeze(1)) - logits.gather(1, labels.unsqueeze(1))).squeeze(1)


def probability_margin(logits: Tensor, labels: Tensor, aim: Tensor | None) -> Tensor:
    """p_t - p_y of the softmax of logits brought to one scale, (n,): the margin between probabilities (PMA).

    All classes pull, the nearest ones most. The scale is the DLR loss's, the first logit less the third (the second
    of two), held constant: logits of any size give the same slope, and none saturates.
    """
    top = logits.detach().topk(min(3, logits.shape[1]), dim=1).values
    scale = SHARPNESS / (top[:, :1] - top[:, -1:]).clamp_min(torch.finfo(logits.dtype).tiny)
    return margin((logits * scale.clamp_max(1e30)).softmax(1), labels, aim)


def cross_entropy(logits: Tensor, labels: Tensor, aim: Tensor | None) -> Tensor:
    """-log softmax_y of the logits as they are, less that of a class aimed at, (n,): what plain PGD ascends. All
    classes pull, so that no few of them that never win can stand before the others."""
    own = losses.cross_entropy(logits, labels)
    return own if aim is None else own - losses.cross_entropy(logits, aim)

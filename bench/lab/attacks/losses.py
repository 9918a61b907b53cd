"""What attacks ascend: one number an image, higher where the classifier is closer to being wrong."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from bench.lab.compute.passes import Loss

Name = Literal["ce", "margin", "dlr"]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax_y of logits (n, classes) and labels (n,) int64: (n,), at least 0."""
    return functional.cross_entropy(logits, labels, reduction="none")


def margin(scores: Tensor, labels: Tensor) -> Tensor:
    """max_{c != y} z_c - z_y (Carlini & Wagner 2017), (n,): above 0 exactly where z is wrong.

    `scores` (n, classes) are logits or probabilities.
    """
    own = labels.unsqueeze(1)
    others = scores.scatter(1, own, -torch.inf).amax(1)
    return others - scores.gather(1, own).squeeze(1)


def margin_of_chances(logits: Tensor, labels: Tensor) -> Tensor:
    """The margin between the softmax probabilities of logits (n, classes): (n,), in [-1, 1]."""
    return margin(logits.softmax(1), labels)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio, untargeted (Croce & Hein 2020, arXiv 2003.01690, eq. 6), (n,).

    (max_{c != y} z_c - z_y) / (z_(1) - z_(3)), z_(i) the i-th largest: unchanged by shifts and
    positive scalings of the logits. ValueError for fewer than three classes.
    """
    if logits.shape[1] < 3:
        raise ValueError(f"the DLR loss divides by the gap to the third class, and there are {logits.shape[1]}")
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def named(name: Name) -> Loss:
    """The loss a recipe names."""
    match name:
        case "ce":
            return cross_entropy
        case "margin":
            return margin
        case "dlr":
            return dlr


def of_chances(name: Name, chances: Tensor, labels: Tensor) -> Tensor:
    """The loss (n,) of mean softmax probabilities (n, classes).

    "ce" is -log mean softmax_y (SmoothAdv, Salman et al. 2019, arXiv 1906.04584), "margin" the
    margin between probabilities, and "dlr" takes log probabilities for logits.
    """
    if name == "margin":
        return margin(chances, labels)
    return named(name)(chances.clamp_min(torch.finfo(chances.dtype).tiny).log(), labels)


def wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """Where the first of the largest logits is not the label's: (n,) bool."""
    return logits.argmax(1) != labels

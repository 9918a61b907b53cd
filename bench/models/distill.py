"""Distilling a classifier from a teacher's probabilities (Hinton et al. 2015, "Distilling the Knowledge")."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def distillation_loss(
    student_logits: Tensor, labels: Tensor, teacher_probs: Tensor, weight: float, temperature: float
) -> Tensor:
    """(1 - w) CE(z_s, y) + w T^2 CE(p_t, p_s), the mean over a batch of n images (scalar).

    `student_logits` z_s (n, classes); `labels` y (n,) int64; `teacher_probs` p_t (n, classes), rows
    that sum to 1, taken as they are and without gradient; p_s = softmax(z_s / T). T^2 keeps the size
    of the soft gradient independent of the temperature. A smoothed teacher's p_t is the share of its
    draws that vote for each class, which has no temperature, or the mean over its draws of
    softmax(z_t / T): the caller makes it. ValueError for shapes that differ, w outside [0, 1] or T <= 0.
    """
    if student_logits.shape != teacher_probs.shape:
        raise ValueError(f"logits {tuple(student_logits.shape)}, but probabilities {tuple(teacher_probs.shape)}")
    if not 0 <= weight <= 1 or not temperature > 0:
        raise ValueError(f"weight must lie in [0, 1] and temperature above 0, not {weight} and {temperature}")
    hard = F.cross_entropy(student_logits, labels)
    # cross_entropy with probabilities as targets is - sum p_t log p_s, in the logits' precision.
    soft = F.cross_entropy(student_logits / temperature, teacher_probs.detach().to(student_logits.dtype))
    return (1 - weight) * hard + weight * temperature**2 * soft

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.models.distill import distillation_loss


def written_out(z: Tensor, labels: Tensor, teacher: Tensor, w: float, t: float) -> tuple[float, list[list[float]]]:
    """(1 - w) CE(z, y) + w T^2 CE(p_t, p_s) and its gradient, number by number in Python's floats."""
    n, classes = z.shape
    loss, gradient = 0.0, []
    for row, y, p in zip(z.tolist(), labels.tolist(), teacher.tolist(), strict=True):
        hard = [math.exp(v - max(row)) for v in row]
        soft = [math.exp((v - max(row)) / t) for v in row]
        hard, soft = [v / sum(hard) for v in hard], [v / sum(soft) for v in soft]
        loss += (1 - w) * -math.log(hard[y]) - w * t * t * sum(a * math.log(b) for a, b in zip(p, soft, strict=True))
        gradient.append(
            [(1 - w) * (hard[k] - (k == y)) / n + w * t * (soft[k] - p[k]) / n for k in range(classes)]
        )  # fmt: skip
    return loss / n, gradient


@given(
    seed=st.integers(0, 2**20),
    n=st.integers(1, 5),
    classes=st.integers(2, 6),
    weight=st.floats(0, 1),
    temperature=st.floats(0.3, 20),
)
@settings(max_examples=60, deadline=None)
def test_loss_and_gradient_are_the_formula_written_out(
    seed: int, n: int, classes: int, weight: float, temperature: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = (3 * torch.randn(n, classes, generator=generator, dtype=torch.float64)).requires_grad_()
    teacher = (2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)).softmax(1)
    labels = torch.randint(classes, (n,), generator=generator)
    loss = distillation_loss(z, labels, teacher, weight, temperature)
    (gradient,) = torch.autograd.grad(loss, z)
    expected, slope = written_out(z.detach(), labels, teacher, weight, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    torch.testing.assert_close(gradient, torch.tensor(slope, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_a_perfect_student_at_weight_one_has_no_gradient() -> None:
    z = torch.randn(4, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.arange(4)
    for temperature in (1.0, 4.0):
        teacher = (z.detach() / temperature).softmax(1)
        (gradient,) = torch.autograd.grad(distillation_loss(z, labels, teacher, 1.0, temperature), z)
        assert gradient.abs().max() < 1e-15


def test_the_teacher_gets_no_gradient() -> None:
    teacher = torch.full((2, 3), 1 / 3, requires_grad=True)
    logits = torch.zeros(2, 3, requires_grad=True)
    distillation_loss(logits, torch.tensor([0, 1]), teacher, 0.5, 2.0).backward()
    assert teacher.grad is None and logits.grad is not None


def test_vote_shares_with_zeros_are_taken_as_they_are() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64)
    shares = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    loss = distillation_loss(logits, torch.tensor([0]), shares, 1.0, 1.0)
    assert loss.item() == pytest.approx(-logits.log_softmax(1)[0, 0].item(), rel=1e-12)


@pytest.mark.parametrize(("weight", "temperature"), [(-0.1, 1.0), (1.1, 1.0), (0.5, 0.0), (float("nan"), 1.0)])
def test_values_out_of_range_are_refused(weight: float, temperature: float) -> None:
    with pytest.raises(ValueError, match="weight must lie"):
        distillation_loss(torch.zeros(1, 2), torch.tensor([0]), torch.full((1, 2), 0.5), weight, temperature)


def test_another_number_of_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="probabilities"):
        distillation_loss(torch.zeros(1, 3), torch.tensor([0]), torch.full((1, 2), 0.5), 0.5, 1.0)

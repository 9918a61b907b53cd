"""What answers alone allow: an attack held against linear models, and a surrogate that agrees with its teacher."""

from __future__ import annotations

from oracles import compute, linear_problem, streams, test_images, trained
from torch import Tensor, nn

from bench.lab.attacks.ball import Ball
from bench.lab.examine.hard_labels import decided, distilled
from bench.lab.examine.outputs import Case
from bench.models.classifier import Plain
from bench.models.smoothing import Smoothed


class Answers(nn.Module):
    """Another network's labels, and nothing else."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(self.net(x).argmax(1), 10).float()


def test_an_attack_by_answers_alone_nears_the_closed_form_of_a_linear_model() -> None:
    model, images, labels = linear_problem(60, 3)
    right = model(images).argmax(1) == labels
    case = Case(model, images[right], labels[right], streams(), compute())
    eps = 0.1
    made = decided(case, Ball(eps), 400)
    assert (made - case.images).abs().max() <= eps + 1e-6 and made.min() >= 0 and made.max() <= 1
    robust = model.robust(case.images, case.labels, eps)
    held = model(made).argmax(1) == case.labels
    assert not (robust & ~held).any(), "what cannot be fooled was fooled"
    assert (~held).sum() >= 0.8 * (~robust).sum() > 0


def test_in_l2_and_of_a_randomised_model_it_stays_in_the_ball() -> None:
    images, labels = test_images(8)
    case = Case(Smoothed(trained(True), 0.05), images, labels, streams(), compute())
    made = decided(case, Ball(0.5, "L2"), 30)
    assert float((made - images).flatten(1).norm(dim=1).max()) <= 0.5 + 1e-5


def test_a_surrogate_learns_what_the_model_says_from_its_labels() -> None:
    images, labels = test_images(50)
    pool, _ = test_images(200, 500)
    model = Plain(Answers(trained(False).net).eval(), 10)
    case = Case(model, images, labels, streams(), compute())
    taught = distilled(case, pool, 8 / 255, epochs=6)
    agree = float((taught(images).argmax(1) == model(images).argmax(1)).float().mean())
    assert agree > 0.25, agree

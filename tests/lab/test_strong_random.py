"""`strong` on randomised sources: supports that can be enumerated, draws that decide, evidence that is honest."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import torch
from oracles import ConstantP, Witness, compute, noise_images, small_net, streams
from scipy.optimize import linprog
from torch import Tensor

from bench.lab.attacks.strong import craft
from bench.lab.attacks.strong.race import Raced
from bench.lab.attacks.strong.search import Search
from bench.lab.attacks.strong.selection import Selection, anytime
from bench.lab.attacks.view import View
from bench.lab.craft import craft as checked
from bench.models.classifier import Atom, Classifier, Realisation
from bench.models.smoothing import Smoothed
from bench.recipes import PGD, Strong

CHANCES = (0.5, 0.3, 0.2)


class Lines(Classifier):
    """Two classes; one of three affine functions answers, drawn anew for every pass."""

    stochastic = True
    classes = 2

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def one(self, number: int) -> Realisation:
        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            value = images.flatten(1) @ self.weight[number] + self.bias[number]
            return torch.stack([torch.zeros_like(value), value], 1)

        return realisation

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        luck = float(torch.rand((), generator=generator))
        return self.one(0 if luck < CHANCES[0] else 1 if luck < CHANCES[0] + CHANCES[1] else 2)

    def atoms(self) -> tuple[Atom, ...]:
        return tuple(Atom(chance, self.one(number)) for number, chance in enumerate(CHANCES))


def worst_error(model: Lines, image: np.ndarray, eps: float, slack: float) -> float:
    """The most that a chance to be wrong can be in the L-inf ball: for each set of atoms, a linear program says
    whether one image is wrong, by `slack`, in all of them."""
    bounds = [(max(0.0, v - eps), min(1.0, v + eps)) for v in image]
    best = 0.0
    for some in itertools.chain.from_iterable(itertools.combinations(range(3), size) for size in (1, 2, 3)):
        chance = sum(CHANCES[number] for number in some)
        if chance > best:
            rows = list(some)
            bound = -model.bias[rows].double().numpy() - slack
            found = linprog([0.0] * len(image), A_ub=model.weight[rows].double().numpy(), b_ub=bound, bounds=bounds)
            best = chance if found.status == 0 else best
    return best


def test_finite_supports_by_enumeration() -> None:
    """Expected error of every image is the largest that any image of its ball has, as linear programs find it."""
    dice = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 12, generator=dice)
    model = Lines(weight, -0.5 * weight.sum(1) + 0.6).eval()
    images = torch.rand(60, 3, 2, 2, generator=dice)
    labels = torch.ones(60, dtype=torch.long)
    counted = compute()
    search = Search(Strong(eps=Fraction("0.15")), View(model, images.shape, streams(), counted), images, labels)
    Raced(search).hunt()
    sure = [[worst_error(model, image, 0.15, slack) for slack in (1e-3, -1e-3)] for image in
            images.flatten(1).double().numpy()]  # fmt: skip
    clear = [n for n, (low, high) in enumerate(sure) if low == high]
    missed = [n for n in clear if abs(float(search.best.errors[n]) - sure[n][0]) > 1e-4]
    assert len(clear) > 55 and len(missed) <= 1  # a path may end where pieces meet
    assert {0.3, 0.5, 0.7, 1.0} <= {round(low, 3) for low, _ in sure}
    assert float(search.spent.sum()) == counted.backwards + 0.5 * (counted.forwards - counted.backwards)


def noisy(seed: int = 1) -> tuple[Classifier, Tensor, Tensor]:
    plain, images = small_net(seed=seed), noise_images(40, seed=5)
    return Smoothed(plain, 0.03).eval(), images, plain(images).argmax(1)


def test_images_are_left_right_less_often_than_by_pgd_with_many_draws() -> None:
    model, images, labels = noisy()
    view = View(model, images.shape, streams(), compute())
    ours, theirs = compute(), compute()
    made = craft(Strong(eps=Fraction(1, 100), gradients=150), model, images, labels, streams(), ours)
    pgd = PGD(eps=Fraction(1, 100), step=Fraction(1, 400), steps=10, eot=15)
    left = view.right(checked(pgd, model, images, labels, streams(), theirs).images, labels, 64).mean()
    assert view.right(made.images, labels, 64).mean() <= left + 0.01 < 1
    assert ours.backwards + 0.5 * (ours.forwards - ours.backwards) < theirs.backwards


def test_the_judges_draws_choose_nothing_and_the_budget_holds() -> None:
    model, images, labels = noisy()
    asked = Witness(0, 0, images.device)
    Witness.asked.clear()
    search = Search(Strong(eps=Fraction(1, 100), gradients=90), View(model, images.shape, asked, compute()),
                    images, labels)  # fmt: skip
    Raced(search).hunt()
    assert Witness.asked and "score" not in Witness.asked
    assert float(search.spent.max()) <= 90
    for gradients in range(20, 80, 7):
        view = View(model, images.shape, streams(), compute())
        short = Search(Strong(eps=Fraction(1, 100), gradients=gradients, tolerance=0.0), view, images, labels)
        Raced(short).hunt()
        assert float(short.spent.max()) <= gradients


def test_racing_leaves_as_little_as_all_draws_for_all() -> None:
    model, images, labels = noisy(2)
    left, spent = [], []
    for racing in (True, False):
        view = View(model, images.shape, streams(), compute())
        search = Search(Strong(eps=Fraction(1, 100), gradients=200, tolerance=0.0), view, images, labels)
        Raced(search, racing=racing).hunt()
        left.append(view.right(search.best.images, labels, 64).mean())
        spent.append(float(search.spent.mean()))
    assert left[0] <= left[1] + 0.01 and spent[0] <= spent[1]


def test_what_is_hardly_ever_right_is_let_go_and_what_often_is_stays() -> None:
    images, labels = noise_images(20), torch.zeros(20, dtype=torch.long)

    def over(p: float) -> int:
        view = View(ConstantP(labels, p), images.shape, streams(), compute())
        search = Search(Strong(gradients=10**4), view, images, labels)
        selection = Selection(search)
        selection.begin()
        selection.release(torch.arange(20))
        return int(search.over.sum())

    assert over(0.0) == 20 and over(0.2) <= 1


def test_evidence_of_a_race_is_seldom_wrong_whenever_it_is_looked_at() -> None:
    """Of fair coins at most one in twenty ever looks unfair by 20 to 1; of unfair ones most do."""

    def ever(chance: float) -> float:
        heads = (torch.rand(2000, 200, generator=torch.Generator().manual_seed(0)) < chance).cumsum(1)
        tosses = torch.arange(1, 201).expand(2000, -1)
        return float((anytime(heads, tosses - heads) >= 20).any(1).float().mean())

    assert ever(0.5) <= 0.05 < 0.95 < ever(0.75)



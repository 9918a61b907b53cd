"""The square attack: the schedule, the ball, and what random search must find."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import compute, linear_problem, noise_images, resnet18, small_net, streams, test_images

from bench.lab.attacks import square
from bench.models.smoothing import Smoothed
from bench.recipes import Square


def run(attack: Square, source, images, labels, seed: int = 0, counted=None):
    return square.craft(attack, source, images, labels, streams(seed), counted or compute())


def answers(model, images):
    with torch.no_grad():
        return model(images).argmax(1)


def test_schedule_is_the_papers() -> None:
    """Square sides for 32 x 32 images, p = 0.8: sqrt(p h w) after each halving of the 10,000-query budget."""
    attack = Square(queries=10_000)
    sides = {query: square.side(attack, query, 32, 32) for query in (0, 10, 11, 51, 201, 501, 1001, 2001, 8001)}
    wanted = [0.8, 0.8, 0.4, 0.2, 0.1, 0.05, 0.025, 0.0125, 0.8 / 512]
    assert list(sides.values()) == [max(1, round((share * 1024) ** 0.5)) for share in wanted]
    assert square.side(Square(queries=100), 99, 32, 32) == square.side(attack, 9900, 32, 32) == 1


@given(
    eps=st.fractions(0, Fraction(1, 2), max_denominator=255),
    queries=st.integers(1, 8),
    restarts=st.integers(1, 2),
    sigma=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_stays_in_the_ball_and_the_box(eps: Fraction, queries: int, restarts: int, sigma: float, seed: int) -> None:
    images = noise_images(3, seed=seed).round(decimals=1)
    before = images.clone()
    attack = Square(eps=eps, queries=queries, restarts=restarts, draws=2)
    crafted = run(attack, Smoothed(small_net(seed=seed), sigma), images, torch.arange(3), seed)
    assert torch.equal(images, before)
    assert crafted.images.min() >= 0 and crafted.images.max() <= 1
    assert (crafted.images - images).abs().max() <= float(eps) + 1e-6


def test_comes_near_the_robust_accuracy_of_a_linear_classifier_and_never_below() -> None:
    model, images, labels = linear_problem(100, seed=2)
    robust = model.robust(images, labels, 8 / 255)
    few, many = (run(Square(queries=q), model, images, labels) for q in (5, 400))
    kept_few, kept = (answers(model, crafted.images) == labels for crafted in (few, many))
    assert not (robust & ~kept).any()
    assert kept.sum() < kept_few.sum() and kept.float().mean() < robust.float().mean() + 0.05
    assert torch.equal(many.claimed == 0, kept)


def test_breaks_an_undefended_network_without_gradients() -> None:
    model, (images, labels) = resnet18(), test_images(10)
    right = answers(model, images) == labels
    counted = compute()
    crafted = run(Square(queries=60), model, images, labels, counted=counted)
    left = answers(model, crafted.images) == labels
    assert right.sum() >= 9 and left.sum() <= right.sum() - 3
    assert counted.backwards == 0 and counted.forwards < 60 * len(images)  # fooled images leave


@pytest.mark.parametrize("draws", [1, 7])
def test_stochastic_sources_spend_all_their_queries(draws: int) -> None:
    model, images, labels = linear_problem(6, seed=3)
    counted = compute()
    run(Square(queries=4, draws=draws, restarts=2), Smoothed(model, 0.1), images, labels, counted=counted)
    walk = 4 * draws + 3 * draws + draws  # proposals, the incumbent beside all but the first, and it at the end
    assert counted.forwards == len(images) * (2 * walk + 1)  # and one draw to claim with


def test_a_lucky_incumbent_is_seen_again() -> None:
    """Under noise far larger than what a query changes, what counts is the margin on draws that both meet."""
    model, images, labels = linear_problem(100, seed=5)
    noisy = Smoothed(model, 0.5)
    crafted = run(Square(queries=60, draws=1), noisy, images, labels)
    moved = (model.values(crafted.images) - model.values(images)) * (1 - 2 * labels)
    most = 8 / 255 * model.weight.abs().sum()
    assert float((moved / most).mean()) > 0.6


def test_finds_more_against_a_smoothed_linear_classifier_with_more_queries() -> None:
    """Its chance of being right is Phi(margin / (sigma |w|)): exact, so no draws are needed to compare."""
    model, images, labels = linear_problem(60, seed=5)
    few, many = (run(Square(queries=q, draws=8), Smoothed(model, 0.1), images, labels) for q in (1, 100))

    def chance(crafted) -> float:
        margin = model.values(crafted.images) * (2 * labels - 1)
        return float(torch.special.ndtr(margin / (0.1 * model.weight.norm())).mean())

    assert chance(many) < chance(few) - 0.02


def test_more_restarts_fool_no_fewer() -> None:
    model, images = small_net(), noise_images(60)
    labels = answers(model, images)
    one, three = (run(Square(eps="8/255", queries=6, restarts=r), model, images, labels) for r in (1, 3))
    assert not ((answers(model, three.images) == labels) & (answers(model, one.images) != labels)).any()
    assert three.claimed.sum() > one.claimed.sum()

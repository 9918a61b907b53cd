"""Stopping rules: error levels by exact enumeration and simulation, costs on known vote distributions."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from stopped import realistic, run, soft_run, softmaxes, votes

from bench.votes.stopping import (
    HOW,
    SoftState,
    curtailed,
    decide,
    e_process,
    ppr,
    soft_decide,
    soft_start,
    soft_update,
)
from bench.votes.stopping_tables import boundaries, crossing, worst_case


def lattice(total: int, classes: int, drawn: int) -> np.ndarray:
    """All count vectors of `drawn` draws."""
    rows = [c for c in itertools.product(range(drawn + 1), repeat=classes - 1) if sum(c) <= drawn]
    return np.array([(*c, drawn - sum(c)) for c in rows])


@pytest.mark.parametrize("method", ["default", "e-process", "curtailed"])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_no_population_of_votes_is_decided_wrongly_more_often_than_alpha(method: str, alpha: float) -> None:
    """Exact: every population of 18 votes in 3 classes, every order, looking after every draw."""
    total, classes = 18, 3
    stops = {}
    for m in range(1, total + 1):
        cells = lattice(total, classes, m)
        stop = decide(cells, m, total, alpha, method)
        for cell, done, winner in zip(cells, stop.decided, stop.winner, strict=True):
            stops[tuple(int(c) for c in cell)] = int(winner) if done else None
    worst = 0.0
    for population in lattice(total, classes, total):
        right, mass, wrong = int(population.argmax()), {(0,) * classes: 1.0}, 0.0
        for m in range(total):
            after: dict[tuple[int, ...], float] = {}
            for cell, p in mass.items():
                for k in range(classes):
                    left = int(population[k]) - cell[k]
                    if left:
                        grown = (*cell[:k], cell[k] + 1, *cell[k + 1 :])
                        after[grown] = after.get(grown, 0.0) + p * left / (total - m)
            mass = {}
            for cell, p in after.items():
                if stops[cell] is None:
                    mass[cell] = p
                elif stops[cell] != right:
                    wrong += p
        assert not mass, "at the last draw every image is decided"
        worst = max(worst, wrong)
    assert worst <= alpha
    if method == "curtailed":
        assert worst == 0
    if method == "default":
        assert worst <= worst_case(total, alpha, classes) + 1e-12
        assert worst > alpha / 10  # the level is used, not merely kept


@pytest.mark.parametrize(("total", "alpha", "classes"), [(64, 1e-3, 10), (64, 0.05, 3), (63, 0.01, 10), (96, 1e-4, 4)])
def test_the_bound_on_wrong_decisions_over_all_populations_is_alpha(total: int, alpha: float, classes: int) -> None:
    assert 0.5 * alpha < worst_case(total, alpha, classes) <= alpha


def test_crossing_is_the_hypergeometric_walk() -> None:
    rng = np.random.default_rng(0)
    boundary = np.array([9, 9, 2, 3, 3, 4, 5, 5, 6])
    exact = crossing(boundary, np.array([8, 8]), np.array([4, 3]))
    for ones, p in zip([4, 3], exact, strict=True):
        hits = 0
        for where in itertools.combinations(range(8), ones):
            walk = np.cumsum(np.isin(np.arange(8), where))
            hits += bool((walk >= boundary[1:]).any())
        assert p == pytest.approx(hits / comb(8, ones), abs=1e-12)
    order = rng.permuted(np.tile(np.arange(512) < 256, (4000, 1)), axis=1).cumsum(1)
    table = boundaries(512, 0.05, 10).majority
    rate = (order >= table[1:]).any(1).mean()
    p = crossing(table, np.array([512]), np.array([256]))[0]
    assert abs(rate - p) < 4.5 * np.sqrt(p / 4000)
    assert p <= 0.05


@pytest.mark.parametrize("every", [1, 8])
def test_wrong_decisions_stay_under_alpha_for_the_closest_calls(every: int) -> None:
    """Populations one vote from a tie, and three-way ties: as hard as a vote can be."""
    rng = np.random.default_rng(1)
    alpha, repeats = 0.05, 2000
    for population in [(64, 64), (63, 65), (43, 42, 43), (40, 40, 48), (32, 32, 32, 32), (60, 62, 3, 3)]:
        one = np.repeat(np.arange(len(population)), population)
        labels = rng.permuted(np.tile(one, (repeats, 1)), axis=1)
        _, winner, full = run(labels, 10, alpha, every=every)
        assert (winner != full).sum() <= binom.ppf(0.9999, repeats, alpha)


def test_a_realistic_mix_costs_an_eighth_and_decides_the_same() -> None:
    rng = np.random.default_rng(2)
    labels = votes(realistic(1500, rng), 512, rng)
    for every, ratio in [(1, 11.0), (8, 10.0)]:
        used, winner, full = run(labels, 10, 1e-3, every=every)
        assert 512 / used.mean() > ratio
        assert (winner == full).mean() >= 0.999


@pytest.mark.parametrize(
    ("shares", "most"),
    [((1.0,), 13), ((0.95, 0.05), 18), ((0.9, 0.1), 23), ((0.8, 0.2), 43), ((0.6, 0.2, 0.2), 95), ((0.6, 0.4), 240)],
)
def test_mean_draws_of_known_votes(shares: tuple[float, ...], most: float) -> None:
    rng = np.random.default_rng(3)
    p = np.zeros((200, 10))
    p[:, 4 : 4 + len(shares)] = shares
    labels = votes(p, 512, rng)
    used, winner, full = run(labels, 10, 1e-3)
    assert used.mean() <= most
    assert (winner == full).all()
    others = [run(labels, 10, 1e-3, method)[0].mean() for method in ("e-process", "curtailed")]
    assert used.mean() < others[0] <= others[1]


counts = st.lists(st.integers(0, 40), min_size=2, max_size=6).filter(lambda c: sum(c) > 0)


@settings(max_examples=200, deadline=None)
@given(counts, st.integers(0, 40), st.randoms(use_true_random=False))
def test_no_completion_changes_a_curtailed_vote(seen: list[int], left: int, random) -> None:
    now = np.array([seen])
    stop = curtailed(now, sum(seen), sum(seen) + left)
    full = now.copy()
    # the hardest completion for each class, and some at random
    for k in range(len(seen)):
        final = now.copy()
        final[0, k] += left
        if stop.decided[0]:
            assert final.argmax() == stop.winner[0]
    for _ in range(left):
        full[0, random.randrange(len(seen))] += 1
    if stop.decided[0]:
        assert full.argmax() == stop.winner[0]
    elif left:
        changed = [(now + left * np.eye(len(seen), dtype=int)[k]).argmax() for k in range(len(seen))]
        assert any(c != stop.winner[0] for c in changed)


@settings(max_examples=60, deadline=None)
@given(counts, st.integers(0, 30))
def test_exact_curtailment_is_never_missed_and_how_says_why(seen: list[int], left: int) -> None:
    now, m = np.array([seen]), sum(seen)
    stop = decide(now, m, m + left, 1e-3)
    assert stop.decided[0] >= curtailed(now, m, m + left).decided[0]
    assert (HOW[stop.how[0]] == "open") == (not stop.decided[0])
    assert stop.winner[0] == now[0].argmax()


def test_e_process_stops_a_unanimous_vote_when_its_ratio_says() -> None:
    # s = m: (1/(m+1)) 2 (1 - 2^-(m+1)) (512)_m / (256)_m >= 10 / 1e-4, first at 21 draws for these
    stopped = [m for m in range(1, 40) if e_process(np.array([[m] + [0] * 9]), m, 512, 1e-4).decided[0]]
    ratio = [
        2 * (1 - 0.5 ** (m + 1)) / (m + 1) * np.prod([(512 - k) / (256 - k) for k in range(m)]) for m in range(1, 40)
    ]
    assert stopped[0] == next(m for m in range(1, 40) if ratio[m - 1] >= 10 / 1e-4)
    assert stopped == list(range(stopped[0], 40))


def test_ppr_finds_the_mode_and_leaves_coin_flips_open() -> None:
    rng = np.random.default_rng(4)
    sure = ppr(rng.multinomial(512, [0.6, 0.2, 0.2], size=300), 1e-3)
    assert sure.decided.all()
    assert (sure.winner == 0).all()
    labels = votes(np.tile([0.5, 0.5], (400, 1)), 256, rng)
    tallies = np.stack([(labels == 0).cumsum(1), (labels == 1).cumsum(1)], 2)
    ever = np.zeros(400, dtype=bool)
    for m in range(256):  # looked at after every draw, the mode being either: any decision is an error
        ever |= ppr(tallies[:, m], 0.05).decided
    assert ever.sum() <= binom.ppf(0.9999, 400, 0.05)
    # the density of Beta(s + 1, 1) at 1/2 is (s + 1) / 2^s
    alone = [ppr(np.array([[s, 0]]), 1e-3).decided[0] for s in range(1, 30)]
    assert alone.index(True) + 1 == next(s for s in range(1, 30) if (s + 1) / 2**s <= 1e-3)


@pytest.mark.parametrize("classes", [3, 20])
@pytest.mark.parametrize("hard", [True, False])
def test_soft_stopping_keeps_alpha_on_tied_populations(classes: int, hard: bool) -> None:
    """Means exactly tied between two classes, so every decision for the higher one is wrong; each order anew."""
    rng = np.random.default_rng(5)
    alpha, total, repeats = 0.1, 64, 3000
    one = softmaxes([0.48, 0.48] + [0.04 / (classes - 2)] * (classes - 2), 1.5, 1, total // 2, rng)[0]
    one = np.eye(classes)[one.argmax(1)] if hard else np.round(one * 4096) / 4096  # sums without rounding
    swapped = one.copy()
    swapped[:, [0, 1]] = one[:, [1, 0]]
    population = np.concatenate([one, swapped])
    probs = np.stack([population[rng.permutation(total)] for _ in range(repeats)])
    _, winner, _ = soft_run(probs, alpha, every=1)
    assert (winner != 0).sum() <= binom.ppf(0.9999, repeats, alpha)


def test_soft_stopping_is_cheap_where_the_mean_is_clear() -> None:
    rng = np.random.default_rng(6)
    rest = [0.001] * 7
    for means, spread, most in [([0.95, 0.03, 0.01, *rest], 1.0, 24), ([0.6, 0.4, 0.001, *rest], 0.3, 80)]:
        used, winner, full = soft_run(softmaxes(means, spread, 100, 512, rng), 1e-3)
        assert used.mean() < most
        assert (winner == full).all()


@pytest.mark.parametrize("classes", [4, 30])
def test_soft_state_does_not_depend_on_blocks_and_ends_decided(classes: int) -> None:
    rng = np.random.default_rng(7)
    probs = softmaxes([1.0] * classes, 0.5, 12, 40, rng).transpose(1, 0, 2)
    whole = soft_update(soft_start(12, classes), probs, 40)
    parts: SoftState = soft_start(12, classes)
    for piece in np.split(probs, [3, 4, 25]):
        parts = soft_update(parts, piece, 40)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b)
    stop = soft_decide(whole, 40)
    assert stop.decided.all()
    assert (stop.winner == probs.sum(0).argmax(1)).all()
    with pytest.raises(ValueError, match="more than 40"):
        soft_update(whole, probs[:1], 40)


def test_impossible_questions_are_refused() -> None:
    good = np.array([[3, 1]])
    for counts_, drawn, total, alpha, message in [
        (good, 5, 10, 1e-3, "add up"),
        (good, 4, 3, 1e-3, "draws of"),
        (good, 4, 10, 0.0, "alpha"),
        (np.array([3, 1]), 4, 10, 1e-3, "counts must be"),
        (np.array([[4]]), 4, 10, 1e-3, "counts must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            decide(counts_, drawn, total, alpha)
    with pytest.raises(ValueError, match="method"):
        decide(good, 4, 10, 1e-3, "guess")

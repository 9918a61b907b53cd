"""Intervals, paired tests and exact two-sample tests: against closed forms, scipy, and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from covered import Shape, coverage, judgement
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from bench.votes.intervals import (
    binomial_p,
    expected,
    holm,
    images_to_decide,
    mcnemar,
    paired_difference,
    share,
    shared_draws,
)


@pytest.mark.parametrize("draws", [1, 4, 16])
@pytest.mark.parametrize("n", [200, 1000])
@pytest.mark.parametrize("shape", [(8.0, 2.0), (0.5, 0.02)])
def test_intervals_cover_with_draws_of_each_image(n: int, draws: int, shape: Shape) -> None:
    assert 0.93 <= coverage(n, draws, shape, 2000, seed=n + draws) <= 0.97


@pytest.mark.parametrize("draws", [1, 4, 16])
@pytest.mark.parametrize("shape", [(8.0, 2.0), (2.0, 0.1)])
def test_intervals_cover_with_draws_that_shards_share(draws: int, shape: Shape) -> None:
    assert 0.93 <= coverage(200, draws, shape, 2000, seed=draws, shards=4) <= 0.97


def test_ignoring_that_draws_are_shared_would_not_cover() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        correct, ids, _ = judgement(1000, 4, (8.0, 2.0), rng, shards=4)
        interval = expected(correct, 4, ids)
        hits += interval.low <= 0.8 <= interval.high
    assert hits / 400 < 0.8


def test_shared_variance_is_the_covariance_the_simulation_has() -> None:
    rng = np.random.default_rng(1)
    means, estimates = [], []
    for _ in range(600):
        correct, ids, table = judgement(400, 8, (40.0, 10.0), rng, shards=4, sharing=0.2)
        assert table is not None
        means.append(correct.mean() / 8)
        estimates.append((correct / 8).var(ddof=1) / 400 + shared_draws(correct, 8, ids, table).variance)
    assert np.mean(estimates) == pytest.approx(np.var(means), rel=0.2)


def test_extremes_stay_inside_and_are_not_sure() -> None:
    for right in (0, 16):
        interval = expected(np.full(50, right), 16, np.zeros(50, dtype=int))
        assert interval.value in (interval.low, interval.high)
        assert 0.02 < interval.high - interval.low < 0.12
    blind = expected(np.array([1, 0, 1]), 1, np.zeros(3, dtype=int), np.array([[2]]))
    assert (blind.low, blind.high) == (0.0, 1.0)  # one draw of one shard says nothing about draws
    with pytest.raises(ValueError, match="per_shard_draws"):
        expected(np.array([1, 0]), 1, np.array([0, 1]), np.array([[1]]))
    with pytest.raises(ValueError, match="how many answers"):
        expected(np.array([1, 0]), 1, np.array([0, 1]), np.array([[1], [1]]))
    with pytest.raises(ValueError, match="right answers"):
        expected(np.array([3]), 2, np.array([0]))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.data(), st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_is_the_score_interval(n: int, data: st.DataObject, level: float) -> None:
    k = data.draw(st.integers(0, n))
    got = share(k, n, level)
    assert got.low <= got.value <= got.high
    reference_ = reference.binomtest(k, n).proportion_ci(level, method="wilson")
    assert got.low == pytest.approx(reference_.low, abs=1e-9)
    assert got.high == pytest.approx(reference_.high, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 60))
def test_one_draw_of_each_image_is_wilson(seed: int, n: int) -> None:
    correct = np.random.default_rng(seed).integers(0, 2, n)
    got, wilson = expected(correct, 1, np.zeros(n, dtype=int)), share(int(correct.sum()), n)
    if 0 < correct.sum() < n:
        assert got.high - got.low == pytest.approx(wilson.high - wilson.low, rel=0.1 + 8 / n)
    assert got.value == wilson.value


def test_mcnemar_is_the_binomial_test_of_discordant_images() -> None:
    a = np.repeat([1, 1, 0, 0], [50, 12, 3, 35]).astype(bool)
    b = np.repeat([1, 0, 1, 0], [50, 12, 3, 35]).astype(bool)
    test = mcnemar(a, b)
    assert (test.only_a, test.only_b, test.difference.value) == (12, 3, pytest.approx(0.09))
    assert test.difference.p == pytest.approx(reference.binomtest(12, 15).pvalue)
    assert test.difference.low < 0.09 < test.difference.high
    back = mcnemar(b, a).difference
    assert (back.low, back.high) == (pytest.approx(-test.difference.high), pytest.approx(-test.difference.low))
    assert mcnemar(a, a).difference.p == 1.0


def test_paired_difference_is_the_paired_t_and_covers() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.beta(4, 1, 60), rng.beta(3, 1, 60)
    got, known = paired_difference(a, b), reference.ttest_rel(a, b)
    interval = known.confidence_interval()
    assert (got.p, got.low, got.high) == tuple(pytest.approx(v) for v in (known.pvalue, interval.low, interval.high))
    same = paired_difference(a, a)
    assert same.p == 1
    assert same.high == pytest.approx(reference.binomtest(0, 60).proportion_ci().high)
    hits = 0
    for _ in range(2000):
        p = rng.beta(8, 2, 200)
        x, y = rng.binomial(16, p) / 16, rng.binomial(16, p * 0.98) / 16
        interval_ = paired_difference(x, y)
        hits += interval_.low <= 0.02 * 0.8 <= interval_.high
    assert 0.93 <= hits / 2000 <= 0.97


def test_holm_rejects_in_steps() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


def test_images_to_decide_gives_the_power_it_promises() -> None:
    rng = np.random.default_rng(3)
    a, b = (np.repeat(v, [200, 46, 32, 122]).astype(float) for v in ([1, 1, 0, 0], [1, 0, 1, 0]))
    more = images_to_decide(a, b)
    assert more is not None
    gap, spread, n = float((a - b).mean()), float((a - b).std(ddof=1)), 400 + more
    samples = rng.normal(gap, spread, (1000, n))
    decided = np.abs(samples.mean(1)) / samples.std(1, ddof=1) * np.sqrt(n) > 1.96
    assert more > 0
    assert 0.75 < np.mean(decided) < 0.85
    assert images_to_decide(np.ones(50), np.r_[np.zeros(40), np.ones(10)]) == 0
    assert images_to_decide(a, a) is None


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 60), st.data(), st.floats(0.01, 0.99))
def test_binomial_p_is_valid_and_at_a_half_the_usual_one(n: int, data: st.DataObject, rate: float) -> None:
    k = data.draw(st.integers(0, n))
    if n:
        assert binomial_p(k, n, 0.5) == pytest.approx(reference.binomtest(k, n, 0.5).pvalue)
    values = np.array([binomial_p(j, n, rate) for j in range(n + 1)])
    law = reference.binom.pmf(np.arange(n + 1), n, rate)
    for level in (0.01, 0.05, 0.3):
        assert law[values <= level].sum() <= level + 1e-12

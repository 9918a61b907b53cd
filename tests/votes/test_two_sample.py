"""Exact two-sample tests against scipy, convolution, the normal limit, and their own level."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as reference
from scipy.special import ndtr

from bench.votes.two_sample import drift, drift_by_draw, homogeneity


def test_drift_of_one_image_is_fisher_and_of_many_their_convolution() -> None:
    assert drift(np.array([3]), 8, np.array([8]), 8) == pytest.approx(reference.fisher_exact([[3, 5], [8, 0]]).pvalue)
    a, b, m, r = np.array([2, 0, 4]), np.array([5, 1, 6]), np.array([4, 4, 6]), np.array([6, 4, 6])
    pmf = np.ones(1)
    for i in range(3):
        law = reference.hypergeom(m[i] + r[i], a[i] + b[i], m[i]).pmf(np.arange(m[i] + 1))
        pmf = np.convolve(pmf, law)
    tails = pmf[: a.sum() + 1].sum(), pmf[a.sum() :].sum()
    assert drift(a, m, b, r) == pytest.approx(min(1.0, 2 * min(tails)), abs=1e-12)


def test_drift_over_many_images_is_the_normal_one_and_finds_small_shifts() -> None:
    rng = np.random.default_rng(4)
    p = rng.beta(2, 0.5, 3000)
    for moved in (0.0, 0.01):
        a, b = rng.binomial(64, p), rng.binomial(32, np.clip(p - moved, 0, 1))
        total = a + b
        variance = (64 * 32 * total * (96 - total) / (96**2 * 95)).sum()
        z = (abs(a.sum() - (total * 64 / 96).sum()) - 0.5) / np.sqrt(variance)
        got = drift(a, 64, b, 32)
        assert got == pytest.approx(2 * ndtr(-z), rel=0.1 if moved else 0.01)
        assert (got < 1e-3) == (moved > 0)


def null_p(test: str, rng: np.random.Generator) -> float:
    """A p-value where nothing has changed between the two judgements."""
    seed = int(rng.integers(2**31))
    if test == "drift":
        p = rng.beta(4, 1, 60)
        return drift(rng.binomial(6, p), 6, rng.binomial(10, p), 10)
    if test == "drift_by_draw":
        level = rng.uniform(0.3, 0.9, (3, 1))
        return drift_by_draw(rng.binomial(20, level, (3, 6)), rng.binomial(20, level, (3, 8)), 59, seed)
    shares = rng.dirichlet([3, 1, 0.5], 15)
    return homogeneity(rng.multinomial(8, shares), rng.multinomial(12, shares), 39, seed)


@pytest.mark.parametrize("test", ["drift", "drift_by_draw", "homogeneity"])
def test_two_sample_tests_hold_their_level(test: str) -> None:
    rng = np.random.default_rng(5)
    pvalues = np.array([null_p(test, rng) for _ in range(250)])
    for level in (0.05, 0.2):
        assert (pvalues <= level).mean() <= level + 3.5 * np.sqrt(level * (1 - level) / 250)
    assert (pvalues <= 0.2).mean() > 0.08


def test_dispersion_is_seen_where_accuracy_has_not_moved() -> None:
    rng = np.random.default_rng(6)
    p, q = np.tile([0.8, 0.6], 40), np.tile([0.6, 0.8], 40)
    a, b = rng.binomial(32, p), rng.binomial(32, q)
    assert drift(a, 32, b, 32) > 0.01
    assert homogeneity(np.stack([a, 32 - a], 1), np.stack([b, 32 - b], 1), 199) == pytest.approx(1 / 200)
    assert homogeneity(np.array([[5, 0]]), np.array([[9, 0]])) == 1.0
    shifted = drift_by_draw(rng.binomial(50, 0.7, (4, 16)), rng.binomial(50, 0.55, (4, 16)), 199)
    assert shifted == pytest.approx(1 / 200)

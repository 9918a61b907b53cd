"""Certified radii against the closed form of a linear classifier under Gaussian noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, norm

from bench.votes.certify import ABSTAIN, certified_accuracy, certify, largest_radius

SIGMA = 0.25


def linear_counts(margins: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Votes of sign(w.(x + sigma z)) with signed distance `margins` to the boundary, by sampling the noise."""
    hits = (margins[:, None] + SIGMA * rng.standard_normal((len(margins), draws)) > 0).sum(1)
    return np.stack([draws - hits, hits], 1)


def test_the_radius_never_exceeds_the_distance_to_the_boundary() -> None:
    rng = np.random.default_rng(0)
    alpha = 0.05
    margins = rng.uniform(0.01, 0.6, 4000)
    got = certify(linear_counts(margins, 50, rng), linear_counts(margins, 500, rng), alpha, SIGMA)
    sure = got.prediction == 1
    too_far = (got.radius[sure] > margins[sure]).sum() + (got.prediction == 0).sum()
    assert too_far <= binom.ppf(0.9999, len(margins), alpha)
    assert too_far > 0.3 * alpha * len(margins)  # a bound that is never near its level is wasted


def test_with_many_draws_the_radius_is_the_distance() -> None:
    margins = np.array([0.05, 0.2, 0.4, -0.3])
    hits = np.round(norm.cdf(margins / SIGMA) * 10_000_000).astype(int)
    counts = np.stack([10_000_000 - hits, hits], 1)
    got = certify(counts, counts, 1e-3, SIGMA)
    assert got.prediction.tolist() == [1, 1, 1, 0]
    np.testing.assert_allclose(got.radius, np.abs(margins), rtol=0.02)
    assert (got.radius < np.abs(margins)).all()


def test_abstains_as_often_as_the_binomial_says() -> None:
    rng = np.random.default_rng(1)
    margin, n, alpha = 0.03, 512, 1e-3
    p = norm.cdf(margin / SIGMA)
    needed = next(k for k in range(n + 1) if binom.sf(k - 1, n, 0.5) < alpha)
    assert needed == 292  # 57.0 % of 512 at alpha 0.001
    margins = np.full(3000, margin)
    select = np.tile([0, 1], (3000, 1))
    share = (certify(select, linear_counts(margins, n, rng), alpha, SIGMA).prediction == ABSTAIN).mean()
    expected = binom.cdf(needed - 1, n, p)
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / 3000)


@pytest.mark.parametrize(("n", "ratio"), [(512, 2.214), (1000, 2.463), (10_000, 3.199), (100_000, 3.811)])
def test_largest_radius_at_unanimity(n: int, ratio: float) -> None:
    assert largest_radius(n, 1e-3, 1.0) == pytest.approx(ratio, abs=6e-4)
    got = certify(np.array([[0, 9]]), np.array([[0, n]]), 1e-3, 1.0)
    assert got.radius[0] == pytest.approx(ratio, abs=6e-4)


def test_the_class_that_was_selected_is_the_one_bounded() -> None:
    got = certify(np.array([[6, 4], [5, 5]]), np.array([[10, 990], [990, 10]]), 1e-3, SIGMA)
    assert got.prediction.tolist() == [ABSTAIN, 0]
    assert got.radius[0] == 0


def test_certified_accuracy_counts_right_far_and_not_abstained() -> None:
    prediction, labels = np.array([1, 1, ABSTAIN, 2]), np.array([1, 0, 2, 2])
    radii = np.array([0.5, 0.9, 0.0, 0.1])
    assert certified_accuracy(prediction, radii, labels, [0.0, 0.1, 0.3, 0.6]).tolist() == [0.5, 0.5, 0.25, 0.0]


def test_parameters_that_cannot_certify_are_refused() -> None:
    nine, ten = np.array([[0, 9]]), np.array([[0, 10]])
    with pytest.raises(ValueError, match="at least 10"):
        certify(ten, nine, 1e-3, SIGMA)
    assert certify(nine, ten, 1e-3, SIGMA).prediction[0] == 1
    for alpha, sigma in [(0.0, 1.0), (1.0, 1.0), (1e-3, 0.0), (1e-3, -1.0), (1e-3, float("nan"))]:
        with pytest.raises(ValueError, match="must be"):
            certify(ten, ten, alpha, sigma)
    with pytest.raises(ValueError, match="counts must be"):
        certify(ten, np.array([[1, 2, 3]]))
    with pytest.raises(ValueError, match="at least one draw"):
        certify(np.array([[0, 0]]), ten)

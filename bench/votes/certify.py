"""Certified L2 radii of Gaussian-smoothed classifiers (Cohen, Rosenfeld & Kolter 2019, arXiv 1902.02918).

The certificate holds for any measurable base classifier under isotropic Gaussian noise on its
*input*; noise inside the network may be averaged over too, but not noise whose law depends on the
other images of a batch. Radii are in the units of sigma (pixels in [0, 1] throughout this package).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy  # scipy.special is loaded when it is first needed
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]
ABSTAIN = -1


class Certificate(NamedTuple):
    """prediction (n,) int64, ABSTAIN where nothing is certified; radius (n,) float64, 0 there."""

    prediction: NDArray[np.int64]
    radius: NDArray[np.float64]


def largest_radius(n: int, alpha: float, sigma: float) -> float:
    """The radius when all `n` draws agree: the most that (n, alpha, sigma) can certify; <= 0: nothing."""
    return float(sigma * scipy.special.ndtri(alpha ** (1 / n)))


def certify(selection: Ints, estimation: Ints, alpha: float = 1e-3, sigma: float = 0.25) -> Certificate:
    """CERTIFY of Cohen et al. (2019), for all images at once.

    `selection` (n, classes): counts of n0 draws that choose the class (ties: the lowest);
    `estimation` (n, classes): counts of *other* draws that bound its probability from below by
    Clopper-Pearson at one-sided level 1 - alpha. Where the bound p is over 1/2 the radius is
    sigma * Phi^-1(p), else abstain. P(the smoothed classifier's class changes within a radius
    returned) <= alpha for each image. Raises ValueError where even unanimity could not certify,
    for sigma <= 0, alpha outside (0, 1), or counts that do not fit each other.
    """
    selection, estimation = np.asarray(selection), np.asarray(estimation)
    if selection.ndim != 2 or selection.shape != estimation.shape:
        raise ValueError(f"counts must be (images, classes) twice, not {selection.shape} and {estimation.shape}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), not {alpha}")
    if not sigma > 0:
        raise ValueError(f"sigma must be over 0, not {sigma}")
    draws = estimation.sum(1).astype(np.int64)
    if len(draws) and (selection.sum(1).min() < 1 or draws.min() < 1):
        raise ValueError("every image needs at least one draw to select and one to estimate")
    if len(draws) and largest_radius(int(draws.min()), alpha, sigma) <= 0:
        least = int(np.floor(np.log(alpha) / np.log(0.5))) + 1
        raise ValueError(f"n = {draws.min()} draws cannot certify at alpha = {alpha}, even unanimous: at least {least}")
    choice = selection.argmax(1)
    right = np.take_along_axis(estimation, choice[:, None], 1)[:, 0].astype(np.float64)
    # alpha-quantile of Beta(k, n - k + 1); no successes bound nothing
    some = np.maximum(right, 1)
    low = np.where(right > 0, scipy.special.betaincinv(some, draws - some + 1, alpha), 0.0)
    sure = low > 0.5
    radius = np.where(sure, sigma * scipy.special.ndtri(np.where(sure, low, 0.5)), 0.0)
    return Certificate(np.where(sure, choice, ABSTAIN).astype(np.int64), radius)


def certified_accuracy(
    predictions: Ints, radii: NDArray[np.floating[Any]], labels: Ints, at: NDArray[np.floating[Any]] | list[float]
) -> NDArray[np.float64]:
    """Share of images certified right at each radius of `at` (r,): prediction == label and radius >= r.

    At r = 0 this is the share right and not abstained. (n,) each; returns (r,).
    """
    right = (np.asarray(predictions) == np.asarray(labels))[:, None]
    far = np.asarray(radii)[:, None] >= np.asarray(at, dtype=np.float64)[None, :]
    return np.asarray((right & far).mean(0), dtype=np.float64)

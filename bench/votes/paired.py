"""Sums of numbers over the images that their records share: what differences and claims are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bench.votes import intervals
from bench.votes.intervals import Difference
from bench.votes.numbers import LEVEL, Floats, rows, values
from bench.votes.sharing import Estimate, estimate, with_two_more
from bench.votes.votes import Votes


class Term(NamedTuple):
    """A number, `kind` of `votes` (bench/votes/numbers.py), times a factor."""

    factor: float
    votes: Votes
    kind: str


class Sum(NamedTuple):
    """each (n,): the sum at every image that all its records hold; found: its mean with its variance."""

    each: Floats
    found: Estimate

    @property
    def shared(self) -> float:
        """What shared draws add to the variance of the mean."""
        return 0.0 if self.found.variance is None else self.found.variance - float(self.each.var(ddof=1)) / self.found.n


def total(terms: Sequence[Term], constant: float = 0.0) -> Sum | None:
    """The sum of terms and a constant, image by image; None where the records share fewer than two images."""
    chosen = rows(*(term.votes for term in terms))
    if len(chosen[0]) < 2:
        return None
    parts = [(term.factor, values(term.votes, term.kind).at(at)) for term, at in zip(terms, chosen, strict=True)]
    gaps = np.sum([factor * part.each for factor, part in parts], axis=0)
    found = estimate(gaps, parts)
    labels = all(((part.each == 0) | (part.each == 1)).all() for _, part in parts)
    if labels and sorted(factor for factor, _ in parts) == [-1.0, 1.0] and gaps.any():
        found = with_two_more(found, gaps)
    return Sum(gaps + constant, found._replace(value=found.value + constant))


def difference(a: Votes, b: Votes, kind: str, level: float = LEVEL) -> Difference | None:
    """Accuracy of `a` less that of `b`, on the images that both hold; None where these are fewer than two."""
    found = total([Term(1.0, a, kind), Term(-1.0, b, kind)])
    return found and interval(found, level)


def interval(found: Sum, level: float = LEVEL) -> Difference:
    """The mean of a sum with its interval in [-1, 1], and the two-sided p of a mean of 0.

    Where no image differs from another the share that would is bounded by what n images without one allow (Clopper &
    Pearson 1934).
    """
    value, n = float(found.each.mean()), found.found.n
    if np.ptp(found.each) == 0 and found.found.variance is not None and found.shared <= 0:
        reach = 1 - ((1 - level) / 2) ** (1 / n)
        return Difference(value, value - reach, value + reach, min(1.0, 2 * (1 - min(1.0, abs(value))) ** n))
    return intervals.of_difference(found.found, level)._replace(value=value)

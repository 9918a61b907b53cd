"""Two reports beside each other, image by image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bench import UserError
from bench.api.numbers import Numbers
from bench.api.report import Report
from bench.votes import intervals, paired
from bench.votes.numbers import correct
from bench.votes.numbers import rows as shared
from bench.votes.votes import Votes

FIX = "evaluate both models on the same data, with the same n and seed"


class Compared(NamedTuple):
    """Two reports under one attack: the first's expected accuracy less the second's, on the images that both have, with
    a 95 % interval; p of no difference, two-sided and paired; how many images."""

    attack: str
    difference: float
    low: float
    high: float
    p: float
    n: int


def compare(first: Report, second: Report) -> dict[str, Compared]:
    """Two reports attack by attack (and "clean"), paired by image; draws that images shared count as shared.

    UserError if they are of other images, or if attacks of one name had another eps or norm.
    """
    for one in (first, second):
        if not isinstance(one, Report):
            raise UserError("compare", f"a {type(one).__name__} is no report", "give two that bench.evaluate returned")
    common = [name for name in first.votes if name in second.votes]
    at = first.digests.keys() & second.digests.keys()
    other = [index for index in at if first.digests[index] != second.digests[index]]
    if other:
        what = f"not the same images: {len(other)} of {len(at)} at the same places differ"
        raise UserError("compare", what, FIX)
    for name in common[1:]:
        mine, theirs = first.attacks[name], second.attacks[name]
        if (mine.eps, mine.norm) != (theirs.eps, theirs.norm):
            what = f"{name} moved images by {_far(mine)} in the first and by {_far(theirs)} in the second"
            raise UserError("compare", what, "evaluate both at the same eps, in the same norm")
    return {name: _compared(name, first.votes[name], second.votes[name]) for name in common}


def _compared(name: str, one: Votes, other: Votes) -> Compared:
    try:
        a, b = shared(one, other)
    except ValueError as error:
        raise UserError("compare", f"not the same images: {error}", FIX) from None
    if len(a) < 2:
        raise UserError("compare", f"{len(a)} images in common", FIX)
    kinds = ["expected" if votes.drawn.max() > 1 else "accuracy" for votes in (one, other)]
    if kinds == ["accuracy", "accuracy"]:
        right, wrong = (correct(votes, "accuracy")[at] > 0 for votes, at in ((one, a), (other, b)))
        found = intervals.mcnemar(right, wrong).difference
    else:
        terms = [paired.Term(1.0, one, kinds[0]), paired.Term(-1.0, other, kinds[1])]
        total = paired.total(terms)
        assert total is not None
        found = paired.interval(total)
    assert np.isfinite([found.low, found.high]).all()
    return Compared(name, found.value, found.low, found.high, found.p, len(a))


def _far(one: Numbers) -> str:
    return "no eps" if one.eps is None else f"{one.norm} {one.eps:.4g}"

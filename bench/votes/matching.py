"""Which images several records hold: whatever is compared is compared on these."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.votes.votes import Votes


def rows(*several: Votes) -> list[NDArray[np.int64]]:
    """For each votes, the rows of the images that all of them hold, in the same order.

    Images are matched by their place in the dataset, so pairing survives another shuffle or a
    subset. ValueError if they disagree on a label.
    """
    shared = several[0].index
    if all(np.array_equal(votes.index, shared) for votes in several[1:]) and (shared[1:] > shared[:-1]).all():
        return _alike(several, [np.arange(len(shared))] * len(several))
    for votes in several[1:]:
        shared = np.intersect1d(shared, votes.index)
    chosen = []
    for votes in several:
        order = np.argsort(votes.index)
        at = order[np.searchsorted(votes.index, np.sort(shared), sorter=order)]
        chosen.append(np.asarray(at, np.int64))
    return _alike(several, chosen)


def _alike(several: Sequence[Votes], chosen: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    labels = several[0].labels[chosen[0]]
    if any((votes.labels[at] != labels).any() for votes, at in zip(several, chosen, strict=True)):
        raise ValueError("the records give one image different labels")
    return chosen

"""All marks of one diagnosis together: at most one in 200 marks an honest model, however many checks there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bench.lab.examine.rules import Finding

LEVEL = 0.005
"""The chance that any check of a diagnosis marks an honest model by accident."""
MOST = 40
"""Checks by a test that one diagnosis makes, at most, by which what comes at once is told."""


def settled(findings: Iterable[Finding], level: float = LEVEL, most: int = MOST) -> Iterator[Finding]:
    """The findings with their final verdicts: suspicions by a test hold where Holm's step-down procedure holds them.

    (Holm 1979.) Exact checks, and what no order of the others could change, come as they are made: a suspicion with p
    at most level / most. What is open waits for the end. What is not held "cannot tell".
    """
    chances: list[float] = []
    waiting: list[Finding] = []
    for one in findings:
        if one.p is not None:
            chances.append(one.p)
        if one.p is None or one.verdict != "suspicious" or (one.p <= level / most and len(chances) <= most):
            yield one
        elif one.p > level:
            yield _open(one)
        else:
            waiting.append(one)
    limit = holm(chances, level)
    yield from (one if one.p is not None and one.p <= limit else _open(one) for one in waiting)


def holm(chances: list[float], level: float) -> float:
    """The largest p that Holm's procedure rejects; -1 where it rejects none."""
    limit = -1.0
    for k, p in enumerate(sorted(chances)):
        if p > level / (len(chances) - k):
            break
        limit = p
    return limit


def _open(one: Finding) -> Finding:
    return one._replace(
        verdict="cannot tell", advice=f"p = {one.p:.2g} is no mark among so many checks: try more images"
    )

"""Intervals whose images share draws: coverage where it failed, and the laws of what is shared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from copula import given, population, records, truth
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from bench.votes import numbers
from bench.votes.intervals import of_difference, of_share
from bench.votes.numbers import Number, fold, given_clean, resubmission, values
from bench.votes.paired import Term, difference, interval, total
from bench.votes.sharing import Values, estimate, of_vote, shared
from bench.votes.stopping import decide
from bench.votes.votes import Votes, check

MILD = population(8.0, 2.0)


def simulated(n: int, seed: int = 0, *, models=(MILD,), **shape) -> list[Votes]:
    made = records(np.random.default_rng(seed), list(models), n, **shape)
    for votes in made:
        check(replace(votes, probs=np.eye(2, dtype=np.float16)[votes.soft]))
    return made


def test_simulated_records_have_the_truth_that_is_said_of_them() -> None:
    one, clean = simulated(200_000, models=(MILD, MILD + 1), shards=400, draws=8, correlation=0.1)
    for kind, wanted in zip(("expected", "vote", "soft"), truth(MILD, 8)[:3], strict=True):
        assert number(fold(one, kind)).value == pytest.approx(wanted, abs=0.004)
    for kind, wanted in zip(("expected", "vote"), given(MILD, MILD + 1, 8, 0.1), strict=True):
        assert number(given_clean(one, clean, kind)).value == pytest.approx(wanted, abs=0.004)
    for times, wanted in ((2, truth(MILD, 8).twice), (8, truth(MILD, 8).eight)):
        assert number(resubmission(one, times)).value == pytest.approx(wanted, abs=0.006)


def number(found) -> Number:
    assert isinstance(found, Number)
    return found


@pytest.mark.parametrize(("draws", "shards"), [(8, 2), (512, 1), (1, 20)])
def test_intervals_cover_where_shards_share_their_draws(draws: int, shards: int) -> None:
    """As if images were independent the vote's would cover 60 %, the resubmission's 70 %, the claim's 90 %."""
    rng, n, repeats, correlation = np.random.default_rng(3), 900, 160, 0.1
    models = [MILD, MILD + 0.25, MILD + 1]
    one, other = truth(MILD, draws), truth(MILD + 0.25, draws)
    wanted = {
        "vote": one.vote, "soft": one.soft, "twice": one.twice, "given": given(MILD, MILD + 1, draws, correlation)[1],
        "pair": one.vote - other.vote, "claim": one.vote - 0.5 * other.vote - 0.5 * other.expected,
    }  # fmt: skip
    hits = dict.fromkeys(wanted, 0)
    for _ in range(repeats):
        a, b, clean = records(rng, models, n, shards=shards, draws=draws, correlation=correlation)
        claim = total([Term(1.0, a, "vote"), Term(-0.5, b, "vote"), Term(-0.5, b, "expected")])
        assert claim is not None
        found = {
            "vote": fold(a, "vote"), "soft": fold(a, "soft"), "twice": resubmission(a, 2),
            "given": given_clean(a, clean, "vote"), "pair": difference(a, b, "vote"), "claim": interval(claim),
        }  # fmt: skip
        for kind, got in found.items():
            hits[kind] += (draws == 1 and kind == "twice") or got.low <= wanted[kind] <= got.high
    # 95 % less three standard errors of 160 benchmarks
    assert all(covered / repeats >= 0.897 for covered in hits.values()), hits


def test_one_draw_of_one_shard_says_nothing() -> None:
    one, other = simulated(200, models=(MILD, MILD), shards=1, draws=1, correlation=0.1)
    for kind in ("vote", "soft", "expected"):
        assert number(fold(one, kind))[1:3] == (0.0, 1.0)
    assert number(given_clean(one, other, "vote"))[1:3] == (0.0, 1.0)
    gap = difference(one, other, "vote")
    assert gap is not None and gap[1:] == (-1.0, 1.0, 1.0)


def test_without_winners_the_spread_between_shards_is_all_there_is() -> None:
    (votes,) = simulated(600, shards=3, draws=16, correlation=0.05)
    known, unknown = number(fold(votes, "vote")), number(fold(replace(votes, winners=None), "vote"))
    assert known.value == unknown.value and unknown.half > 2 * known.half
    (alone,) = simulated(600, shards=1, draws=16, correlation=0.05)
    assert number(fold(replace(alone, winners=None), "vote"))[1:3] == (0.0, 1.0)


def test_more_sharing_is_a_wider_interval() -> None:
    halves = [
        np.mean([number(fold(simulated(1000, seed, shards=2, draws=8, correlation=c)[0], "vote")).half
                 for seed in range(30)])
        for c in (0.0, 0.05, 0.2)
    ]  # fmt: skip
    assert halves[0] < halves[1] < halves[2]


@settings(max_examples=40, deadline=None)
@for_all(st.integers(0, 10**6), st.floats(-5, 5))
def test_what_is_the_same_in_every_draw_is_not_shared(seed: int, constant: float) -> None:
    rng = np.random.default_rng(seed)
    moves, shards = rng.normal(size=(40, 6)), rng.integers(0, 3, 40)
    moved = shared(moves + constant * rng.normal(size=(40, 1)), shards)
    assert moved == pytest.approx(shared(moves, shards), abs=1e-8)
    order = rng.permutation(40)
    assert shared(moves[order], shards[order]) == pytest.approx(shared(moves, shards))


def test_a_unanimous_vote_is_not_moved() -> None:
    winners = np.tile(np.array([[3], [1]]), (1, 16))
    counts = np.zeros((2, 5), np.uint16)
    counts[[0, 1], [3, 1]] = (512, 40)  # the second stopped early
    assert np.ptp(of_vote(counts, np.array([3, 2]), winners), axis=1).tolist() == [0, 0]


def test_votes_that_stop_early_tell_as_much_of_what_is_shared() -> None:
    """Images that stop are decided: what sharing does to a vote is done by those that go on."""
    rng, draws, n = np.random.default_rng(0), 64, 1000
    shard, labels, found = np.arange(n) // 500, np.ones(n, int), []
    for _ in range(12):
        level = rng.integers(0, len(MILD), n)
        z = rng.standard_normal((n, draws)) + 0.25 * rng.standard_normal((2, draws))[shard]
        right = (z + population(1.5, 1.0)[level][:, None] > 0).astype(int)
        every = right.cumsum(1)
        counts, going = np.stack([draws - every[:, -1], every[:, -1]], 1), np.ones(n, bool)
        whole = counts.copy()
        for drawn in range(16, draws, 4):
            now = np.stack([drawn - every[:, drawn - 1], every[:, drawn - 1]], 1)
            ends = decide(now, drawn, draws).decided & going
            counts[ends], going = now[ends], going & ~ends
        assert counts.sum() < 0.7 * whole.sum()
        found.append([shared(of_vote(votes, labels, right[:, :16]), shard).variance for votes in (whole, counts)])
    assert np.mean(found, 0)[1] == pytest.approx(np.mean(found, 0)[0], rel=0.15)


def test_a_number_less_itself_has_nothing_shared() -> None:
    (votes,) = simulated(400, shards=2, draws=8, correlation=0.2)
    found = total([Term(1.0, votes, "vote"), Term(-1.0, votes, "vote")])
    assert found is not None and found.shared == 0 and interval(found).p == 1


def test_fixed_numbers_are_known_as_images_tell() -> None:
    each = np.random.default_rng(0).random(50)
    part = Values(each, 0, None, np.zeros(50, int))
    assert estimate(each, [(1.0, part)])[1:3] == pytest.approx((each.var(ddof=1) / 50, 49))
    assert of_difference(estimate(each - 0.5, [(1.0, part)])).low < 0 < of_share(estimate(each, [(1.0, part)]), 50).low


def first(votes: Votes, draws: int) -> Votes:
    """The record that the first draws alone would have left."""
    winners = votes.winners[:, :draws]
    counts = np.eye(2, dtype=np.uint16)[winners].sum(1).astype(np.uint16)
    return replace(votes, winners=winners, counts=counts, prefix=counts, draw_right=votes.draw_right[:, :draws])


def test_records_of_different_numbers_of_draws_meet_the_same_noise_as_far_as_both_go() -> None:
    """The variance of a difference of expected accuracies of 4 and 16 draws is what the simulation has."""
    gaps, estimates, apart = [], [], []
    for seed in range(300):
        one, other = simulated(300, seed, models=(MILD, MILD + 0.25), shards=1, draws=16, correlation=0.3)
        found = total([Term(1.0, first(one, 4), "expected"), Term(-1.0, other, "expected")])
        elsewhere = replace(other, shard=other.shard + (np.arange(300) > 150).astype(np.int32),
                            draw_right=np.repeat(other.draw_right, 2, 0))  # fmt: skip
        unlike = total([Term(1.0, first(one, 4), "expected"), Term(-1.0, elsewhere, "expected")])
        assert found is not None and unlike is not None
        gaps.append(found.found.value)
        estimates.append(found.found.variance)
        apart.append(unlike.found.variance)
    assert np.mean(estimates) == pytest.approx(np.var(gaps), rel=0.25)
    assert np.mean(apart) > np.mean(estimates)  # what draws of other shards share is not known: the most it could be


def test_the_same_noise_does_not_make_the_accuracy_given_clean_larger() -> None:
    """A record given itself is sum(p^2) / sum(p): the square of the mean of 4 draws would be p (1 - p) / 4 above it."""
    (votes,) = simulated(40_000, shards=80, draws=4, correlation=0.0)
    p = truth(MILD, 4)
    got = number(given_clean(votes, votes, "expected"))
    assert got.value == pytest.approx(p.twice / p.expected, abs=0.004)
    assert numbers.correct(votes, "expected").var() > 0 and values(votes, "expected").draws == 4

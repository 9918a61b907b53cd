"""Numbers from votes whose probabilities are known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_votes import labels_of, votes_from

from bench.votes import numbers
from bench.votes.numbers import Bounds, Missing, Number, fold
from bench.votes.votes import Votes, check

N = 400


def chances(right, n=N):
    """P(class) with probability `right` (n,) on the label and the rest on the next class."""
    right = np.broadcast_to(np.asarray(right, float), n)
    table = np.zeros((n, 10))
    labels = labels_of(np.arange(n))
    table[np.arange(n), labels] = right
    table[np.arange(n), (labels + 1) % 10] = 1 - right
    return table


def made(right, draws=16, seed=0, n=N, **options) -> Votes:
    votes = votes_from(chances(right, n), np.arange(n), draws, seed, **options)
    check(votes)
    return votes


def number(found) -> Number:
    assert isinstance(found, Number)
    return found


def test_expected_accuracy_is_the_mean_probability_and_its_interval_covers_it():
    right = np.random.default_rng(1).beta(2, 1, N)
    inside = 0
    for seed in range(60):
        votes = made(right, 16, seed)
        got = number(fold(votes, "expected"))
        assert got.value == pytest.approx(votes.draw_right.sum() / (16 * N))
        inside += got.low <= right.mean() <= got.high
    assert inside == 60  # of these very images, whose mean varies less than another sample's would


def test_the_vote_amplifies_and_the_expected_accuracy_does_not():
    votes = made(0.7, draws=101)
    assert number(fold(votes, "vote")).value > 0.999
    assert number(fold(votes, "expected")).value == pytest.approx(0.7, abs=0.02)


def test_ties_go_to_the_lowest_class():
    votes = made(0.5, draws=2, n=50)
    split = votes.counts.max(1) == 1
    assert numbers.tied(votes) == split.sum() > 5
    lowest = (votes.counts > 0).argmax(1)
    assert (numbers.predicted(votes, "vote")[split] == lowest[split]).all()


def test_soft_and_vote_are_different_rules():
    votes = made(1.0, n=3, draws=4)
    probs = np.zeros((3, 10), np.float16)
    probs[:, 9] = 1
    other = replace(votes, probs=probs, soft=np.full(3, 9, np.uint16))
    assert number(fold(other, "vote")).value == 1
    assert number(fold(other, "soft")).value == (labels_of(np.arange(3)) == 9).mean() == 0


def test_a_number_that_has_no_meaning_is_missing_and_not_zero():
    assert isinstance(fold(made(0.8), "claimed"), Missing)
    assert isinstance(fold(made(0.8), "accuracy"), Missing)
    assert isinstance(numbers.resubmission(made(0.8), 17), Missing)
    assert isinstance(numbers.given_clean(made(0.8), made(0.0, draws=1), "expected"), Missing)
    with pytest.raises(ValueError, match="robustness"):
        fold(made(1.0, draws=1), "robustness")


def test_claimed_is_the_share_the_attack_left_standing():
    votes = made(0.5, claimed=0)
    votes = replace(votes, claimed=np.where(np.arange(N) < 100, 1, 0).astype(np.int8))
    assert number(fold(votes, "claimed")).value == 0.75


def test_infinite_vote_brackets_the_truth_and_counts_what_is_open():
    right = np.random.default_rng(2).uniform(0.2, 1, N)
    truth = (right > 0.5).mean()
    few, many = (numbers.infinite(made(right, draws)) for draws in (24, 256))
    for found in (few, many):
        assert found.low <= found.sure <= truth <= found.sure + found.undecided <= found.high
    assert many.undecided < few.undecided
    certain = numbers.infinite(made((right > 0.5).astype(float), draws=18))
    assert isinstance(certain, Bounds) and certain.undecided == 0 and certain.sure == truth


@pytest.mark.parametrize("draws", [1, 17])
def test_too_few_draws_settle_nothing_and_are_no_number(draws):
    """One draw of a stochastic model decides nothing, and "0 to 100" is a dash with its reason."""
    found = numbers.infinite(made(1.0, draws=draws))
    assert isinstance(found, Missing) and f"{draws} draws" in found.reason and "infinite" not in found.reason.split()
    stopped = numbers.infinite(replace(made(1.0, draws=draws), rule="vote"))
    assert isinstance(stopped, Missing) and "infinite = true goes on" in stopped.reason


def test_a_bound_of_almost_everything_is_no_number():
    """The rule ended the draws of 98 images at 16, of two at 32: "0 to 99 %" was printed."""
    few, more = made(1.0, draws=16, n=100), made(1.0, draws=32, n=100)
    counts = np.where((np.arange(100) < 2)[:, None], more.counts, few.counts)
    found = numbers.infinite(replace(few, rule="vote", counts=counts))
    stopped = replace(few, rule="vote", counts=counts)
    assert isinstance(found, Missing) and "only 2 % of the images'" in found.reason
    assert numbers.undecided(stopped) == pytest.approx(0.98)
    counts = np.where((np.arange(100) < 20)[:, None], more.counts, few.counts)
    assert isinstance(numbers.infinite(replace(few, rule="vote", counts=counts)), Bounds)


def test_the_other_rule_has_no_number_where_draws_were_stopped():
    votes = made(0.9, draws=16)
    for rule, other in (("vote", "soft"), ("soft", "vote")):
        stopped = replace(votes, rule=rule, counts=votes.counts + (np.arange(N) % 2)[:, None].astype(np.uint16))
        assert isinstance(fold(stopped, rule), Number)
        found = fold(stopped, other)
        assert isinstance(found, Missing) and rule in found.reason
        assert isinstance(fold(replace(votes, rule=rule), other), Number)  # no image was stopped early


def test_the_soft_winner_is_the_one_before_rounding():
    """Two mean probabilities that float16 makes equal: the larger wins, not the lower class."""
    votes = made(1.0, n=3, draws=4)
    exact = np.full((3, 10), 0.01)
    exact[:, 2], exact[:, 7] = 0.45999, 0.46001
    rounded = exact.astype(np.float16)
    assert (rounded[:, 2] == rounded[:, 7]).all()
    tied = replace(votes, probs=rounded, soft=exact.argmax(1).astype(np.uint16))
    check(tied)
    assert (numbers.predicted(tied, "soft") == 7).all()
    with pytest.raises(ValueError, match="soft winner"):
        check(replace(tied, soft=np.zeros(3, np.uint16)))


def test_expected_accuracy_takes_all_draws_of_a_fixed_number():
    few, many = (number(fold(made(0.5, draws), "expected")) for draws in (16, 256))
    assert many.half < few.half

@pytest.mark.parametrize("times", [1, 3, 8])
def test_resubmission_is_unbiased(times):
    right = np.random.default_rng(3).beta(3, 1, N)
    values = [number(numbers.resubmission(made(right, 16, seed), times)).value for seed in range(40)]
    error = np.std(values) / np.sqrt(40)
    assert np.mean(values) == pytest.approx((right**times).mean(), abs=4 * error)


def test_one_submission_is_the_expected_accuracy():
    votes = made(0.6)
    assert number(numbers.resubmission(votes, 1)).value == pytest.approx(number(fold(votes, "expected")).value)


def shuffled(votes: Votes, order) -> Votes:
    """The same images in another order, as one shard."""
    names = ("index", "labels", "counts", "probs", "soft", "prefix", "settled", "linf", "claimed", "winners")
    return replace(votes, **{name: getattr(votes, name)[order] for name in names})


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["vote", "soft", "expected"]))
def test_the_order_of_images_cannot_matter(seed, kind):
    votes = made(np.linspace(0, 1, 60), n=60)
    other = shuffled(votes, np.random.default_rng(seed).permutation(60))
    assert number(fold(votes, kind))[:4] == pytest.approx(number(fold(other, kind))[:4])
    a, b = numbers.rows(votes, other)
    assert (votes.index[a] == other.index[b]).all()
    assert (numbers.correct(votes, kind)[a] == numbers.correct(other, kind)[b]).all()


def test_pairing_takes_the_images_that_all_records_hold():
    votes = made(0.5, n=60)
    some = shuffled(votes, np.array([59, 3, 7]))
    a, b = numbers.rows(votes, some)
    assert votes.index[a].tolist() == some.index[b].tolist() == [3, 7, 59]
    wrong = replace(some, labels=(some.labels + 1) % 10)
    with pytest.raises(ValueError, match="different labels"):
        numbers.rows(votes, wrong)


def test_the_worst_attack_is_chosen_image_by_image():
    half = (np.arange(N) < N / 2).astype(float)
    assert number(numbers.worst([made(half, 1), made(1 - half, 1)], "accuracy")).value == 0
    assert number(numbers.worst([made(half, 1), made(1.0, 1)], "accuracy")).value == 0.5


def test_the_worst_of_draws_that_report_is_biased_low():
    """Three attacks without any effect, 20 draws each: the minimum over them invents nine points."""
    n, draws = 4000, 20
    rng = np.random.default_rng(5)
    table = rng.binomial(draws, 0.5, (3, n)).min(0).mean() / draws
    several = [made(0.5, 16, seed, n=n) for seed in range(3)]
    got = number(numbers.worst(several, "expected"))
    assert 0.5 - got.value == pytest.approx(0.846 * np.sqrt(0.25 / 16), abs=0.01)  # E max of 3 normals
    assert 0.5 - table == pytest.approx(0.094, abs=0.01)


def test_accuracy_given_that_the_clean_image_is_right():
    clean, attacked = np.arange(N) % 4 != 0, np.arange(N) % 2 == 0
    got = number(numbers.given_clean(made(attacked.astype(float), 1), made(clean.astype(float), 1), "accuracy"))
    assert (got.value, got.n) == ((clean & attacked).sum() / clean.sum(), clean.sum())


def test_expected_accuracy_given_clean_weighs_by_the_clean_probability():
    p, q = np.random.default_rng(7).uniform(0.3, 1, (2, N))
    got = number(numbers.given_clean(made(q, seed=1), made(p, seed=2), "expected"))
    assert got.low < (p * q).sum() / p.sum() < got.high
    assert got.value == pytest.approx((p * q).sum() / p.sum(), abs=0.02)

"""The audit: honest records pass, doctored ones do not, at the image counts that were promised."""

from dataclasses import replace

import numpy as np
import pytest
from made_votes import chances_of, labels_of, pinned, votes_from

from bench import UserError
from bench.recipes import Clean
from bench.report import audit, compare
from bench.report.audit import verify
from bench.report.sampling import Sample, caught, sample
from bench.store.tasks import images_in
from bench.suite.schema import Row
from bench.votes.votes import Votes, check, concatenate


def sized(suite, table, targets, images, shard=500):
    """The suite with one table of these targets, on so many images."""
    made = suite.tables[table].model_copy(update={"rows": tuple(Row(target=name) for name in targets), "paper": ()})
    data = suite.datasets["test"].model_copy(update={"stop": images})
    protocol = suite.protocol.model_copy(update={"shard": shard})
    return suite._replace(tables={table: made}, datasets=suite.datasets | {"test": data}, protocol=protocol)


@pytest.fixture(scope="module")
def paper():
    return pinned("quick")


def deterministic(outcomes, rows, jitter, seed, accuracy=0.8) -> Votes:
    """The votes of a linear classifier on Gaussian features, its logits off by `jitter` as on another machine.

    An attack's random starts are part of `seed`: they move each image's features a little.
    """
    rng = np.random.default_rng(1)
    n = images_in(outcomes)
    labels = labels_of(np.arange(n))
    logits = 2.0 * rng.normal(size=(n, 10))
    logits[np.arange(n), labels] += 6.0 * accuracy
    other = np.random.default_rng([seed, 9])
    if not isinstance(outcomes.examples.attack, Clean):
        logits = logits + other.normal(0, 0.3, logits.shape)
    logits = (logits + other.normal(0, jitter, logits.shape))[rows]
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    counts = np.eye(10, dtype=np.uint16)[logits.argmax(1)]
    right = (logits.argmax(1) == labels[rows]).astype(np.int32)
    shard = (rows // outcomes.examples.shard).astype(np.int32)
    sums = np.bincount(np.unique(shard, return_inverse=True)[1], right).astype(np.int32)[:, None]
    none, linf = -1 if isinstance(outcomes.examples.attack, Clean) else 0, np.zeros(len(rows), np.float32)
    votes = Votes(
        rows.astype(np.int64), labels[rows], counts, probs.astype(np.float16), probs.argmax(1).astype(np.uint16),
        counts, np.ones(len(rows), np.uint16), linf, np.full(len(rows), none, np.int8), shard, sums,
    )  # fmt: skip
    check(votes)
    return votes


def random(outcomes, rows, seed, accuracy=0.7, shared=0.0) -> Votes:
    """The votes of a randomised classifier on these rows, draws shared by the rows of a shard."""
    chances = chances_of(outcomes, accuracy)[rows]
    shard = rows // outcomes.examples.shard
    parts = []
    for s in np.unique(shard):
        at = shard == s
        claimed = -1 if isinstance(outcomes.examples.attack, Clean) else 0
        part = votes_from(chances[at], rows[at], outcomes.draws, seed * 1000 + int(s), len(rows), claimed, shared)
        parts.append(replace(part, shard=np.full(at.sum(), s, np.int32)))
    votes = concatenate(parts)
    check(votes)
    return votes


def whole(outcomes):
    return np.arange(images_in(outcomes))


def doctored(votes: Votes, share: float) -> Votes:
    """Random images made right in every draw until accuracy is up by `share`, all sums made to agree."""
    n = len(votes.labels)
    wrong = np.flatnonzero(votes.counts.argmax(1) != votes.labels)
    fields = {name: getattr(votes, name).copy() for name in ("counts", "probs", "soft", "prefix", "draw_right")}
    known = None if votes.winners is None else votes.winners.copy()
    left = round(share * n * votes.prefix_draws)
    for i in np.random.default_rng(3).permutation(wrong):
        label = votes.labels[i]
        gained = votes.prefix_draws - int(fields["prefix"][i, label])
        left -= gained
        if left < 0:
            break
        for name in ("counts", "probs", "prefix"):
            total = fields[name][i].sum()
            fields[name][i] = 0
            fields[name][i, label] = total
        fields["soft"][i] = label
        row = fields["draw_right"][np.flatnonzero(np.unique(votes.shard) == votes.shard[i])[0]]
        if known is not None:
            wrong_draws = known[i] != label
            row[: len(wrong_draws)] += wrong_draws
            gained, known[i] = gained - wrong_draws.sum(), label
        rest = row[0 if known is None else known.shape[1] :]
        for _ in range(gained):
            rest[rest.argmin()] += 1
    lie = replace(votes, **fields, winners=known)
    check(lie)
    return lie


def nudged(votes: Votes, share: float) -> Votes:
    """This share of each image's draws made right, as far as it has so many wrong ones; all sums made to agree."""
    counts, right = votes.counts.copy(), votes.draw_right.copy()
    for i, label in enumerate(votes.labels):
        other = np.where(np.arange(counts.shape[1]) == label, -1, counts[i].astype(int)).argmax()
        few = min(int(share * votes.prefix_draws), int(counts[i, other]))
        counts[i, other] -= few
        counts[i, label] += few
        for _ in range(few):
            right[votes.shard[i], right[votes.shard[i]].argmin()] += 1
    lie = replace(votes, counts=counts, prefix=counts, draw_right=right, winners=None)
    check(lie)
    return lie


class Made:
    """A machine that makes votes by make(outcomes, rows, seed): seed 1 here, 2 otherwise; the record's own is 0.

    Of randomised targets it knows no more than that their draws are others.
    """

    def __init__(self, make, mode="other arithmetic"):
        self.make, self.how, self.asked = make, mode, []

    def mode(self, outcomes, record):
        return "other draws" if outcomes.target.stochastic and self.how == "other arithmetic" else self.how

    def originals(self, outcomes):
        return whole(outcomes), labels_of(whole(outcomes))

    def votes(self, outcomes, chosen, record, other=""):
        self.asked.append((other, chosen))
        return self.make(outcomes, chosen, (2 if other else 1) if self.how != "as recorded" else 0)

    def whole(self, outcomes, numbers, record):
        rows = whole(outcomes)
        return self.make(outcomes, rows[np.isin(rows // outcomes.examples.shard, numbers)], 0)


def about(outcomes):
    return {"provenance": {"precision": "float32"}}


def audited(suite, records, make, images=64, mode="other arithmetic", seed=0):
    return verify(suite, records, about, Made(make, mode), images, seed=seed)


def plain(outcomes, rows, seed):
    return deterministic(outcomes, rows, 1e-3 if seed else 0, seed)


def test_one_point_on_ten_thousand_clean_images_is_caught(paper):
    suite = sized(paper, "table1", ["kd-vote"], 10_000)
    (cell,) = suite.cells()
    votes = plain(cell.outcomes, whole(cell.outcomes), 0)
    (honest,) = audited(suite, lambda outcomes: votes, plain, None)
    assert (honest.verdict, honest.images, honest.p) == ("consistent", 10_000, None)
    lie = doctored(votes, 0.01)
    (found,) = audited(suite, lambda outcomes: lie, plain, None)
    assert found.verdict == "inconsistent" and int(found.detail.split()[0]) > 95


def test_one_point_is_caught_where_the_attack_had_to_be_made_anew(paper):
    suite = sized(paper, "table2", ["kd-at-vote"], 10_000)
    attacked = next(cell.outcomes for cell in suite.cells() if cell.attack == "pgd10")
    make = lambda outcomes, rows, seed: deterministic(outcomes, rows, 1e-3 if seed else 0, seed, 0.5)  # noqa: E731
    made = {cell.outcomes: make(cell.outcomes, whole(cell.outcomes), 0) for cell in suite.cells()}
    assert {row.verdict for row in audited(suite, made.get, make, None)} == {"consistent"}
    made[attacked] = doctored(made[attacked], 0.01)
    verdicts = {row.key: row for row in audited(suite, made.get, make, None)}
    assert verdicts[attacked.key].verdict == "inconsistent" and verdicts[attacked.key].p < audit.ALPHA


@pytest.mark.parametrize(("target", "shared"), [("cni", 0.05), ("smoothed-vote", 0.0), ("kd-vote", None)])
def test_ten_points_are_caught_by_256_images(paper, target, shared):
    suite = sized(paper, "table1", [target], 2_000)
    (cell,) = suite.cells()

    def make(outcomes, rows, seed):
        return plain(outcomes, rows, seed) if shared is None else random(outcomes, rows, seed, 0.7, shared)

    votes = make(cell.outcomes, whole(cell.outcomes), 0)
    mode = "other arithmetic" if shared is None else "other draws"
    for seed in range(3):
        (honest,) = audited(suite, lambda outcomes: votes, make, 256, mode, seed)
        lie = doctored(votes, 0.1)
        (found,) = audited(suite, lambda outcomes, lie=lie: lie, make, 256, mode, seed)
        assert (honest.verdict, found.verdict, found.images) == ("consistent", "inconsistent", 256)


def test_one_point_of_a_randomised_model_is_caught_by_a_full_verify(paper):
    suite = sized(pinned("full"), "table1", ["cni"], 10_000)
    (cell,) = suite.cells()
    make = lambda outcomes, rows, seed: random(outcomes, rows, seed, shared=0.03)  # noqa: E731
    votes = make(cell.outcomes, whole(cell.outcomes), 0)
    assert audited(suite, lambda outcomes: votes, make, None, "other draws")[0].verdict == "consistent"
    lie = doctored(votes, 0.01)
    assert audited(suite, lambda outcomes: lie, make, None, "other draws")[0].verdict == "inconsistent"


@pytest.mark.parametrize("mode", ["other arithmetic", "other draws"])
def test_ten_honest_suites_pass(paper, mode):
    """Every cell of three tables, ten times over, with draws that a shard shares."""
    for seed in range(10):
        kept = {}

        def make(outcomes, rows, way, seed=seed):
            if outcomes.target.stochastic:
                return random(outcomes, rows, 3 * seed + way, 0.6, 0.05)
            return deterministic(outcomes, rows, 1e-3 if way else 0, 3 * seed + way)

        def lookup(outcomes, kept=kept, make=make):
            if outcomes not in kept:
                kept[outcomes] = make(outcomes, whole(outcomes), 0)
            return kept[outcomes]

        found = audited(paper, lookup, make, 64, mode, seed)
        assert len(found) >= 10 and {row.verdict for row in found} == {"consistent"}
        assert all(row.images == 64 and len(set(row.cells)) == len(row.cells) for row in found)


def test_the_error_level_is_what_it_says(paper):
    """Of honest records, p under 5 % in about 5 % or fewer, although each draw moves a whole shard."""
    suite = sized(paper, "table1", ["cni"], 200, shard=100)
    (cell,) = suite.cells()
    plan, low = sample(cell.outcomes, 200, None, 0), 0
    for seed in range(150):
        make = lambda o, rows, way, s=seed: random(o, rows, 3 * s + way, shared=0.1)  # noqa: E731
        votes = make(cell.outcomes, whole(cell.outcomes), 0)
        low += audit.examine(cell.outcomes, votes, {}, Made(make, "other draws"), plan).p < 0.05
    assert low <= 14


def test_draws_that_no_arithmetic_moves_are_not_moved_unseen(paper):
    """A quarter of every image's draws made right, or all soft winners other ones, of a randomised model's clean
    images: elsewhere the noise is the same, so that each draw should say what it said."""

    class Same(Made):
        def mode(self, outcomes, record):
            return "other arithmetic"

    suite = sized(paper, "table1", ["cni"], 200, shard=100)
    (cell,) = suite.cells()
    votes = random(cell.outcomes, whole(cell.outcomes), 7, 0.5)
    make = lambda outcomes, rows, way: audit.of(votes, rows)  # noqa: E731

    def said(record, images=64):
        return verify(suite, lambda outcomes: record, about, Same(make), images, seed=0)[0]

    raised, rows = nudged(votes, 1 / 4), np.arange(200)
    gained = raised.prefix[rows, votes.labels].mean() - votes.prefix[rows, votes.labels].mean()
    assert gained / votes.prefix_draws > 0.1
    for lie in (raised, replace(votes, probs=votes.probs[:, ::-1].copy(), soft=9 - votes.soft)):
        assert said(lie).verdict == "inconsistent"
    assert said(votes).verdict == "consistent" and said(votes, None).power[0] < 1, "two images of 200 are not seen"


# -- the sample, and its power ---------------------------------------------------------------------


def test_the_sample_is_the_auditors_and_differs_by_record(paper):
    one, other = (cell.outcomes for cell in sized(paper, "table1", ["kd-vote", "kd-soft"], 1000).cells())
    first = sample(one, 1000, 64, 7).rows
    assert len(set(first)) == 64 and (np.diff(first) > 0).all()
    assert (sample(one, 1000, 64, 7).rows == first).all()
    assert set(sample(one, 1000, 64, 8).rows) != set(first) != set(sample(other, 1000, 64, 7).rows)


def test_rows_come_from_all_shards_where_images_stand_alone_and_from_two_or_more_where_they_share_draws(paper):
    (alone,), (voted,) = (
        [cell.outcomes for cell in sized(paper, "table1", [name], 10_000).cells()] for name in ("kd-vote", "cni")
    )
    rows = sample(alone, 10_000, 512, 1).rows
    assert len(set(rows // 500)) == 20
    seen = set()
    for seed in range(40):
        plan = sample(voted, 10_000, 64, seed)
        of = set(plan.rows // 500)
        assert len(plan.rows) == 64 and len(of) == plan.chosen == 4
        assert len(set(sample(voted, 10_000, 8, seed).rows // 500)) >= 2
        seen |= of
    assert len(seen) == 20, "every shard has its turn"
    short = sample(voted, 1_010, 64, 3)
    assert len(set(short.rows)) == 64 and short.rows.max() < 1_010


@pytest.mark.parametrize("chosen", [None, 2, 4])
def test_the_power_told_is_that_of_the_worst_placement(chosen):
    """Against trials: changes spread evenly, or all in the fewest shards; the told figure is the lower of the two."""
    rng = np.random.default_rng(0)
    images, size, changed, wanted = 2_000, 100, 100, 64
    plan = Sample(np.arange(wanted), images, size, chosen)

    def trial(placed):
        if chosen is None:
            return rng.choice(images, wanted, replace=False)
        shards = rng.choice(images // size, chosen, replace=False)
        return np.concatenate([s * size + rng.choice(size, wanted // chosen, replace=False) for s in shards])

    for least in (1, 3):
        found = []
        for placed in (np.arange(changed), np.arange(changed) * (images // changed)):
            found.append(np.mean([np.isin(trial(placed), placed).sum() >= least for _ in range(3_000)]))
        assert caught(plan, changed, least) == pytest.approx(min(found), abs=0.03)


# -- what is compared ------------------------------------------------------------------------------


def test_what_contradicts_itself_or_the_dataset_is_inconsistent(paper):
    suite = sized(paper, "table2", ["kd-at-vote"], 500)
    made = {cell.outcomes: plain(cell.outcomes, whole(cell.outcomes), 0) for cell in suite.cells()}
    attacked = next(outcomes for outcomes in made if outcomes.examples.source is not None)
    votes = made[attacked]
    index = votes.index.copy()
    index[400] = 499_999  # one row of 500, which a sample of 8 mostly leaves out
    for change, word in (
        ({"labels": (votes.labels + 1) % 10, "draw_right": votes.draw_right * 0}, "contradicts itself"),
        ({"linf": np.full(500, 0.1, np.float32)}, "from its original"),
        ({"index": index}, "its data has"),
    ):
        lie = made | {attacked: replace(votes, **change)}
        row = next(row for row in audited(suite, lie.get, plain, 8) if row.key == attacked.key)
        assert row.verdict == "inconsistent" and word in row.detail


def test_images_too_close_to_call_are_no_breach(paper):
    suite = sized(paper, "table1", ["kd-vote"], 5_000)
    (cell,) = suite.cells()
    votes, here, other = (deterministic(cell.outcomes, whole(cell.outcomes), 0.01, seed) for seed in (0, 1, 2))
    assert (votes.counts != here.counts).any(1).sum() > 0
    assert not compare.impossible(votes, here, other, True).any()


def test_the_yardstick_leaves_room_for_a_machine_less_alike():
    """Twice as many differences as here are no breach; a rate that two arithmetics here do not know is."""
    assert compare.excess(20, 10, 256) > 0.3 and compare.excess(0, 0, 64) == 1.0
    assert compare.needed(0, 64, 1e-3) == 8 and compare.needed(0, 10_000, 1e-3) == 9
    assert compare.excess(compare.needed(10, 256, 1e-4), 10, 256) < 1e-4
    assert compare.needed_to_raise(0, 64, 1e-3) == 11 and compare.needed_to_raise(400, 10_000, 1e-3) < 100


def test_where_bits_are_to_be_had_again_one_image_is_enough(paper):
    suite = sized(paper, "table1", ["cni"], 400, shard=100)
    (cell,) = suite.cells()
    make = lambda outcomes, rows, seed: random(outcomes, whole(outcomes), 7, shared=0.05)  # noqa: E731

    class Bits(Made):
        def votes(self, outcomes, chosen, record, other=""):
            return audit.of(make(outcomes, None, 0), chosen)

        def whole(self, outcomes, numbers, record):
            all_ = make(outcomes, None, 0)
            some = audit.of(all_, np.flatnonzero(np.isin(all_.shard, numbers)))
            return replace(some, draw_right=all_.draw_right[numbers])

    votes = make(cell.outcomes, None, 0)
    machine = Bits(make, "as recorded")
    (honest,) = verify(suite, lambda o: votes, about, machine, None, seed=0)
    assert honest.verdict == "consistent" and honest.mode == "as recorded" and honest.power == (1.0,) * 4
    probs = votes.probs.copy()
    probs[250], soft = probs[250][::-1], votes.soft.copy()
    soft[250] = 9 - soft[250]
    (found,) = verify(suite, lambda o: replace(votes, probs=probs, soft=soft), about, machine, None, seed=0)
    assert found.verdict == "inconsistent" and "soft winner of 1" in found.detail


def test_what_cannot_be_recomputed_is_said(paper):
    suite = sized(paper, "table1", ["kd-vote", "kd-soft"], 500)
    first, second = (cell.outcomes for cell in suite.cells())

    def refuse(outcomes, rows, seed):
        raise UserError("the weights", "are not there")

    rows = audited(suite, {first: plain(first, whole(first), 0)}.get, refuse)
    assert [row.verdict for row in rows] == ["cannot be checked here"] * 2
    assert "weights" in rows[0].detail and "no whole record" in rows[1].detail and second.key == rows[1].key
    lines = audit.markdown(rows).strip().splitlines()
    assert len({line.count("|") for line in lines}) == 1

"""The audit: honest records pass, doctored ones do not, at the image counts that were promised."""

from dataclasses import replace

import numpy as np
import pytest
from made_votes import chances_of, labels_of, pinned, votes_from

from bench import UserError
from bench.recipes import Clean
from bench.report import audit
from bench.report.audit import verify
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
    other = np.random.default_rng(seed)
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
        part = votes_from(chances[at], rows[at], outcomes.draws, seed * 1000 + int(s), len(rows), shared=shared)
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


def test_one_point_on_ten_thousand_clean_images_is_caught(paper):
    suite = sized(paper, "table1", ["kd-vote"], 10_000)
    (cell,) = suite.cells()
    votes = deterministic(cell.outcomes, whole(cell.outcomes), 0, 0)
    again = lambda outcomes, rows: deterministic(outcomes, rows, 1e-3, 5)  # noqa: E731
    (honest,) = verify(suite, lambda outcomes: votes, again, images=None)
    assert (honest.verdict, honest.images, honest.p) == ("consistent", 10_000, None)
    lie = doctored(votes, 0.01)
    (caught,) = verify(suite, lambda outcomes: lie, again, images=None)
    assert caught.verdict == "inconsistent" and "100 of 10000" in caught.detail


def test_one_point_is_caught_where_the_attack_had_to_be_made_anew(paper):
    suite = sized(paper, "table2", ["kd-at-vote"], 10_000)
    attacked = next(cell.outcomes for cell in suite.cells() if cell.attack == "pgd10")
    made = {cell.outcomes: deterministic(cell.outcomes, whole(cell.outcomes), 0, 0, 0.5) for cell in suite.cells()}
    again = lambda outcomes, rows: deterministic(outcomes, rows, 1e-3, 5, 0.5)  # noqa: E731
    assert {row.verdict for row in verify(suite, made.get, again, images=None)} == {"consistent"}
    made[attacked] = doctored(made[attacked], 0.01)
    verdicts = {row.key: row for row in verify(suite, made.get, again, images=None)}
    assert verdicts[attacked.key].verdict == "inconsistent" and verdicts[attacked.key].p < audit.ALPHA


@pytest.mark.parametrize(("target", "shared"), [("cni", 0.05), ("smoothed-vote", 0.0), ("kd-vote", None)])
def test_ten_points_are_caught_by_256_images(paper, target, shared):
    suite = sized(paper, "table1", [target], 2_000)
    (cell,) = suite.cells()

    def make(outcomes, rows, seed):
        return (
            deterministic(outcomes, rows, 1e-3, seed) if shared is None else random(outcomes, rows, seed, 0.7, shared)
        )

    votes = make(cell.outcomes, whole(cell.outcomes), 1)
    for seed in range(3):
        (honest,) = verify(suite, lambda outcomes: votes, lambda o, rows: make(o, rows, 2), images=256, seed=seed)
        lie = doctored(votes, 0.1)
        (caught,) = verify(
            suite, lambda outcomes, lie=lie: lie, lambda o, rows: make(o, rows, 2), images=256, seed=seed
        )
        assert (honest.verdict, caught.verdict, caught.images) == ("consistent", "inconsistent", 256)


def test_one_point_of_a_randomised_model_is_caught_by_a_full_verify(paper):
    suite = sized(pinned("full"), "table1", ["cni"], 10_000)
    (cell,) = suite.cells()
    votes = random(cell.outcomes, whole(cell.outcomes), 1, shared=0.03)
    again = lambda outcomes, rows: random(outcomes, rows, 2, shared=0.03)  # noqa: E731
    assert verify(suite, lambda outcomes: votes, again, images=None)[0].verdict == "consistent"
    lie = doctored(votes, 0.01)
    assert verify(suite, lambda outcomes: lie, again, images=None)[0].verdict == "inconsistent"


def test_ten_honest_suites_pass(paper):
    """Every cell of three tables, ten times over, with draws that a shard shares."""
    for seed in range(10):
        kept = {}

        def make(outcomes, rows, seed):
            if outcomes.target.stochastic:
                return random(outcomes, rows, seed, 0.6, 0.05)
            return deterministic(outcomes, rows, 1e-3, seed)

        def lookup(outcomes, seed=seed, kept=kept):
            if outcomes not in kept:
                kept[outcomes] = make(outcomes, whole(outcomes), seed)
            return kept[outcomes]

        audited = verify(paper, lookup, lambda o, rows, seed=seed: make(o, rows, seed + 100), images=64, seed=seed)
        assert len(audited) >= 10 and {row.verdict for row in audited} == {"consistent"}
        assert all(row.images == 64 and len(set(row.cells)) == len(row.cells) for row in audited)


def test_the_error_level_is_what_it_says(paper):
    """Of honest records, p under 5 % in about 5 % or fewer, although each draw moves a whole shard."""
    suite = sized(paper, "table1", ["cni"], 200, shard=100)
    (cell,) = suite.cells()
    low = 0
    for seed in range(200):
        votes = random(cell.outcomes, whole(cell.outcomes), 2 * seed, shared=0.1)
        found = audit.examine(
            cell.outcomes, votes, lambda o, rows, s=seed: random(o, rows, 2 * s + 1, shared=0.1), np.arange(200)
        )
        low += found.p < 0.05
    assert low <= 18


def test_the_sample_is_the_auditors_and_differs_by_record(paper):
    cells = list(sized(paper, "table1", ["kd-vote", "kd-soft"], 1000).cells())
    votes = deterministic(cells[0].outcomes, whole(cells[0].outcomes), 0, 0)
    first = audit.sample(cells[0].outcomes, votes, 64, 7)
    assert len(set(first)) == 64 and (np.diff(first) > 0).all()
    assert (audit.sample(cells[0].outcomes, votes, 64, 7) == first).all()
    assert set(audit.sample(cells[0].outcomes, votes, 64, 8)) != set(first)
    assert set(audit.sample(cells[1].outcomes, votes, 64, 7)) != set(first)


def test_what_contradicts_itself_or_the_dataset_is_inconsistent(paper):
    suite = sized(paper, "table2", ["kd-at-vote"], 500)
    made = {cell.outcomes: deterministic(cell.outcomes, whole(cell.outcomes), 0, 0) for cell in suite.cells()}
    again = lambda outcomes, rows: deterministic(outcomes, rows, 1e-4, 5)  # noqa: E731
    attacked = next(outcomes for outcomes in made if outcomes.examples.source is not None)
    votes = made[attacked]
    for change, word in (
        ({"labels": (votes.labels + 1) % 10, "draw_right": votes.draw_right * 0}, "contradicts itself"),
        ({"linf": np.full(500, 0.1, np.float32)}, "from its original"),
        ({"index": votes.index + 1}, "of the dataset"),
    ):
        lie = made | {attacked: replace(votes, **change)}
        row = next(row for row in verify(suite, lie.get, again) if row.key == attacked.key)
        assert row.verdict == "inconsistent" and word in row.detail


def test_images_too_close_to_call_are_no_breach(paper):
    suite = sized(paper, "table1", ["kd-vote"], 5_000)
    (cell,) = suite.cells()
    votes = deterministic(cell.outcomes, whole(cell.outcomes), 0, 0)
    here = deterministic(cell.outcomes, whole(cell.outcomes), 0.01, 9)
    other, unlike = audit.differences(votes, here, np.arange(5_000), 0.02)
    assert other > 0 and unlike == 0


def test_what_cannot_be_recomputed_is_said(paper):
    suite = sized(paper, "table1", ["kd-vote", "kd-soft"], 500)
    first, second = (cell.outcomes for cell in suite.cells())

    def refuse(outcomes, rows):
        raise UserError("the weights", "are not there")

    rows = verify(suite, {first: deterministic(first, whole(first), 0, 0)}.get, refuse)
    assert [row.verdict for row in rows] == ["cannot be checked here"] * 2
    assert "weights" in rows[0].detail and "no whole record" in rows[1].detail and second.key == rows[1].key
    lines = audit.markdown(rows).strip().splitlines()
    assert len({line.count("|") for line in lines}) == 1

"""Claims: read safely, tested honestly, and wrong only as often as declared."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_votes import SUITE, honest, pinned, votes_from

from bench import UserError
from bench.report import claims
from bench.suite.expressions import parse, resolve
from bench.suite.reader import load
from bench.suite.schema import Claim
from bench.votes import intervals
from bench.votes.paired import Sum, interval
from bench.votes.sharing import estimate


@pytest.fixture(scope="module")
def suite():
    return pinned("quick")


def with_claims(suite, *texts):
    made = tuple(Claim(id=f"T{i}", text=text, holds=text) for i, text in enumerate(texts))
    return suite._replace(claims=made)


def lookup_of(truth):
    """Honest votes by target and attack; `truth` maps (target, attacked) to accuracy."""
    kept = {}

    def lookup(outcomes):
        if outcomes.key not in kept:
            attacked = outcomes.examples.source is not None
            found = truth(outcomes, attacked)
            kept[outcomes.key] = None if found is None else honest(outcomes, found)
        return kept[outcomes.key]

    return lookup


@pytest.mark.parametrize("scale", ["quick", "full"])
def test_the_papers_claims_name_cells_that_exist(scale):
    suite = load(SUITE, scale)
    assert [claim.id for claim in suite.claims] == ["C1", "C2", "C3", "C4", "C5"]
    for claim in suite.claims:
        for part in parse(claim.holds):
            for _, reference in part.terms:
                outcomes, kind = resolve(suite, reference, claim.id)
                assert kind == ("accuracy" if not outcomes.target.stochastic else kind) != ""


def test_an_expression_is_a_sum_compared_with_nothing():
    (part,) = parse("2 * t[a, clean] - t[b -> c, pgd, 8/255] < 3% + 0.5")
    assert [(factor, ref.block, ref.source, ref.target, ref.what) for factor, ref in part.terms] == [
        (-2.0, "t", None, "a", ("clean",)),
        (1.0, "t", "b", "c", ("pgd", "8/255")),
    ]
    assert part.constant == pytest.approx(0.53)
    assert len(parse("t[a, x] > t[b, x] and t[a, y] < 10%")) == 2


@pytest.mark.parametrize(
    "text",
    [
        "", "t[a, clean]", "t[a] > 1%", "1 > 2", "t[a, x] > t[b, x] > t[c, x]", "t[a, x] > and t[b, x] > 0",
        "t[a, x] t[b, x] > 0", "__import__('os').system('true') > 0", "t[-> a, x] > 0", "t[a, x] >", "t[a,] > 0",
        "t[a, x] + * 2 > 0", "t[a, x] > 1 ** 9", "t[a, x] > " + "1 + " * 900 + "1",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(UserError):
        parse(text)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="t[a, x]<>+-*%0123.and ()'\"\\\n", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        parts = parse(text)
    except UserError:
        return
    assert all(part.terms for part in parts)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("table1[kd-votes, clean] > 0", "kd-vote"),
        ("tabel1[kd-vote, clean] > 0", "table1"),
        ("table1[kd-vote, clear] > 0", "clean"),
        ("table3[kd-at-vote, pgd10] > 0", "source"),
        ("figure1[kd-vote, 3] > 0", "steps"),
        ("figure4[kd-at-vote -> cni, 11] > 0", "0 to 10"),
        ("figure4[kd-at-vote -> cni, 3, 9/255] > 0", "eps"),
        ("figure4[cni -> cni, 3] > 0", "kd-at-vote"),
        ("figure4[kd-at-vote -> cni, many] > 0", "numbers"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_one(suite, text, hint):
    with pytest.raises(UserError) as error:
        claims.claims(with_claims(suite, text), lambda outcomes: None)
    assert hint in str(error.value)


def test_a_row_without_source_means_the_models_own_attack(suite):
    (part,) = parse("table3[cni, pgd10] > 0")
    outcomes, _ = resolve(suite, part.terms[0][1], "x")
    assert outcomes.examples.source == outcomes.target


def test_verdicts_follow_the_truth(suite):
    suite = suite._replace(datasets=suite.datasets | {"test": suite.datasets["test"].model_copy(update={"stop": 2000})})
    names = {entry.model.key: name for name, entry in suite.models.items()}

    def truth(outcomes, attacked):
        return {"kd-vote": 0.9, "kd-soft": 0.8, "smoothed-sigma20": 0.5}.get(names[outcomes.target.key], 0.8)

    up = "table1[kd-vote, clean] > table1[kd-soft, clean]"
    verdicts = claims.claims(
        with_claims(
            suite,
            up,
            up.replace(">", "<"),
            "table1[kd-soft, clean] > table1[smoothed-vote, clean]",
            up + " and table1[kd-vote, clean] < 85%",
            "table1[kd-vote, clean] - table1[kd-soft, clean] > 5%",
            "table1[kd-vote, clean] - table1[kd-soft, clean] > 15%",
        ),
        lookup_of(truth),
    )
    assert [verdict.verdict for verdict in verdicts] == [
        "reproduced", "contradicted", "undecided", "contradicted", "reproduced", "contradicted",
    ]  # fmt: skip
    first = verdicts[0].deciding
    assert first.low < 0.1 < first.high and first.n == 2000
    assert verdicts[2].more is None or verdicts[2].more > 0
    assert all(verdict.adjusted >= verdict.p for verdict in verdicts)
    text = claims.markdown(verdicts)
    assert len({line.count("|") for line in text.strip().splitlines()}) == 1
    assert all(verdict.verdict in claims.sentence(verdict) for verdict in verdicts)


def test_two_labels_without_a_constant_are_tested_by_mcnemar(suite):
    text = "table2[kd-at-vote, clean] > table2[kd-at-vote, pgd10]"
    made = {}
    for accuracy, (_, reference) in zip((0.7, 0.66), parse(text)[0].terms, strict=True):
        outcomes, _ = resolve(suite, reference, "x")
        made[outcomes.key] = honest(outcomes, accuracy)
    a, b = ((votes.counts.argmax(1) == votes.labels) for votes in made.values())
    (verdict,) = claims.claims(with_claims(suite, text), lambda outcomes: made[outcomes.key])
    assert verdict.p == intervals.mcnemar(a, b).difference.p


def test_without_a_record_nothing_is_decided(suite):
    for verdict in claims.claims(suite, lambda outcomes: None):
        assert verdict.verdict == "undecided" and "no record" in claims.sentence(verdict)


def test_a_claim_of_a_rule_that_stopped_no_draws_is_undecided(suite):
    """The soft winner of draws that ended with the vote is no soft prediction."""
    claim = with_claims(suite, "table1[smoothed-soft, clean] > table1[kd-vote, clean]")

    def lookup(outcomes):
        votes = honest(outcomes, 0.5)
        more = votes.counts + (np.arange(len(votes.labels)) % 2)[:, None].astype(np.uint16)
        return replace(votes, rule="vote", counts=more) if outcomes.target.stochastic else votes

    (verdict,) = claims.claims(claim, lookup)
    assert verdict.verdict == "undecided" and "vote rule" in verdict.deciding.why


def test_claims_about_different_images_are_refused(suite):
    excerpt = suite.datasets["test"].model_copy(update={"split": "excerpt"})
    table = suite.tables["table1"].model_copy(update={"data": "other"})
    two = suite._replace(datasets=suite.datasets | {"other": excerpt}, tables=suite.tables | {"table1": table})
    claim = with_claims(two, "table1[kd-vote, clean] > table2[smoothed-vote, clean]")
    with pytest.raises(UserError, match="different images"):
        claims.claims(claim, lookup_of(lambda outcomes, attacked: 0.5))


def test_a_claim_without_truth_is_decided_as_rarely_as_declared(suite):
    """Two randomised models of equal accuracy, draws shared by shards: errors stay near 5 %."""
    text = "table3[cni, clean] < table1[smoothed-vote, clean] + 0%"
    (part,) = parse(text)
    decided, rng = 0, np.random.default_rng(0)
    for seed in range(200):
        right = rng.beta(4, 1, (2, 300))
        made = []
        for i in range(2):
            table = np.zeros((300, 10))
            labels = (np.arange(300) * 7) % 10
            table[np.arange(300), labels], table[np.arange(300), (labels + 1) % 10] = right[i], 1 - right[i]
            made.append(votes_from(table, np.arange(300), 8, 2 * seed + i, shared=0.05))
        found = iter(made)
        single = suite._replace(
            models=suite.models | {"smoothed-vote": suite.models["smoothed-vote"].model_copy(update={"rule": None})}
        )
        result = claims.test(single, part, lambda outcomes, found=found: next(found), "x")
        decided += result.p < 0.05
    assert decided <= 18  # 10 expected; P(more than 18 | 5 %) < 1 %


def of_images(each):
    """The interval and p of a mean over images of deterministic models."""
    return interval(Sum(each, estimate(each, [])))


@pytest.mark.parametrize("effect", [0.04, 0.08])
def test_the_images_asked_for_do_decide(effect):
    """100 images that show an effect ask for so many more; as many of that kind decide 80 % of the time."""
    gained, lost = round(100 * (0.1 + effect)), 10
    seen = np.repeat([1.0, -1.0, 0.0], [gained, lost, 100 - gained - lost])
    wanted = 100 + claims.more_images(seen, 0.0, 0.95)
    assert wanted == 100 + intervals.images_to_decide(seen, np.zeros(100))
    rng = np.random.default_rng(4)
    decided = np.mean([of_images(rng.choice(seen, wanted)).p < 0.05 for _ in range(400)])
    assert decided == pytest.approx(claims.POWER, abs=0.07)


def test_a_difference_that_no_image_shows_is_bounded_not_certain():
    _, low, high, p = of_images(np.full(100, 0.03))
    assert low < 0 < high and p == pytest.approx(2 * 0.97**100)
    assert of_images(np.zeros(10)).p == 1

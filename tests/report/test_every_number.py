"""The table of every number: each under its own name, from its own record, and a dash with its reason elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from made_votes import honest, labels_of, pinned, votes_from

from bench.report.numbers import HEAD, numbers
from bench.suite.reader import load
from bench.votes.numbers import Number, fold
from bench.votes.votes import check

N = 300


def rows_of(text: str) -> dict[tuple[str, str], dict[str, str]]:
    """The table's rows by target and examples, each by column."""
    found = {}
    for line in text.splitlines():
        cells = line.strip("| ").split(" | ")
        if len(cells) == len(HEAD) and cells[0] != HEAD[0] and not cells[0].startswith("---"):
            found[cells[0], cells[1].partition(",")[0]] = dict(zip(HEAD, cells, strict=True))
    return found


def sure(p: float, draws: int = 32):
    """Votes of images that are all right with probability p."""
    chances, labels = np.zeros((N, 10)), labels_of(np.arange(N))
    chances[np.arange(N), labels], chances[np.arange(N), (labels + 1) % 10] = p, 1 - p
    return votes_from(chances, np.arange(N), draws, 1)


def test_extra_draws_are_counted_and_a_rules_record_has_no_other_number():
    suite = pinned("quick")
    made = sure(1.0)
    settled = np.full(N, 16, np.uint16)
    counts = made.counts.copy()
    counts[: N // 2] = counts[: N // 2] // 32 * 18
    prefix = {"prefix": made.counts // 2, "draw_right": made.draw_right[:, :16]}
    stopped = replace(made, rule="vote", settled=settled, counts=counts, **prefix)
    check(stopped)

    def lookup(outcomes):
        return stopped if outcomes.target.stochastic else None

    row = rows_of(numbers(suite, lookup))["smoothed-vote", "clean"]
    assert row["Draws"] == "25.0" and row["Extra draws"] == "9.0" and row["Open at the cap"].startswith("0.0 of")
    assert row["Infinite vote"].startswith("98.7") and row["Undecided"] == "0.00"
    assert row["Vote"].startswith("100.00") and "—" in row["Soft"], "the vote's stopping settles no soft winner"
    text = numbers(suite, lookup)
    assert "its draws ended once the vote rule was settled" in text


def test_a_fixed_number_of_draws_is_open_at_no_cap_and_settles_what_it_can():
    suite = pinned("quick")

    def lookup(outcomes):
        return sure(0.55) if outcomes.target.stochastic else None

    row = rows_of(numbers(suite, lookup))["cni", "clean"]
    assert "—" in row["Open at the cap"] and row["Extra draws"] == "0.0"
    few = rows_of(numbers(suite, lambda outcomes: sure(1.0, 8) if outcomes.target.stochastic else None))
    assert "—" in few["cni", "clean"]["Infinite vote"] and few["cni", "clean"]["Undecided"] == "100.00"


def test_claims_stand_in_rows_of_their_own_source():
    text = numbers(pinned("quick"), lambda outcomes: honest(outcomes, 0.6) if outcomes.target.stochastic else None)
    rows = rows_of(text)
    assert "[" in rows["cni", "pgd10"]["Claimed, one draw"]
    assert "—" in rows["cni", "pgd10 on kd-at-vote"]["Claimed, one draw"]
    assert "is of its own source" in text


ONE_DRAW = """
[datasets.test]
split = "excerpt"
stop = 300
[weights.w]
kind = "file"
name = "w.pt"
network = {}
noise = {}
[models.m]
weights = "w"
draws = 1
[tables.t]
rows = ["m"]
columns = [{attack = "clean", number = "accuracy"}]
"""


def test_one_draw_of_a_randomised_model_has_no_interval_that_takes_it_for_a_prediction(tmp_path):
    (tmp_path / "s.toml").write_text(ONE_DRAW)
    (cell,) = load(tmp_path / "s.toml").cells()
    votes = votes_from(np.tile([0.7, *[0.3 / 9] * 9], (300, 1)), np.arange(300), 1, 0, shard=300)
    number = fold(votes, cell.number)
    assert isinstance(number, Number) and (number.kind, number.low, number.high) == ("expected", 0, 1)

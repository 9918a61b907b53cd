"""`strong` as a column: from the suite's file to the printed account, from records alone once the examples are gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import small

from bench.lab.speed.budget import affordable, words
from bench.report import bought, publish
from bench.store.bought import account, gathered, of_record

SUITE = small.SUITE.replace('columns = ["clean", "pgd"]', 'columns = ["clean", "strong"]') + """
[attacks.strong]
kind = "strong"
gradients = 14
"""


def test_a_length_of_time_in_gradients_an_image(tmp_path: Path) -> None:
    missing = small.session(tmp_path / "empty", SUITE)
    found = list(affordable(missing.suite, missing.store, missing.settings, 60.0))
    assert [one.rate for one in found] == [0, 0] and "train or fetch them first" in words(found, "60s")
    small.go(tmp_path, text=SUITE)
    session = small.session(tmp_path, SUITE)
    found = list(affordable(session.suite, session.store, session.settings, 60.0))
    assert {one.model for one in found} == {"cni", "student"} and all(one.images == 60 for one in found)
    for one in found:
        assert one.gradients == int(30 * one.rate / 60) > 1
        assert f"strong on {one.model}: gradients = {one.gradients} " in words(found, "60s")


def test_what_each_member_bought_is_kept_and_printed(tmp_path: Path, capsys) -> None:
    counts = small.go(tmp_path, text=SUITE)
    session = small.session(tmp_path, SUITE)
    publish.show(publish.publish(session), counts)
    printed = capsys.readouterr().out
    for name in ("cni", "student"):
        assert f"## strong: {name}" in printed
    cell = next(one for one in session.suite.cells() if one.attack == "strong" and one.target == "student")
    record = session.store.find(cell.outcomes.examples)
    assert record is not None
    said = of_record(record)
    assert said is not None and said["images"] == 60 and said["most"] <= 14
    names = [member[0] for member in said["members"]]
    assert names[0] == "the image itself" and len(names) > 1 and all(f"| {name} |" in printed for name in names)
    # the gains are on what selected, which for a deterministic source is what judges too
    votes = session.votes(cell.outcomes)
    assert votes is not None
    wrong = (votes.counts.argmax(1) != votes.labels).mean()
    assert abs(sum(member[2] for member in said["members"]) - wrong) < 1e-6
    assert sum(member[4] for member in said["members"]) == round(60 * wrong)
    written = (tmp_path / "results/small/strong.md").read_text()
    shutil.rmtree(tmp_path / ".bench/examples", ignore_errors=True)
    assert bought.markdown(small.session(tmp_path, SUITE).suite, session.manifest) == written


def test_accounts_of_shards_are_one_by_their_images() -> None:
    one = '{"members":[["a",10,0.5,2.0,4]],"found":[],"spent":[1,3],"end":"x","findings":["f"]}'
    two = '{"members":[["a",10,0.0,4.0,1],["b",6,0.25,8.0,2]],"found":[],"spent":[5,5,5,5,5,5],"end":"y",'
    two += '"findings":["f"]}'
    said = gathered([account(one), account(two)])
    assert said["members"] == [["a", 20, 0.125, 3.5, 5], ["b", 6, 0.1875, 6.0, 2]]
    assert said["images"] == 8 and said["most"] == 5 and said["gradients"] == 34 / 8
    assert said["ends"] == {"x": 1, "y": 1} and said["findings"] == ["f"]
    assert account(account(one).text()) == account(one)

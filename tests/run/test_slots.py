"""The record in time slots, weights published for a fresh clone, certificates from records."""

import shutil
import subprocess
import sys

import pytest
import small

from bench.report import certificates
from bench.report.numbers import HEAD, numbers
from bench.run.slots import publish_weights, steps, text
from bench.store.cost import Rates

COUNTS = [1, 2, 7, 2]  # the teacher; its outputs and the student; five outcomes of two attacks; a certificate

SMOOTHED = """
[models.blurred]
weights = "student"
sigma = 0.25
certify = { n0 = 5, n = 20, alpha = 0.01, radii = [0.0, 0.25, 10.0] }
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("record")
    small.go(root, text=small.SUITE + SMOOTHED)
    return root


def test_steps_say_what_is_left(made, tmp_path):
    rates = Rates(tmp_path, "cpu")
    done = steps(small.session(made, small.SUITE + SMOOTHED), rates)
    assert [step.title for step in done] == ["train cni", "train student", "t", "figures and certificates"]
    assert not any(step.missing for step in done) and "everything is recorded" in text(done)
    left = steps(small.session(tmp_path / "empty", small.SUITE + SMOOTHED), rates)
    # the teacher's votes on the training images belong to the student's step; no record is counted twice
    assert [step.missing for step in left] == COUNTS
    assert all(step.seconds > 0 for step in left) and "min are left" in text(left)


def test_published_weights_serve_a_fresh_clone(made, tmp_path):
    session = small.session(made, small.SUITE + SMOOTHED)
    assert sorted(publish_weights(session)) == ["cni", "student"]
    there = {path: path.stat().st_ino for path in (made / "models" / "weights").iterdir()}
    # what is published is not copied again: a folder that is replaced is gone for a moment
    assert publish_weights(small.session(made, small.SUITE + SMOOTHED)) == []
    assert {path: path.stat().st_ino for path in (made / "models" / "weights").iterdir()} == there
    clone = tmp_path / "clone"
    shutil.copytree(made / "models", clone / "models")
    shutil.copytree(made / "results" / "records", clone / "results" / "records")
    assert small.go(clone, text=small.SUITE + SMOOTHED).records == 0
    # judging anew uses the published weights: nothing is trained again
    engine = small.Kept(small.session(clone, small.SUITE + SMOOTHED).settings)
    shutil.rmtree(clone / "results" / "records")
    small.go(clone, engine, text=small.SUITE + SMOOTHED)
    assert {kind for kind, _ in engine.did} == {"Examples", "Outcomes"}
    again, before = small.result(clone), small.result(made)
    assert again.items() <= before.items() and len(before) - len(again) == 1  # less the teacher's outputs


def test_a_slot_too_short_pauses_with_the_command_to_go_on(tmp_path):
    (tmp_path / "small.toml").write_text(small.SUITE)
    words = [sys.executable, "-m", "bench", "record", str(tmp_path / "small.toml"), "--root", str(tmp_path)]
    first = subprocess.run([*words, "--max-time", "0.01s"], capture_output=True, text=True)
    assert first.returncode == 75 and "resume with: python -m bench record" in first.stderr, first.stderr
    assert "min are left" in first.stdout
    last = subprocess.run([*words, "--slot", "10m", "--device", "cpu"], capture_output=True, text=True)
    assert last.returncode == 0 and "everything is recorded" in last.stdout, last.stderr
    assert (tmp_path / "models" / "weights" / "small-cni" / "manifest.json").exists()


def test_certificates_come_from_two_records_of_disjoint_draws(made):
    session = small.session(made, small.SUITE + SMOOTHED)
    ((name, chosen, bound),) = session.suite.certificates()
    assert name == "blurred" and chosen.draws == 5 and bound.draws == 20 and chosen.seed != bound.seed
    (found,) = certificates.certificates(session.suite, session.votes)
    values = [value for value, _, _ in found.accuracy]
    assert found.images == 60 and values == sorted(values, reverse=True) and values[-1] == 0
    # nobody is certified further than twenty equal votes allow
    votes = session.votes(bound)
    share_right = (votes.counts.argmax(1) == votes.labels).mean()
    assert values[0] <= share_right + 1e-9
    assert "certified accuracy" in certificates.markdown([found]) and (made / "results/small/certificates.md").exists()


def test_every_number_has_its_own_name(made):
    session = small.session(made, small.SUITE + SMOOTHED)
    said = numbers(session.suite, session.votes)
    rows = [line.split(" | ") for line in said.splitlines() if line.startswith("| cni")]
    assert len(rows) == 3 and all(len(row) == len(HEAD) for row in rows)
    assert "Expected" in said and "Infinite vote" in said and "Right 2 times in a row" in said
    for row in rows:
        assert " to " not in row[5] and row[6] == "100.00", "four draws settle no image: a dash, not 0 to 100"
        assert float(row[2].split()[0]) >= float(row[7].split()[0]), "being right twice is no easier than once"
    reasons = said.partition("\n\n")[2]
    assert "4 draws settle no image" in reasons and "not of another target" in reasons
    assert (made / "results/small/numbers.md").read_text() == said

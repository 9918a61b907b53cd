"""bench verify on a real record: honest votes pass to the bit, each way of doctoring them that was known is caught."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from doctoring import doctor
from small import go, session

from bench.lab.examine.again import Again
from bench.recipes import Outcomes
from bench.report.audit import AuditRow, verify
from bench.report.sampling import sample
from bench.run.session import Session
from bench.votes.votes import Votes


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audited")
    go(root)
    return root


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def audited(opened: Session, images: int | None = 24, seed: int = 1, **told: object) -> dict[str, AuditRow]:
    """The audit by record key; `told` changes what manifests say of where they were made."""

    def about(outcomes: Outcomes) -> dict[str, object]:
        manifest = opened.manifest(outcomes)
        assert manifest is not None
        return {**manifest, "provenance": {**manifest["provenance"], **told}}

    found = verify(opened.suite, opened.votes, about, Again(opened.settings), images, seed=seed)
    return {row.key: row for row in found}


def made_right(votes: Votes, at: np.ndarray) -> Votes:
    """The votes with these images right in every draw."""
    fields = {name: getattr(votes, name).copy() for name in ("counts", "probs", "soft", "prefix")}
    for i in at:
        label = votes.labels[i]
        for name in ("counts", "probs", "prefix"):
            total = fields[name][i].sum()
            fields[name][i] = 0
            fields[name][i, label] = total
        fields["soft"][i] = label
    return replace(votes, **fields)


def permuted(votes: Votes, order: np.ndarray) -> Votes:
    """The votes with what was said of image order[i] said of image i; labels and indices stay."""
    names = ("counts", "probs", "soft", "prefix", "settled", "linf", "claimed")
    return replace(votes, **{name: getattr(votes, name)[order] for name in names})


def wrong(votes: Votes) -> np.ndarray:
    return np.flatnonzero(votes.counts.argmax(1) != votes.labels)


def within_labels(votes: Votes) -> Votes:
    """Votes dealt out anew among the images of each label: every sum over a label stays as it was."""
    order, rng = np.arange(len(votes.labels)), np.random.default_rng(0)
    for label in np.unique(votes.labels):
        at = np.flatnonzero(votes.labels == label)
        order[at] = at[np.roll(rng.permutation(len(at)), 1)]
    return permuted(votes, order)


def invented(votes: Votes) -> Votes:
    """As many images right as before, but others: eight of each, exchanged."""
    right, bad = np.flatnonzero(votes.counts.argmax(1) == votes.labels)[:8], wrong(votes)[:8]
    most = min(len(right), len(bad))
    counts, probs = votes.counts.copy(), votes.probs.copy()
    for at, shift in ((bad[:most], 0), (right[:most], 1)):
        now, to = counts[at].argmax(1), (votes.labels[at].astype(int) + shift) % 10
        for one in (counts, probs):
            one[at, now], one[at, to] = one[at, to], one[at, now]
    return replace(votes, counts=counts, prefix=counts, probs=probs, soft=counts.argmax(1).astype(np.uint16))


def moved_draw(votes: Votes) -> Votes:
    """One wrong draw of each image that has one goes to another wrong class: no right answer changes."""
    counts, prefix = votes.counts.copy(), votes.prefix.copy()
    for i, label in enumerate(votes.labels):
        said = np.flatnonzero((prefix[i] > 0) & (np.arange(10) != label))
        if len(said):
            to = next(c for c in range(10) if c not in (said[0], label))
            for one in (counts, prefix):
                one[i, said[0]] -= 1
                one[i, to] += 1
    return replace(votes, counts=counts, prefix=prefix)


def other_soft(votes: Votes) -> Votes:
    return replace(votes, probs=votes.probs[:, ::-1].copy(), soft=9 - votes.soft)


Change = Callable[[Votes, np.ndarray], Votes]
"""Votes, and the rows of a sample that the forger knows, to forged votes."""

DOCTORED: dict[str, tuple[str, str, Change, str]] = {
    "more right, but for the rows of a known seed": (
        "student", "pgd", lambda votes, known: made_right(votes, np.setdiff1d(wrong(votes), known)), "counts",
    ),
    "others right, as many": ("student", "clean", lambda votes, _: invented(votes), "counts"),
    "shuffled within each label": ("cni", "clean", lambda votes, _: within_labels(votes), "counts"),
    "one wrong draw of each image": ("cni", "clean", lambda votes, _: moved_draw(votes), "counts"),
    "nothing claimed": ("student", "pgd", lambda votes, _: replace(votes, claimed=votes.claimed * 0), "claim"),
    "other distances": ("cni", "pgd", lambda votes, _: replace(votes, linf=votes.linf * np.float32(0.9)), "distance"),
    "another soft winner": ("cni", "pgd", lambda votes, _: other_soft(votes), "soft"),
}  # fmt: skip


def test_honest_records_pass_to_the_bit(whole: Path):
    opened = session(whole)
    for images in (24, None):
        rows = audited(opened, images).values()
        assert len(rows) == 5 and {row.verdict for row in rows} == {"consistent"}
        assert {row.mode for row in rows} == {"as recorded"} and all(row.p is None for row in rows)
        assert all(row.images == (images or 60) for row in rows)
    assert all(row.power == (1.0,) * 4 for row in rows)


@pytest.mark.parametrize("name", DOCTORED)
def test_what_was_doctored_is_caught(copy: Path, name: str):
    target, attack, change, word = DOCTORED[name]
    outcomes = session(copy).suite.outcomes(target, attack)
    doctor(copy, outcomes, lambda votes: change(votes, sample(outcomes, 60, 24, 0).rows))
    rows = audited(session(copy), seed=1)
    found = rows.pop(outcomes.key)
    assert found.verdict == "inconsistent" and word in found.detail, found
    assert {row.verdict for row in rows.values()} == {"consistent"}, "only this one"


def test_records_of_two_models_swapped_are_caught(copy: Path):
    opened = session(copy)
    one, other = opened.suite.outcomes("cni", "pgd"), opened.suite.outcomes("cni", "pgd", "student")
    votes = {outcomes: opened.votes(outcomes) for outcomes in (one, other)}
    doctor(copy, one, lambda _: votes[other])  # type: ignore[arg-type, return-value]
    doctor(copy, other, lambda _: votes[one])  # type: ignore[arg-type, return-value]
    rows = audited(session(copy))
    assert [rows[outcomes.key].verdict for outcomes in (one, other)] == ["inconsistent"] * 2


@pytest.mark.parametrize(
    ("told", "mode"),
    [({"device": "another processor"}, "other arithmetic"), ({"device_type": "cuda"}, "other draws")],
)
def test_elsewhere_honest_records_pass_and_a_gross_forgery_does_not(copy: Path, told: dict[str, str], mode: str):
    told |= {f"crafting_{name}": said for name, said in told.items()}
    told |= {"arithmetic": "unknown"}
    opened = session(copy)
    rows = audited(opened, None, **told)
    assert {row.verdict for row in rows.values()} == {"consistent"}
    lie = opened.suite.outcomes("student", "pgd")
    assert rows[lie.key].mode == mode and rows[lie.key].power[0] < 0.1, "one image is not seen, and it says so"
    doctor(copy, lie, lambda votes: made_right(votes, wrong(votes)[:36]))
    clean = opened.suite.outcomes("student", "clean")
    doctor(copy, clean, lambda votes: made_right(votes, wrong(votes)[:2]))
    rows = audited(session(copy), None, **told)
    assert rows[lie.key].verdict == rows[clean.key].verdict == "inconsistent"
    assert {row.verdict for row in rows.values()} == {"consistent", "inconsistent"}


def test_rows_of_a_batch_meet_the_noise_that_they_meet_among_all(whole: Path):
    """Votes of some rows are those of the whole shard, though the model's noise is drawn for all of it."""
    opened = session(whole)
    again, rows = Again(opened.settings), np.array([1, 7, 21, 22, 59])
    for outcomes in (opened.suite.outcomes("cni", "pgd"), opened.suite.outcomes("cni", "pgd", "student")):
        recorded, threads = opened.votes(outcomes), torch.get_num_threads()
        assert recorded is not None
        record = opened.manifest(outcomes)["provenance"]  # type: ignore[index]
        here = again.votes(outcomes, rows, record)
        assert (here.counts == recorded.counts[rows]).all() and (here.index == recorded.index[rows]).all()
        other = again.votes(outcomes, rows, record, "draws")
        assert (other.linf != here.linf).any() or (other.counts != here.counts).any()
        assert torch.get_num_threads() == threads

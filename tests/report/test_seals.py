"""Seals followed to the end on a real record: what is whole passes, and what was edited, swapped or mixed is found."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from doctoring import doctor, edit, republish, reseal
from small import SUITE, go, session

from bench.report import proof, publication, publish, seals
from bench.report.publication import NAME
from bench.run.session import WHY, Session
from bench.store.records import Store

TEXT = (
    SUITE
    + """
[figures.steps]
kind = "draws"
models = ["cni"]
attack = "pgd"

[figures.seen]
kind = "sheet"
models = ["student"]
sources = ["student"]
attack = "pgd"
"""
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sealed")
    go(root, text=TEXT)
    return root


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def said(root: Path) -> str:
    """What is wrong, in words; "" if nothing is."""
    opened = session(root, TEXT)
    found = (*seals.follow(opened).seals, *proof.check(opened))
    return "\n".join(f"{one.verdict}: {one.what}: {one.detail}" for one in found if one.verdict != "consistent")


def recipe(opened: Session, target: str, attack: str, source: str | None = None):
    return opened.suite.outcomes(target, attack, source)


def test_what_a_run_leaves_is_whole_and_the_digest_is_its_own(whole: Path, copy: Path):
    assert said(whole) == ""
    one, other = (seals.follow(session(root, TEXT)) for root in (whole, copy))
    assert one.digest == other.digest and not one.absent and len(one.seals) > 8
    shutil.rmtree(copy / ".bench" / "examples")
    fewer = seals.follow(session(copy, TEXT))
    assert fewer.digest == one.digest and len(fewer.absent) == 2, "images can be made again"
    assert said(copy) == ""
    student = recipe(session(copy, TEXT), "student", "clean")
    doctor(copy, student, lambda votes: replace(votes, probs=votes.probs[:, ::-1], soft=9 - votes.soft))
    assert seals.follow(session(copy, TEXT)).digest != one.digest


def test_every_file_that_a_run_writes_is_sealed() -> None:
    assert all(publication.ours(name) for name in {"tables.md", "tables.json", "index.html", *publish.COMPANIONS})


@pytest.mark.parametrize("name", ["tables.md", "tables.json", "numbers.md", "index.html", "cells", "figures/steps.svg"])
@pytest.mark.parametrize("again", [False, True], ids=["edited", "edited with its seal"])
def test_an_edited_table_page_or_figure_is_found(copy: Path, name: str, again: bool):
    folder = copy / "results" / "small"
    path = sorted(folder.glob("cells/*.html"))[0] if name == "cells" else folder / name
    text = path.read_text("utf-8")
    if name == "figures/steps.svg":
        text = text.replace("</svg>", "<!-- -->\n</svg>")
    else:
        text = re.sub(r"\d\d\.\d|0\.\d\d", "99.9", text, count=1)
    assert text != path.read_text("utf-8")
    path.write_text(text, "utf-8")
    if again:
        republish(folder)
    found = said(copy)
    assert found.startswith("inconsistent: ") and path.relative_to(folder).as_posix() in found
    assert ("does not follow" if again else "was changed") in found


def test_a_page_without_its_seal_or_of_other_records_is_found(copy: Path):
    folder = copy / "results" / "small"
    for name, word in (("cells/00.html", "inconsistent: cells/00.html"), ("notes.md", "cannot be checked")):
        (folder / name).write_text("99 %")
        assert said(copy).startswith(word) and name in said(copy)
        go(copy, text=TEXT)
        assert name == "notes.md" or said(copy) == "", "a page that is no more goes, a reader's notes stay"
    assert said(copy).startswith("cannot be checked")
    (folder / "notes.md").unlink()
    (folder / NAME).unlink()
    assert said(copy).startswith("inconsistent: published: without a seal")
    go(copy, text=TEXT)
    assert said(copy) == ""
    student = recipe(session(copy, TEXT), "student", "clean")
    doctor(copy, student, lambda votes: replace(votes, probs=votes.counts.astype(np.float16)))
    assert "published: made from other records" in said(copy)


def test_another_program_or_diagnosis_is_said_and_is_no_breach(copy: Path):
    folder = copy / "results" / "small"
    edit(folder / "tables.md", {"#": "##"})
    republish(folder, program="0" * 64)
    assert said(copy).startswith("cannot be checked here: published: tables.md: would read otherwise by another v")
    go(copy, text=TEXT)
    opened = session(copy, TEXT)
    opened.diagnosed("student", [{"check": "queries", "figure": "1", "verdict": "suspicious", "advice": ""}])
    assert said(copy).startswith("cannot be checked here: published:") and "diagnose" in said(copy)
    go(copy, text=TEXT)
    assert said(copy) == ""


def weights_of(opened: Session, name: str) -> Path:
    record = opened.store.find(opened.suite.weights[name])
    assert record is not None
    return record.path


def test_weights_replaced_under_votes_are_found(copy: Path):
    """Another state under the same key, its own seal made to fit: whatever was made from the old one says so."""
    opened = session(copy, TEXT)
    path = weights_of(opened, "student")
    shard = sorted(path.glob("*.safetensors"))[0]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert "the checksum differs from the manifest's" in said(copy)
    reseal(path)
    found = said(copy)
    assert "votes of student on clean images: it was made from another weights student" in found
    assert "pgd images made on student: it was made from another weights student" in found
    assert "published: made from other records" in found


def test_weights_and_votes_replaced_together_are_found(copy: Path):
    """All that is made from them re-sealed too: tables and page still name the old ones, and so does the digest."""
    before = seals.follow(session(copy, TEXT)).digest
    opened = session(copy, TEXT)
    path = weights_of(opened, "student")
    shard = sorted(path.glob("*.safetensors"))[0]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    changed = {opened.suite.weights["student"].key: reseal(path)}
    for shelf in (copy / ".bench" / "examples", copy / "results" / "records"):
        for record in shelf.glob("*/*"):
            about = json.loads((record / "manifest.json").read_bytes())
            made_from = about["made_from"] | {key: new for key, new in changed.items() if key in about["made_from"]}
            if made_from != about["made_from"]:
                changed[about["key"]] = reseal(record, made_from=made_from)
    found = said(copy)
    assert "made from another" not in found and found.startswith("inconsistent: published: made from other records")
    assert seals.follow(session(copy, TEXT)).digest != before


def test_what_a_manifest_says_beside_its_files_is_part_of_the_seal_of_all(copy: Path):
    """In which arithmetic, and what the attack's account was: tables show it, and no seal of files holds it."""
    before = seals.follow(session(copy, TEXT)).digest
    record = session(copy, TEXT).store.find(recipe(session(copy, TEXT), "student", "pgd"))
    assert record is not None
    told = record.manifest["provenance"]
    for name, value in (("precision", "bfloat16"), ("outputs", "probabilities"), ("bought", {"members": []})):
        reseal(record.path, provenance=told | {name: value})
        assert seals.follow(session(copy, TEXT)).digest != before
    reseal(record.path, provenance=told | {"seconds": 0.1, "made": "on another day"})
    assert seals.follow(session(copy, TEXT)).digest == before


def test_no_words_of_a_forgers_own_stand_above_the_tables(copy: Path):
    folder, words = copy / "results" / "small", "certified by everybody"
    edit(folder / "tables.md", {WHY[3]: words})
    republish(folder, why=words)
    assert said(copy).startswith("inconsistent: published: its scale was chosen for no reason that is known")


@pytest.mark.parametrize("told", [[], None, {"versions": 3}, {"device": ["x"], "precision": [1]}])
def test_a_manifest_that_says_what_no_run_says_ends_in_a_verdict(copy: Path, told: object):
    record = session(copy, TEXT).store.find(recipe(session(copy, TEXT), "student", "pgd"))
    assert record is not None
    reseal(record.path, provenance=told)
    assert "inconsistent: " in said(copy)


def test_images_that_its_data_does_not_have_and_labels_of_its_own_are_found(copy: Path):
    clean = recipe(session(copy, TEXT), "student", "clean")
    doctor(copy, clean, lambda votes: replace(votes, index=-votes.index - 1))
    assert "it holds images -" in said(copy)
    doctor(copy, clean, lambda votes: replace(votes, index=-votes.index - 1))
    doctor(copy, clean, lambda votes: replace(votes, labels=votes.counts.argmax(1).astype(np.uint16)))
    assert "cannot be made from these records: the records give one image different labels" in said(copy)


def test_two_states_of_one_work_are_found(copy: Path):
    opened = session(copy, TEXT)
    shutil.copytree(weights_of(opened, "cni"), place := copy / "models" / "weights" / "cni")
    assert said(copy) == "", "a published copy is the same work"
    edit(place / "model.toml", {"seed": "seed_"})
    reseal(place)
    assert said(copy) == "", "the card's words on time and machine are no part of the seal"
    (place / "curves.parquet").write_bytes((weights_of(opened, "student") / "curves.parquet").read_bytes())
    reseal(place)
    assert "the same work stands with other seals" in said(copy)


def test_a_record_under_anothers_key_is_found(copy: Path):
    """The votes of one cell under the key of another, with a manifest that fits."""
    opened = session(copy, TEXT)
    one, other = (opened.store.find(recipe(opened, name, "clean")) for name in ("cni", "student"))
    assert one and other
    shutil.copy(one.path / "votes.parquet", other.path / "votes.parquet")
    reseal(other.path)
    assert "an image has 16 draws, its recipe 1" in said(copy) or "first draws are not" in said(copy)
    reseal(other.path, recipe=one.manifest["recipe"])
    assert "describes another recipe" in said(copy)
    reseal(other.path, recipe=other.manifest["recipe"], made_from={})
    assert "names other inputs" in said(copy)


def test_seals_take_no_torch_and_no_data(whole: Path, copy: Path):
    code = (
        "import sys; sys.argv[1:] = ['verify', 'small.toml', '--seals']\nfrom bench.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert 'torch' not in sys.modules\n    raise\n"
    )

    def run(root: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)

    start = time.perf_counter()
    done = run(whole)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - start < 30 and "seal of all votes and weights: " in done.stdout
    edit(copy / "results" / "small" / "tables.md", {"#": "##"})
    done = run(copy)
    assert done.returncode == 3 and "tables.md" in done.stdout


def test_votes_are_held_against_their_recipe(whole: Path):
    from bench.report.contradictions import contradiction
    from bench.votes.votes import from_parquet

    opened, store = session(whole, TEXT), Store(whole)

    def votes(outcomes):
        record = store.find(outcomes)
        assert record is not None
        return from_parquet(record.read("votes.parquet"))

    attacked, clean = recipe(opened, "cni", "pgd"), recipe(opened, "student", "clean")
    true = votes(attacked)
    assert contradiction(attacked, true) == "" and contradiction(clean, votes(clean)) == ""
    right = true.draw_right.copy()
    right[0, 0], right[1, 0] = right[0, 0] - 1, right[1, 0] + 1
    more = true.counts.copy()
    more[5, 0] += 1
    for change, word in (
        ({"draw_right": right, "winners": None}, "shard 0's draws"),
        ({"counts": more}, "draws"),
        ({"shard": true.shard[::-1].copy()}, "by shard"),
        ({"shard": true.shard[::-1].copy(), "winners": None}, "shards"),
        ({"linf": np.full(60, 0.2, np.float32)}, "from its original"),
        ({"claimed": np.full(60, -1, np.int8)}, "neither yes nor no"),
    ):
        assert word in contradiction(attacked, replace(true, **change)), change
    assert "images are clean" in contradiction(clean, replace(votes(clean), claimed=np.zeros(60, np.int8)))
    rows = ("index", "labels", "counts", "probs", "soft", "prefix", "settled", "linf", "claimed", "shard", "winners")
    fewer = {name: getattr(true, name)[:40] for name in rows} | {"draw_right": true.draw_right[:2]}
    assert "its recipe 60" in contradiction(attacked, replace(true, **fewer))


OWN = """
[protocol]
shard = 20

[datasets.test]
split = "excerpt"
stop = 20

[weights.mine]
kind = "python"
name = "loader.py:build"

[models.mine]
weights = "mine"

[tables.t]
rows = ["mine"]
columns = ["clean"]
"""
LOADER = """
import torch
from torch import nn


def build():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    net.load_state_dict(torch.load("mine.pt", weights_only=True))
    return net.eval()
"""


def test_a_users_own_file_that_changed_under_its_record_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loader.py").write_text(LOADER)
    net = torch.nn.Linear(3072, 10)
    torch.save({f"1.{name}": tensor for name, tensor in net.state_dict().items()}, "mine.pt")
    go(tmp_path, text=OWN)
    assert all(one.verdict == "consistent" for one in seals.follow(session(tmp_path, OWN)).seals)
    torch.save({f"1.{name}": 2 * tensor for name, tensor in net.state_dict().items()}, "mine.pt")
    found = [one for one in seals.follow(session(tmp_path, OWN)).seals if one.verdict == "inconsistent"]
    assert [one.what for one in found] == ["weights mine"]
    assert "is not the file that it was made with" in found[0].detail

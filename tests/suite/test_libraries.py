"""What a suite needs beyond the core: named at once, before anything has begun, with the line that installs it."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest

from bench import UserError
from bench.recipes import PGD, Fetched, Peer, Worst
from bench.suite import libraries

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def without(monkeypatch: pytest.MonkeyPatch, *gone: str) -> None:
    """As if distributions were not installed."""
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in gone:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_every_library_comes_with_its_extra_and_none_with_the_core() -> None:
    for one in {*libraries.OF_ATTACK.values(), *libraries.OF_WEIGHTS.values()}:
        brought = [re.split("[<>=]", line)[0] for line in PROJECT["optional-dependencies"][one.extra]]
        assert one.name in brought
        assert one.name not in [re.split("[<>=]", line)[0] for line in PROJECT["dependencies"]]


def test_the_tests_have_every_library_and_no_extra_is_made_of_extras() -> None:
    extras = PROJECT["optional-dependencies"]
    named = {re.split("[<>=~]", line)[0] for line in extras["test"]}
    for name in ("peers", "robustbench", "timm", "foolbox", "docs"):
        assert {re.split("[<>=~]", line)[0] for line in extras[name]} <= named
    assert not [line for several in extras.values() for line in several if line.startswith("freshdraws")]


def test_what_recipes_name_at_any_depth_is_found() -> None:
    auto, theirs = Peer(kind="autoattack", name="standard"), Peer(kind="torchattacks", name="PGD")
    assert libraries.needed([PGD()]) == []
    worst = Worst(attacks=(PGD(), theirs, auto))
    assert [one.name for one in libraries.needed([worst])] == ["pyautoattack", "torchattacks"]
    assert [one.extra for one in libraries.needed([Fetched(kind="robustbench", name="Standard")])] == ["robustbench"]


def test_all_that_is_missing_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "torchattacks", "pyautoattack", "timm")
    work = [Peer(kind="torchattacks", name="PGD"), Peer(kind="autoattack", name="rand"), Fetched(kind="timm", name="x")]
    with pytest.raises(UserError) as told:
        libraries.refuse_lacking("s.toml", work)
    assert told.value.what == "pyautoattack, timm and torchattacks are not installed here"
    assert told.value.fix == "pip install 'freshdraws[peers,timm]'"
    libraries.refuse_lacking("s.toml", [PGD()])


def test_the_old_robustbench_inside_torchattacks_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "robustbench")
    assert libraries.lacking([Fetched(kind="robustbench", name="Standard")])


def test_run_refuses_and_plan_says_so_and_recorded_numbers_need_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.cli.app import main

    (tmp_path / "s.toml").write_text(
        '[datasets.test]\nstop = 8\n[weights.w]\nkind = "autoattack-example"\n[models.m]\nweights = "w"\n'
        '[attacks.a]\nkind = "torchattacks"\nname = "PGD"\n[tables.t]\nrows = ["m"]\ncolumns = ["clean", "a"]\n'
    )
    monkeypatch.chdir(tmp_path)
    without(monkeypatch, "torchattacks", "pyautoattack")

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["freshdraws", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    assert run("run", "s.toml", "--device", "cpu") == 2
    assert "pip install 'freshdraws[peers]'" in capsys.readouterr().err and not list(tmp_path.glob("results/records/*"))
    assert run("plan", "s.toml") == 0 and "freshdraws[peers]" in capsys.readouterr().out
    assert run("tables", "s.toml") == 0


def test_the_papers_suite_needs_what_make_paper_installs() -> None:
    from bench.suite.reader import load, scales

    installed = set(re.findall(r"pip install -q -e \.\[(\w+)\]", (ROOT / "Makefile").read_text("utf-8")))
    path = ROOT / "suites" / "paper.toml"
    for scale in scales(path):
        suite = load(path, scale)
        assert {one.extra for one in libraries.needed(cell.outcomes for cell in suite.cells())} == {"peers"}
    assert installed == {"peers", "test"}

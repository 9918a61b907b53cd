"""What a plan says of a model that nobody has timed: nothing, until one pass is."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import own_data
import pytest

from bench.cli import app

NET = """
import pathlib, torch
def build():
    pathlib.Path(__file__).with_name("ran").touch()
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
"""
SUITE = """
[datasets.test]
kind = "npz"
path = "mine.npz"
[attacks.pgd]
kind = "pgd"
steps = 1000
[models.net]
weights = { kind = "python", name = "net.py:build" }
[tables.t]
rows = ["net"]
columns = ["clean", "pgd"]
"""


def test_one_timed_pass_replaces_the_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan runs nobody's code and says that it does not know; asked to measure, it does, and remembers."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "suite.toml").write_text(SUITE)
    own_data.npz(tmp_path / "mine.npz", *own_data.excerpt(12), classes=list("abcdefghij"))

    def plan(*more: str) -> str:
        words = ["bench", "plan", str(tmp_path / "suite.toml"), "--root", str(tmp_path), "--device", "cpu", *more]
        monkeypatch.setattr(sys, "argv", words)
        monkeypatch.setenv("COLUMNS", "300")
        with pytest.raises(SystemExit) as stopped:
            app.main()
        assert not stopped.value.code
        return capsys.readouterr().out

    before = plan()
    assert re.search(r"craft pgd.* \?$", before, re.M) and "plan --measure" in before
    assert not (tmp_path / "ran").exists()
    after = plan("--measure")
    assert (tmp_path / "ran").exists() and not re.search(r" \?$", after, re.M)
    (seconds,) = re.findall(r"craft pgd.* (\d+) s$", after, re.M)
    assert 0 <= int(seconds) < 600, "12 images through 1,000 steps of one linear layer: not the hours of a stand-in"
    rates = json.loads((tmp_path / ".bench" / "rates.json").read_text())
    assert any("passes of" in name for name in rates)
    assert not re.search(r" \?$", plan(), re.M)

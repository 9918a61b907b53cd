"""Which scale of a suite a run shows, when none is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from small import go, session

from bench import UserError

NET = """
import torch
def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
"""
TEXT = """
[suite]
main = ["one"]
[datasets.test]
split = "excerpt"
stop = 8
[weights.net]
kind = "python"
name = "net.py:build"
[models.net]
weights = "net"
[attacks.pgd]
kind = "pgd"
[tables.one]
rows = ["net"]
columns = ["clean"]
[tables.crosscheck]
rows = ["net"]
columns = ["pgd"]
[scales.large]
datasets.test.stop = 7
[scales.middle]
datasets.test.stop = 6
[scales.small]
datasets.test.stop = 4
"""


def chosen(folder: Path) -> str:
    return session(folder, TEXT).suite.scale


def test_auto_is_the_largest_scale_whose_main_tables_are_recorded(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    assert chosen(tmp_path) == "small", "nothing is recorded: the last, which costs least"
    alone = TEXT[: TEXT.index("[tables.crosscheck]")]
    for scale, images in (("small", 4), ("middle", 6), ("large", 7)):
        go(tmp_path, text=alone.replace("stop = 8", f"stop = {images}"))
        assert chosen(tmp_path) == scale, "a cross-check that is missing drops nothing"


def test_a_main_table_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    with pytest.raises(UserError, match=r"(?s)toml:3: suite.*no \[tables\.oen\].*one"):
        session(tmp_path, TEXT.replace('main = ["one"]', 'main = ["oen"]'))

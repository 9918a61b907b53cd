"""A declared grid: one model or attack for each value, the keys those of the same values written one by one."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import UserError
from bench.suite.grid import MOST, spread
from bench.suite.reader import load

SUITE = """
[weights.w]
kind = "autoattack-example"
[models.m]
weights = "w"
sigma = {sigma}
label = "ResNet"
[models.plain]
weights = "w"
[attacks.pgd]
kind = "pgd"
eps = {eps}
[tables.t]
rows = ["m", "plain", ["plain", "m"], {{ target = "m", note = "again" }}]
columns = ["clean", "pgd", {{ attack = "pgd", only = ["m"] }}]
[figures.f]
kind = "draws"
models = ["m"]
"""


def read(folder: Path, sigma: str, eps: str, text: str = SUITE):
    path = folder / "s.toml"
    path.write_text(text.format(sigma=sigma, eps=eps))
    return load(path)


def test_a_list_makes_a_model_and_an_attack_each_and_tables_name_all(tmp_path: Path) -> None:
    suite = read(tmp_path, "[0, 0.1]", '["2/255", "8/255"]')
    assert list(suite.models) == ["m@sigma=0", "m@sigma=0.1", "plain"]
    assert [entry.label for entry in suite.models.values()] == ["ResNet, sigma 0", "ResNet, sigma 0.1", ""]
    assert [name for name in suite.attacks if name != "clean"] == ["pgd@eps=2-255", "pgd@eps=8-255"]
    table = suite.tables["t"]
    assert [(row.source, row.target) for row in table.rows] == [
        (None, "m@sigma=0"), (None, "m@sigma=0.1"), (None, "plain"), ("plain", "m@sigma=0"), ("plain", "m@sigma=0.1"),
        (None, "m@sigma=0"), (None, "m@sigma=0.1"),
    ]  # fmt: skip
    assert [column.label for column in table.columns[1:3]] == ["pgd, eps 2/255", "pgd, eps 8/255"]
    assert table.columns[4].only == ("m@sigma=0", "m@sigma=0.1") and suite.figures["f"].models == table.columns[4].only


@given(st.lists(st.sampled_from(["0", "0.05", "0.1", "0.25"]), min_size=1, unique=True))
def test_members_have_the_keys_of_values_written_one_by_one(tmp_path_factory, values: list[str]) -> None:
    folder = tmp_path_factory.mktemp("grid")
    grid = read(folder, f"[{', '.join(values)}]", '"8/255"')
    for value in values:
        alone = read(folder, value, '"8/255"')
        assert grid.models[f"m@sigma={value}"].model.key == alone.models["m"].model.key
        assert grid.outcomes(f"m@sigma={value}", "pgd").key == alone.outcomes("m", "pgd").key


def test_a_suite_without_a_grid_is_left_as_it_is() -> None:
    raw = {"models": {"m": {"weights": "w"}}, "attacks": {"a": {"kind": "worst", "attacks": ["b", "c"]}}}
    assert spread(raw, "s.toml") is raw


def test_two_lists_make_their_product(tmp_path: Path) -> None:
    text = SUITE.replace("[tables.t]", "steps = [5, 10]\n[tables.t]")
    suite = read(tmp_path, "0.1", '["2/255", "8/255"]', text)
    wanted = [f"pgd@eps={eps} steps={steps}" for eps, steps in itertools.product(["2-255", "8-255"], [5, 10])]
    assert [name for name in suite.attacks if name != "clean"] == wanted


def test_mistakes_in_a_grid_are_told_where_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"s\.toml:6: models\.m@sigma=-1\.sigma"):
        read(tmp_path, "[0, -1]", '"8/255"')
    with pytest.raises(UserError, match="each value once"):
        read(tmp_path, "[0, 0]", '"8/255"')
    with pytest.raises(UserError, match=f"more than {MOST:,}"):
        read(tmp_path, str([i / 10000 for i in range(MOST + 1)]), '"8/255"')


def test_a_byte_order_mark_is_no_mistake_and_moves_no_line(tmp_path: Path) -> None:
    text = SUITE.format(sigma="0.1", eps='"8/255"')
    (tmp_path / "s.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert "m" in load(tmp_path / "s.toml").models
    (tmp_path / "s.toml").write_bytes(b"\xef\xbb\xbf" + text.replace("0.1", "-1").encode())
    with pytest.raises(UserError, match=r"s\.toml:6: models\.m\.sigma"):
        load(tmp_path / "s.toml")

"""What is said of a suite's keys is what the reader takes: the schema, the page, and the suite that init writes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from documents import keys_fit as fits

from bench import UserError
from bench.suite import keys
from bench.suite.parts import PARTS
from bench.suite.reader import load
from bench.suite.starter import starter

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "suites").glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_suite_fits_the_schema(path: Path) -> None:
    assert fits(tomllib.loads(path.read_text("utf-8")))


@pytest.mark.parametrize(
    "wrong",
    ['[attacks.a]\nkind = "pgd"\nepss = 1', '[attacks.a]\nkind = "pdg"', "[protocol]\nseed = true", "[x.y]\nz = 1"],
)
def test_what_the_reader_refuses_does_not_fit(wrong: str, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(wrong)
    with pytest.raises(UserError):
        load(tmp_path / "s.toml")
    assert wrong.startswith("[protocol]") or not fits(tomllib.loads(wrong))


def test_a_grid_fits() -> None:
    assert fits(tomllib.loads('[models.m]\nweights = "w"\nsigma = [0, 0.1]\n'))


def test_every_key_of_every_recipe_is_on_the_page() -> None:
    page = keys.page()
    for kinds in PARTS.values():
        for kind in kinds:
            for name in set(kind.model_fields) - keys.PRIVATE:
                assert f"| `{name}` | " in page
    there = (ROOT / "docs" / "suite.md").read_text("utf-8")
    assert there == page, "freshdraws schema --format md --output docs/suite.md"


@pytest.mark.parametrize("model", ["net.py:build", "timm:resnet18", "autoattack-example", "pack.age:Net"])
@pytest.mark.parametrize("data", ["", "own.npz", "photos"])
def test_init_writes_a_suite_that_is_one(
    model: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").touch()
    (tmp_path / "own.npz").touch()
    (tmp_path / "photos").mkdir()
    text = starter(model, data, "s.toml")
    (tmp_path / "s.toml").write_text(text)
    suite = load(tmp_path / "s.toml")  # nothing is looked at: no survey
    assert [cell.attack for cell in suite.cells()] == ["clean", "pgd20", "strong"]
    assert fits(tomllib.loads(text))
    # every choice that is commented out is one that can be made
    chosen = text.replace("# sigma", "sigma").replace("# rule", "rule").replace("# samples", "samples")
    chosen = chosen.replace("# eps", "eps").replace("# eot", "eot").replace("# gradients", "gradients")
    (tmp_path / "s.toml").write_text(chosen.replace("# classes", "classes").replace("# stochastic", "stochastic"))
    assert len(list(load(tmp_path / "s.toml").cells())) == 3 * 4


@pytest.mark.parametrize("model", ["nope", "net.pyy:build", "missing.py:build", ":x", "timm:"])
def test_init_refuses_what_names_no_model(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if model != "net.pyy:build":  # a module of a package may be called so
        with pytest.raises(UserError):
            starter(model, "", "s.toml")
    with pytest.raises(UserError, match="neither an "):
        starter("timm:x", "no.npz", "s.toml")

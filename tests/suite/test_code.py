"""A user's code as part of keys: what it imports, what it declares, and what it is not."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from bench import UserError
from bench.recipes import Fetched, Peer
from bench.suite import code, writer
from bench.suite.files import placed
from bench.suite.reader import load

SUITE = """
[weights.w]
kind = "python"
name = "net.py:build"
{more}
[models.m]
weights = "w"
[attacks.a]
kind = "python"
name = "attack.py:Own"
[tables.t]
rows = ["m"]
columns = ["clean", "a"]
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def modules(folder: Path, name: str) -> set[str]:
    found = code.read(name, (), [folder])
    assert found is not None
    return {module or path.name for module, path in found.modules.items()}


def test_the_modules_that_a_file_imports_are_found_in_its_text(tmp_path: Path) -> None:
    texts = {
        "net": "import torch, json, plain\nfrom pack import inner\nimport pack.deep.leaf as leaf\n"
        "def build():\n    from late import thing\n    import importlib\n    importlib.import_module('named')\n",
        "plain": "import torch.nn\nfrom ring import x",
        "ring": "import plain\nx = 1",
        "pack/__init__": "from . import base\nfrom .base import *",
        "pack/inner": "from .deep import other\nfrom ..pack import base",
    }
    empty = ("pack/base", "pack/deep/__init__", "pack/deep/leaf", "pack/deep/other", "late", "named", "unused")
    write(tmp_path, **texts, **dict.fromkeys(empty, ""))
    assert modules(tmp_path, "net.py:build") == {
        "net.py", "plain", "ring", "pack", "pack.base", "pack.inner", "pack.deep", "pack.deep.leaf", "pack.deep.other",
        "late", "named",
    }  # fmt: skip
    assert modules(tmp_path, "pack.inner:f") == {"pack", "pack.base", "pack.inner", "pack.deep", "pack.deep.other"}
    assert code.read("nowhere.py:f", (), [tmp_path]) is None
    assert code.read("nowhere:f", (), [tmp_path]) is None


def test_installed_libraries_are_not_the_users_unless_they_are_what_is_named(tmp_path: Path) -> None:
    write(tmp_path, net="import numpy, typer, bench, bench.recipes")
    assert modules(tmp_path, "net.py:build") == {"net.py"}
    assert "typer.main" in modules(tmp_path, "typer.main:get_command")


def test_a_digest_is_of_the_bytes_alone(tmp_path: Path) -> None:
    text = "import sibling\ndef build(): pass\n"
    one, two = write(tmp_path / "a", net=text, sibling=""), write(tmp_path / "b" / "c", net=text, sibling="")
    (two / "net.py").write_bytes(text.replace("\n", "\r\n").encode())
    first, second = (code.read("net.py:build", ["d"], [folder]) for folder in (one, two))
    assert first and second and first.digest == second.digest, "neither place nor line ends"
    seen = {first.digest}
    for change in (
        lambda: write(two, net=text + "# a comment\n"),
        lambda: write(two, sibling="x = 1"),
        lambda: (two / "d").mkdir(),
        lambda: (two / "d" / "w").write_bytes(b"1"),
        lambda: (two / "d" / "w").write_bytes(b"2"),
        lambda: write(two, net="def build(:"),
    ):
        change()
        found = code.read("net.py:build", ["d"], [two])
        assert found and found.digest not in seen
        seen.add(found.digest)


def test_code_is_part_of_the_key_and_its_place_is_not(tmp_path: Path) -> None:
    for kind in (Fetched, Peer):
        bare = kind(kind="python", name="net.py:build")  # type: ignore[call-arg]
        keys = set()
        for folder, text in (("a", "x = 1"), ("b", "x = 1"), ("c", "x = 2")):
            made, wrong = placed(bare, [tmp_path, write(tmp_path / folder, net=text)])
            assert not wrong and made.place == pickle.loads(pickle.dumps(made)).place == str(tmp_path / folder)
            keys.add(made.key)
        assert len(keys) == 2 and bare.key not in keys
        assert placed(bare, [tmp_path])[0].key == bare.key


def test_a_suites_files_lie_beside_it_and_else_below_the_runs_folder(tmp_path: Path) -> None:
    here, root = write(tmp_path / "suites", net="x = 1"), write(tmp_path, net="x = 2", attack="")
    (here / "mine.toml").write_text(SUITE.format(more=""))
    suite = load(here / "mine.toml", root=root)
    assert suite.weights["w"].place == str(here) and suite.attacks["a"].place == str(root)
    (here / "attack.py").write_text("y = 1")
    (root / "net.py").unlink()
    again = load(here / "mine.toml", root=root)
    assert again.weights["w"].key == suite.weights["w"].key and again.attacks["a"].key != suite.attacks["a"].key
    assert again.models["m"].model.key == suite.models["m"].model.key


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('files = ["../w.pt"]', "leads outside"),
        ('files = ["/etc/passwd"]', "leads outside"),
        (f'code = "{"0" * 64}"', "the code is now"),
        ("outputs = [1, 2]", "outputs names 2 logits for 10 classes"),
        ("output = -1", "output"),
    ],
)
def test_mistakes_about_code(more: str, words: str, tmp_path: Path) -> None:
    write(tmp_path, net="", attack="")
    (tmp_path / "bad.toml").write_text(SUITE.format(more=more))
    with pytest.raises(UserError, match=words.replace("[", r"\[")):
        load(tmp_path / "bad.toml")


def test_the_toml_that_remakes_a_cell_pins_the_code_and_names_no_place(tmp_path: Path) -> None:
    write(tmp_path, net="x = 1", attack="")
    (tmp_path / "mine.toml").write_text(SUITE.format(more="outputs = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]"))
    cells = list(load(tmp_path / "mine.toml").cells())
    for cell in cells:
        text = writer.toml(cell.outcomes, "accuracy")
        assert str(tmp_path) not in text and str(cell.outcomes.target.weights.code) in text  # type: ignore[union-attr]
        (tmp_path / "again.toml").write_text(text)
        assert [again.outcomes for again in load(tmp_path / "again.toml").cells()] == [cell.outcomes]

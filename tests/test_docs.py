"""What the documentation shows is run: every block of every page, in its order."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from documents import perform
from oracles import compute, linear_problem, streams

import bench
from bench.lab.images.load import load
from bench.models.wide_resnet import WideResNet
from bench.recipes import PGD, Data
from bench.recipes.datasets import NAMED

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
FENCE = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


def sections(page: str) -> dict[str, str]:
    """The code of each section of a Markdown page that has some, by the section's title."""
    parts = re.split(r"^## ", (ROOT / page).read_text("utf-8"), flags=re.M)
    return {part.split("\n")[0]: "\n".join(FENCE.findall(part)) for part in parts if FENCE.search(part)}


@pytest.mark.parametrize("title", sections("CONTRIBUTING.md"))
def test_contributing_shows_what_works(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, object] = {}
    exec(compile(sections("CONTRIBUTING.md")[title], f"CONTRIBUTING.md: {title}", "exec"), names)
    match title:
        case "Add an attack":
            model, images, labels = linear_problem(20, seed=1)
            crafted = names["craft"](PGD(eps="1/20"), model, images, labels, streams(), compute())  # type: ignore[operator]
            assert (crafted.images - images).abs().max() <= 0.05 + 1e-6
            # of a linear classifier one step along the sign is the strongest attack there is
            assert torch.equal(model(crafted.images).argmax(1) == labels, model.robust(images, labels, 0.05))
        case "Add a data set":
            value: Any = names["VALUE"]
            monkeypatch.setitem(NAMED, "bars", value)
            monkeypatch.setitem(sys.modules, "bench.lab.images.bars", types.SimpleNamespace(read=names["read"]))
            found = load("bars", "test")
            assert found.images.shape == (20, 8, 8, 1) and found.classes == value.classes
            assert (Data(kind="bars").whole, Data(kind="bars").of_image) == (20, (1, 8, 8))
        case "Add a noise":
            bright = names["Brightness"](WideResNet(10, 1), 10).eval()  # type: ignore[operator]
            one, same, other = (bright(torch.zeros(1, 3, 8, 8), torch.Generator().manual_seed(k)) for k in (0, 0, 1))
            assert torch.equal(one, same) and not torch.equal(one, other)


RUN = "own-model own-attack own-data ablations votes numbers exit-codes defences commands"


@pytest.mark.parametrize("page", RUN.split())
def test_every_block_of_a_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    perform(ROOT / "docs" / f"{page}.md", tmp_path, monkeypatch)


@pytest.mark.parametrize("page", [*sorted((ROOT / "docs").glob("*.md")), *(ROOT / name for name in PAGES)])
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8")):
        assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_api_reference_has_every_name(tmp_path: Path) -> None:
    """`make docs`, where its generator is installed."""
    pytest.importorskip("pdoc")
    words = re.search(r"-m (pdoc .*)-o build/docs(.*)", (ROOT / "Makefile").read_text("utf-8"))
    assert words
    listed = [*words[1].split(), "-o", str(tmp_path), *words[2].split()]
    done = subprocess.run([sys.executable, "-m", *listed], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    whole = (tmp_path / "bench.html").read_text("utf-8") + (tmp_path / "bench" / "api.html").read_text("utf-8")
    assert all(f'id="{name}"' in whole for name in bench.__all__ if name not in ("nearest",))


def test_every_addition_that_contributing_names_is_in_the_tree() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for name in re.findall(r"`((?:bench|tests|docs|models|suites)/[\w./]+)`", text):
        assert (ROOT / name).exists(), name

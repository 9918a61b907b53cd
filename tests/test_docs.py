"""What the documentation shows is run: every Python block of a page, in its order, one namespace a section."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import compute, linear_problem, streams

from bench.lab.images.load import load
from bench.models.wide_resnet import WideResNet
from bench.recipes import PGD, Data
from bench.recipes.datasets import NAMED

ROOT = Path(__file__).parent.parent
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


def test_every_addition_that_contributing_names_is_in_the_tree() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for name in re.findall(r"`((?:bench|tests|docs|models|suites)/[\w./]+)`", text):
        assert (ROOT / name).exists(), name

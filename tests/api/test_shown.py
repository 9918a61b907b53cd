"""What docs/python.md and the notebook say is what happens: every block is run, in order, as it is written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import bench

DOCS = Path(__file__).parents[2] / "docs"


def run(blocks: list[str], name: str) -> dict[str, object]:
    """Blocks of code in one namespace; of the last expression of each, as a notebook does, the value is shown."""
    import ast

    space: dict[str, object] = {"__name__": name}
    for number, block in enumerate(blocks):
        tree = ast.parse(block)
        shown = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{name}, block {number}", "exec"), space)
        if shown is not None:
            value = eval(compile(ast.Expression(shown.value), f"{name}, block {number}", "eval"), space)
            if hasattr(value, "_repr_html_"):
                assert value._repr_html_()
    return space


def test_every_block_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "python.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert len(blocks) >= 6
    space = run(blocks, "python.md")
    assert isinstance(space["report"], bench.Report) and (tmp_path / "runs" / "mine" / "report.tex").is_file()
    assert "robust accuracy after APGD-CE" in capsys.readouterr().out
    for name in re.findall(r"`report\.(\w+)", text):
        assert hasattr(bench.Report, name) or name in bench.Report.__dataclass_fields__, f"the page names {name}"


def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    book = json.loads((DOCS / "evaluate.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    space = run(cells, "evaluate.ipynb")
    report = space["report"]
    assert isinstance(report, bench.Report) and report.stochastic and report.clean.value > 0.15
    assert report.attacks["pgd5@8/255"].expected.value <= report.attacks["pgd5@2/255"].expected.value

"""All that suites left in a folder as one tidy table: a row a cell, or a row an image."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import UserError, nearest
from bench.votes.votes import from_parquet

EACH = ("cell", "image")
OF_CELL = (
    "suite", "scale", "table", "model", "source", "attack", "number", "value", "low", "high", "images", "access", "eps",
    "norm", "label", "column_label", "missing", "row", "column", "target", "paper_percent", "record",
)  # fmt: skip
"""The columns of a cell. `model` is the target's name in the suite, `label` what the table calls the row."""


def rows(folder: Path, each: str = "cell") -> list[dict[str, Any]]:
    """The rows of every results/*/tables.json under a folder. Shares are in [0, 1]; None where there is nothing.

    A cell: OF_CELL. An image: suite, table, model, attack, record, then `index` (its place in the split), `true` (its
    class), `right` (share of its draws that were right, of those that no stopping rule ended: its mean is the expected
    accuracy), `vote` and `soft` (the class that each rule chooses), `draws`, `linf` (distance to the original),
    `claimed` (True where the attack believed that it had fooled its source).
    UserError where there are no results, or a file is damaged.
    """
    if each not in EACH:
        raise UserError("--each", f"{each!r} is neither cell nor image", nearest(each, EACH))
    files = sorted(folder.glob("results/*/tables.json"))
    if not files:
        raise UserError(str(folder), "holds no results/*/tables.json", "name the folder in which a suite was run")
    cells = [cell for file in files for cell in _cells(file)]
    return cells if each == "cell" else [row for cell in cells for row in _images(folder, cell)]


def _cells(file: Path) -> Iterator[dict[str, Any]]:
    try:
        whole = json.loads(file.read_text("utf-8"))
        about = {"suite": file.parent.name, "scale": whole.get("scale", "")}
        for cell in whole["cells"]:
            found = about | cell | {"model": cell["target"]}
            yield {name: found.get(name) for name in OF_CELL} | {k: v for k, v in found.items() if k not in OF_CELL}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(str(file), f"cannot be read: {error}", "run the suite again") from None


def _images(folder: Path, cell: dict[str, Any]) -> Iterator[dict[str, Any]]:
    key = str(cell["record"])
    path = folder / "results" / "records" / key[:2] / key / "votes.parquet"
    if cell["value"] is None or not path.is_file():
        return
    try:
        votes = from_parquet(path.read_bytes())
    except ValueError as error:
        raise UserError(str(path), str(error), "run the suite again") from None
    about = {name: cell[name] for name in ("suite", "scale", "table", "model", "source", "attack", "label", "record")}
    drawn = votes.drawn
    for i in range(len(votes.labels)):
        true, claim = int(votes.labels[i]), int(votes.claimed[i])
        yield about | {
            "index": int(votes.index[i]), "true": true, "right": float(votes.prefix[i, true]) / votes.prefix_draws,
            "vote": int(votes.counts[i].argmax()), "soft": int(votes.soft[i]), "draws": int(drawn[i]),
            "linf": float(votes.linf[i]), "claimed": None if claim < 0 else bool(claim),
        }  # fmt: skip


def frame(found: Sequence[dict[str, Any]]) -> Any:
    """Rows as a pandas.DataFrame, or a pyarrow.Table where there is no pandas."""
    try:
        import pandas
    except ImportError:
        import pyarrow

        return pyarrow.Table.from_pylist(list(found))
    return pandas.DataFrame(found)

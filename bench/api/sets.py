"""Data sets of the user's own as values, and the results that suites left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import UserError


def dataset(kind: str, path: str = "", **about: Any) -> Dataset:
    """A data set of the user's own, looked at: kind "npz", "folder" or "python" (path file.py:function), or a named.

    Give it to `bench.evaluate` as data, or write its `toml()` into a suite. A function is run here. `about` are further
    fields of `bench.recipes.Data`, such as split, indices, order, classes, arguments.
    """
    from pydantic import ValidationError

    from bench.lab.images.own import described, look
    from bench.recipes import Data

    try:
        data = Data(kind=kind, path=path, place=str(Path.cwd()), **about)
    except ValidationError as error:
        raise UserError(
            "dataset", error.errors()[0]["msg"].removeprefix("Value error, "), "see bench.dataset"
        ) from None
    return Dataset(described(data, look(data)) if data.own else data)


@dataclass(frozen=True)
class Dataset:
    """A data set as a recipe."""

    data: Any

    def toml(self, name: str = "test") -> str:
        """The lines that declare it in a suite."""
        from bench.suite.writer import section

        return section(("datasets", name), self.data)


def results(folder: Path | str = ".") -> Any:
    """Every number that suites left under FOLDER/results, a row a cell: suite, scale, table, row, column, source,
    target, attack, number, value, low, high (shares in [0, 1]), images, record. A pandas.DataFrame, or a
    pyarrow.Table where there is no pandas."""
    files = sorted(Path(folder).glob("results/*/tables.json"))
    if not files:
        raise UserError(str(folder), "holds no results/*/tables.json", "name the folder in which a suite was run")
    lines: list[dict[str, Any]] = []
    for file in files:
        try:
            whole = json.loads(file.read_text("utf-8"))
            lines += [{"suite": file.parent.name, "scale": whole.get("scale", "")} | cell for cell in whole["cells"]]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(str(file), f"cannot be read: {error}", "run the suite again") from None
    try:
        import pandas
    except ImportError:
        import pyarrow

        return pyarrow.Table.from_pylist(lines)
    return pandas.DataFrame(lines)

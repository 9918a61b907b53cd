"""Data sets of the user's own as values, and the results that suites left."""

from __future__ import annotations

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


def results(folder: Path | str = ".", each: str = "cell") -> Any:
    """Every number that suites left under FOLDER/results, in one tidy frame.

    `each` is "cell" (a row a cell: suite, scale, table, model, source, attack, number, value, low, high, images, ...)
    or "image" (a row an image of every cell). `bench.report.frame.rows` names all columns; shares are in [0, 1].
    A pandas.DataFrame, or a pyarrow.Table where there is no pandas. UserError where there are no results.
    """
    from bench.report.frame import frame, rows

    return frame(rows(Path(folder), each))

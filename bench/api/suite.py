"""The suite that makes a report again, and the files that it needs beside it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.recipes import Data, Fetched
from bench.store.disk import write, writing
from bench.suite.cells import Suite
from bench.suite.writer import whole

if TYPE_CHECKING:
    from torch import nn

    from bench.lab.images.load import Images

STATE = "weights"
FILE = "images.npz"


class Remade(NamedTuple):
    """A report's suite; the images and the network where only the program has them; the files of its source,
    by where they are to lie."""

    suite: Suite
    images: Images | None
    net: nn.Module | None
    code: Mapping[str, Path]
    missing: str

    def toml(self) -> str:
        """The suite as a file; what another program could not find is said at its top."""
        named = self._named()
        lines = [f"# {line}" for line in self.says()]
        return "\n".join([*lines, *([""] if lines else []), whole(named)])

    def says(self) -> list[str]:
        """What the suite needs beside it, and what is missing."""
        lines = []
        if self.images is not None and self._data.kind == "npz":
            lines.append(f"images: {FILE}, which report.save(folder) writes beside this file")
        if self.net is not None and not self.missing:
            lines.append(f"weights: the folder {STATE}, and {', '.join(sorted(self.code))}, which")
            lines.append("report.save(folder) writes beside this file")
        if self.missing:
            lines.append(f"missing: {self.missing}")
        return lines

    def save(self, folder: Path) -> None:
        """Write suite.toml and what it names into the folder."""
        if self.images is not None and self._data.kind == "npz":
            found = self.images
            with writing(folder / FILE):
                folder.mkdir(parents=True, exist_ok=True)
                np.savez(
                    folder / FILE, images=found.images, labels=found.labels, index=found.index,
                    classes=np.array(found.classes),
                )  # fmt: skip
        if self.net is not None and not self.missing:
            from bench.lab.weights.files import write_shards
            from bench.models.adapters.held import Redrawn

            state = {name: tensor.detach().cpu() for name, tensor in self.net.state_dict().items()}
            assert not isinstance(self.net, Redrawn)
            with writing(folder / STATE):
                (folder / STATE).mkdir(parents=True, exist_ok=True)
                if state:
                    write_shards(folder / STATE, state)
                for name, path in self.code.items():
                    if path.resolve() != (folder / name).resolve():
                        (folder / name).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(path, folder / name)
        write(folder / "suite.toml", self.toml().encode())

    @property
    def _data(self) -> Data:
        return self.suite.datasets["test"]

    def _named(self) -> Suite:
        """The suite with the place of the weights' numbers in it."""
        if self.net is None or not self.net.state_dict():
            return self.suite
        models = {}
        for name, entry in self.suite.models.items():
            weights = entry.weights
            if isinstance(weights, Fetched) and weights.kind == "memory" and weights.build:
                entry = entry.model_copy(update={"weights": weights.model_copy(update={"state": STATE})})
            models[name] = entry
        return self.suite._replace(models=models)

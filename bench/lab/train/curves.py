"""The curves of a training: loss and held-out accuracy by epoch, as Parquet and as TensorBoard events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import UserError
from bench.lab.attacks import pgd
from bench.lab.compute.passes import Compute
from bench.lab.streams import Streams
from bench.models.classifier import Classifier
from bench.recipes import PGD

FILE = "curves.parquet"


def validate(
    model: Classifier, images: Tensor, labels: Tensor, attack: PGD, streams: Streams, compute: Compute
) -> dict[str, float | None]:
    """Accuracy on held-out images as they are ("clean") and under `attack` ("attacked"), one fresh draw each."""
    if len(images) == 0:
        return {"clean": None, "attacked": None}
    crafted = pgd.craft(attack, model, images, labels, streams, compute).images
    result: dict[str, float | None] = {}
    for index, (name, inputs) in enumerate([("clean", images), ("attacked", crafted)]):
        with torch.no_grad():
            realisation = model.realise(inputs.shape, streams.generator("score", index))
        right = compute.logits(realisation, inputs).argmax(1) == labels
        result[name] = float(right.float().mean())
    return result


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """One row an epoch: epoch (from 1), steps done, mean training loss, clean and attacked accuracy, learning rate."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"epoch": pa.int32(), "step": pa.int64()}
    names = ("epoch", "step", "loss", "clean", "attacked", "rate")
    columns = {name: pa.array([row[name] for row in rows], kinds.get(name, pa.float64())) for name in names}
    pq.write_table(pa.table(columns), path, compression="zstd")


class Events:
    """TensorBoard's scalars of each epoch, in `directory`; nothing where that is None."""

    def __init__(self, directory: Path | None) -> None:
        self.writer: Any = None
        if directory is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            fix = "pip install 'freshdraws[tensorboard]', or leave the option away"
            raise UserError("--tensorboard", "the package tensorboard is not installed", fix) from None
        self.writer = SummaryWriter(str(directory))

    def add(self, row: dict[str, Any]) -> None:
        if self.writer is not None:
            for name in ("loss", "clean", "attacked", "rate"):
                if row[name] is not None:
                    self.writer.add_scalar(name, row[name], row["epoch"])
            self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()

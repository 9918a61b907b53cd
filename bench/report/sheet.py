"""Contact sheets: images as they were, as an attack left them, and what the model then says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bench.report.figures import Tile
from bench.report.plots import PAGE, setting_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def contact(setting: str, rows: Sequence[tuple[str, list[Tile]]]) -> Figure:
    """A contact sheet: for each model three lines of images, as they were, the perturbation, as attacked."""
    from matplotlib.figure import Figure

    gain = gain_of([tile for _, tiles in rows for tile in tiles])
    columns = max(len(tiles) for _, tiles in rows)
    figure = Figure(figsize=(PAGE, (3.4 * PAGE / (columns + 0.5)) * len(rows) + 0.4))
    parts = np.ravel(figure.subfigures(len(rows), 1, squeeze=False))
    for part, (name, tiles) in zip(parts, rows, strict=True):
        part.suptitle(name, fontsize=9.5, fontweight="bold")
        axes = part.subplots(3, columns, squeeze=False)
        for column, tile in zip(axes.T, tiles, strict=False):
            shown = (tile.before, 0.5 + gain * (tile.after - tile.before), tile.after)
            for axis, image in zip(column, shown, strict=True):
                whole = np.broadcast_to(np.clip(image.transpose(1, 2, 0), 0, 1), (*image.shape[1:], 3))
                axis.imshow(whole, interpolation="nearest")
            right = "\N{CHECK MARK}" if tile.predicted == tile.label else "\N{MULTIPLICATION SIGN}"
            share = "" if tile.share == 1 else f" {100 * tile.share:.0f} %"
            column[0].set_title(name_of(tile, tile.label), fontsize=8)
            column[2].set_xlabel(f"{right} {name_of(tile, tile.predicted)}{share}", fontsize=8)
        for axis in np.ravel(axes):
            axis.grid(False)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for axis, side in zip(axes[:, 0], ("original", f"difference × {gain}", "attacked"), strict=True):
            axis.set_ylabel(side, fontsize=8)
    setting_of(figure, setting)
    return figure


def gain_of(tiles: Sequence[Tile]) -> int:
    """How often a perturbation is enlarged around grey, so that the largest is near black or white and none beyond."""
    largest = max((float(np.abs(tile.after - tile.before).max()) for tile in tiles), default=0.0)
    return max(1, int(0.5 / largest)) if largest > 0 else 1


def name_of(tile: Tile, label: int) -> str:
    name = tile.names[label] if label < len(tile.names) else str(label)
    return SHORT.get(name, name)


SHORT = {"airplane": "plane", "automobile": "car"}  # a tile has little room

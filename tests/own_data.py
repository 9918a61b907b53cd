"""Small real data sets of every kind, made from the images that ship with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.lab.images.load import load


def excerpt(n: int, classes: int = 10, start: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 32, 32, 3) of the first `classes` classes, and their labels."""
    found = load("cifar10", "excerpt")
    rows = np.flatnonzero(found.labels < classes)[start : start + n]
    return found.images[rows], found.labels[rows]


def grey(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, h, w, 1): the usual weights of red, green and blue."""
    return np.rint(images @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]


def large(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, 64, 64, 3): every pixel four times."""
    return images.repeat(2, 1).repeat(2, 2)


def npz(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], **more: object) -> Path:
    np.savez(path, images=images, labels=labels, **more)
    return path


def folder(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], names: tuple[str, ...]) -> Path:
    """A folder a class of PNG files."""
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = path / names[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.squeeze()).save(place / f"{i:04d}.png", compress_level=0)
    return path

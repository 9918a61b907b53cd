"""Proof of images: digests that do not depend on the order in which a disk holds them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.lab.images.cifar10_files import Labels, Pixels


class Split(NamedTuple):
    """A split as a loader found it: where, pixels (n, h, w, c) uint8, labels (n,), and the rows (n,) int64 that bring
    it into its canonical order."""

    where: str
    pixels: Pixels
    labels: Labels
    order: Callable[[Pixels, Labels], NDArray[np.int64]]


def digests(images: Pixels) -> list[bytes]:
    """SHA-256 of each image (n, ...)."""
    return [hashlib.sha256(image.data).digest() for image in np.ascontiguousarray(images)]


def joined(parts: list[bytes], ordered: bool = False) -> str:
    """SHA-256 (hex) over digests: sorted, so that their order is nothing, unless it is `ordered`."""
    return hashlib.sha256(b"".join(parts if ordered else sorted(parts))).hexdigest()


def labelled(parts: list[bytes], labels: Labels) -> str:
    """SHA-256 (hex) over the sorted digests, each followed by its label, a byte."""
    return joined([digest + bytes([label]) for digest, label in zip(parts, labels, strict=True)])


def ranks(pixels: Pixels, labels: Labels) -> NDArray[np.int64]:
    """The order by digest: the same whatever order the files have."""
    found = digests(pixels)
    return np.array(sorted(range(len(found)), key=found.__getitem__), np.int64)


def as_found(pixels: Pixels, labels: Labels) -> NDArray[np.int64]:
    """The order of the files, where it is the only one there is."""
    return np.arange(len(labels))


def fingerprint(images: Pixels) -> str:
    """SHA-256 (hex) over the sorted SHA-256 digests of the images (n, ...) uint8, whatever their order."""
    return joined(digests(images))


def content(images: NDArray[np.generic], labels: NDArray[np.int64]) -> str:
    """SHA-256 (hex) of images (n, h, w, c), uint8 or float32, and labels (n,), in their order: what own data is."""
    digest = hashlib.sha256(f"{images.dtype.str} {images.shape}\n".encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels, "<i8").data)
    return digest.hexdigest()

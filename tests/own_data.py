"""Small real data sets of every kind, made from the images that ship with the package."""

from __future__ import annotations

import io
import struct
import tarfile
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


def python2_cifar100(images: NDArray[np.uint8], fine: list[int], coarse: list[int], split: str) -> bytes:
    """A file of CIFAR-100 as Python 2 pickled it (protocol 2): its keys, their order, and plain strings for bytes."""
    raw, n = images.transpose(0, 3, 1, 2).tobytes(), len(images)

    def text(words: str) -> bytes:
        return b"U" + bytes([len(words)]) + words.encode()

    def listed(items: list[bytes]) -> bytes:
        parts = [b"(" + b"".join(items[i : i + 1000]) + b"e" for i in range(0, len(items), 1000)]
        return b"]" + b"".join(parts)

    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
    array += (
        b"M" + struct.pack("<H", n) + b"M\x00\x0c\x86" + dtype + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )
    names = listed([text(f"thing_s_{i:06d}.png") for i in range(n)])
    labels = [listed([b"K" + bytes([label]) for label in some]) for some in (fine, coarse)]
    pairs = [
        text("filenames") + names, text("batch_label") + text(f"{split}ing batch 1 of 1"),
        text("fine_labels") + labels[0], text("coarse_labels") + labels[1], text("data") + array,
    ]  # fmt: skip
    return b"\x80\x02}(" + b"".join(pairs) + b"u."


def cifar100_archive(path: Path, files: dict[str, bytes]) -> Path:
    """cifar-100-python.tar.gz: the folder with train, test, meta and the file that its authors forgot in it."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in ({"file.txt~": b""} | files).items():
            about = tarfile.TarInfo(f"cifar-100-python/{name}")
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return path

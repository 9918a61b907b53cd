"""The three ways CIFAR-10 lies on a disk, each read as untrusted: sizes before decoding, and no code run.

A reader returns pixels (n, 32, 32, 3) uint8 and labels (n,) uint8 in the order of its files, or
raises UserError naming the file. Whether they are the right images is for `bench.lab.images.load` to check.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench import UserError
from bench.recipes.datasets import CIFAR10

CLASSES = CIFAR10.classes
TILES, SIDE = 100, 32  # a mosaic is TILES x TILES images of SIDE x SIDE pixels
BATCHES = "cifar-10-batches-py"
FILE_LIMIT = 256 * 2**20  # bytes; the largest file of any layout, CIFAR-100's training set, has 155 million

Pixels = NDArray[np.uint8]
Labels = NDArray[np.uint8]


class Source(NamedTuple):
    """One split in one layout: a name for messages, and how to read it."""

    where: str
    read: Callable[[], tuple[Pixels, Labels]]


def find(root: Path, split: str) -> Source | None:
    """The first layout in which `root` holds the split ("train" or "test"); None if it holds none."""
    batches = root if root.name == BATCHES else root / BATCHES
    if batches.is_dir():
        names = ["test_batch"] if split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
        return Source(str(batches), lambda: _join(batch(batches / name) for name in names))
    mosaics = [root / name for name in (["test.webp"] if split == "test" else [f"train-{i}.webp" for i in range(5)])]
    labels = root / f"{split}-labels.npy"
    if labels.exists() or any(path.exists() for path in mosaics):
        return Source(f"{mosaics[0]} and {labels.name}", lambda: mosaic(mosaics, labels))
    if (root / split).is_dir():
        return Source(str(root / split), lambda: _class_folders(root / split))
    return None


def mosaic(files: list[Path], labels: Path) -> tuple[Pixels, Labels]:
    """Images from lossless mosaics of 100 x 100 tiles, labels from one .npy file for all of them."""
    pixels = np.concatenate([_tiles(path) for path in files])
    return pixels, _label_file(labels, len(pixels))


def _tiles(path: Path) -> Pixels:
    size = TILES * SIDE
    grid = _image(path, "WEBP", size).reshape(TILES, SIDE, TILES, SIDE, 3)
    return np.ascontiguousarray(grid.transpose(0, 2, 1, 3, 4).reshape(-1, SIDE, SIDE, 3))


def _label_file(path: Path, count: int) -> Labels:
    with _damage(path):
        # Mapping reads the header alone, checks it against the file's length, and refuses Python objects.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.shape != (count,) or array.dtype != np.uint8:
            raise ValueError(f"holds {array.dtype} {array.shape}, not uint8 ({count},)")
        return np.array(array)


def _class_folders(folder: Path) -> tuple[Pixels, Labels]:
    missing = [name for name in CLASSES if not (folder / name).is_dir()]
    if missing:
        raise UserError(str(folder), f"no folder for {', '.join(missing)}", "one folder of PNG files for each class")
    files = [(path, label) for label, name in enumerate(CLASSES) for path in sorted((folder / name).glob("*.png"))]
    if len(files) not in (10_000, 50_000):
        raise UserError(str(folder), f"holds {len(files)} PNG files, not 10,000 (test) or 50,000 (train)")
    pixels = np.stack([_image(path, "PNG", SIDE) for path, _ in files])
    return pixels, np.array([label for _, label in files], np.uint8)


def _image(path: Path, form: str, side: int) -> Pixels:
    """A square RGB image whose header is checked before anything is decoded."""
    with _damage(path), Image.open(path, formats=[form]) as image:
        if image.size != (side, side) or image.mode != "RGB":
            raise ValueError(f"is {image.mode} {image.size}, not RGB {(side, side)}")
        return np.asarray(image)


def batch(path: Path, name: str = "labels") -> tuple[Pixels, Labels]:
    """A pickled batch of the original distribution: 'data' (n, 3072) channels first, and labels by `name`."""
    with _damage(path):
        raw = path.read_bytes()
        # The unpickler would set memory aside for any memo index and length a hostile file names.
        if any(op.name in ("PUT", "LONG_BINPUT") and (arg or 0) > len(raw) for op, arg, _ in pickletools.genops(raw)):
            raise ValueError("names a memo entry beyond its own length")
        content = _Unpickler(io.BytesIO(raw), encoding="bytes").load()
        if not isinstance(content, dict):
            raise ValueError("is not a batch of CIFAR")
        data, labels = (content.get(key.encode(), content.get(key)) for key in ("data", name))
        if not isinstance(data, _Array) or not isinstance(labels, list):
            raise ValueError("is not a batch of CIFAR")
        pixels = np.frombuffer(data.raw, np.uint8).reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
        if len(pixels) != len(labels):
            raise ValueError(f"holds {len(pixels)} images and {len(labels)} labels")
        return np.ascontiguousarray(pixels), np.array(labels, np.uint8)


class _Array:
    """Stands for a pickled NumPy array: keeps its bytes, and never hands its state to NumPy."""

    raw = b""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 5 and isinstance(state[4], bytes):
            self.raw = state[4]


class _Unpickler(pickle.Unpickler):
    """Knows the three names a pickled array needs, each as an inert stand-in, and refuses all others."""

    _known = frozenset(
        (module, name)
        for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
        for name in ("ndarray", "dtype", "_reconstruct")
    )

    def find_class(self, module: str, name: str) -> type[_Array]:
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"asks for {module}.{name}, which no batch of CIFAR-10 needs; it was not run")
        return _Array


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Whatever goes wrong while reading `path` becomes one message that names it."""
    try:
        if path.stat().st_size > FILE_LIMIT:
            raise ValueError(f"has {path.stat().st_size:,} bytes: no file of CIFAR is that large")
        yield
    except FileNotFoundError:
        raise UserError(str(path), "the file is missing", "the other files of its layout are there") from None
    except UserError:
        raise
    # Pillow, NumPy and a hostile pickle can between them raise nearly anything.
    except Exception as error:
        raise UserError(str(path), f"cannot be read: {error}", "restore it, or fetch the data set anew") from error


def _join(parts: Iterator[tuple[Pixels, Labels]]) -> tuple[Pixels, Labels]:
    pixels, labels = zip(*parts, strict=True)
    return np.concatenate(pixels), np.concatenate(labels)

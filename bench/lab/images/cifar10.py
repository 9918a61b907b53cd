"""CIFAR-10 (Krizhevsky 2009): where its splits are, and their canonical order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import UserError
from bench.lab.images import cifar10_files
from bench.lab.images.cifar10_files import Labels, Pixels, Source
from bench.lab.images.proof import Split, digests, joined, ranks

SHIPPED = Path(__file__).parent / "data" / "cifar10"
# SHA-256 of the digests of the test images in their original order.
TEST_ORDER = "7369b6bd11ac9581431e896b05428e4a60d72157387d9f3c9e778e5bb5244d12"
FETCH = (
    "give a directory with torchvision's download of CIFAR10 (cifar-10-batches-py), one folder of PNG files "
    "per class (train/airplane/...), or mosaics (train-0.webp to train-4.webp, train-labels.npy); "
    "or allow the download, which fetches torchvision's into that directory"
)


def read(split: str, root: Path | None, download: bool = False) -> Split:
    """One split as it lies on a disk, in the order of its files, with the way to its canonical order.

    "test" is read from `root` if it is there, else from the copy in the package; "excerpt" always from the package;
    "train" needs `root` in one of the layouts of `cifar10_files`, or `download` to have torchvision put it there.
    """
    source = _source(split, root, download)
    pixels, labels = source.read()
    return Split(source.where, pixels, labels, _test_order if split == "test" else ranks)


def _source(split: str, root: Path | None, download: bool) -> Source:
    if split == "excerpt":
        return shipped("train-excerpt")
    if root is not None:
        if not root.is_dir() and not download:
            raise UserError(str(root), "there is no such directory of data", FETCH)
        found = cifar10_files.find(root, split)
        if found is None and download and split == "train":
            fetch("CIFAR10", root, FETCH)
            found = cifar10_files.find(root, split)
        if found is not None:
            return found
    if split == "test":
        return shipped("test")
    where = "the data directory" if root is None else str(root)
    raise UserError(where, "the 50,000 training images are not shipped with the package, nor found here", FETCH)


def shipped(name: str) -> Source:
    """The copy in the package."""
    image, labels = SHIPPED / f"{name}.webp", SHIPPED / f"{name}-labels.npy"
    return Source(f"{image} and {labels.name}", lambda: cifar10_files.mosaic([image], labels))


def fetch(name: str, root: Path, fix: str) -> None:
    """Have torchvision download one of its data sets into `root`; UserError in words where it cannot."""
    from torchvision import datasets

    try:
        getattr(datasets, name)(str(root), download=True)  # checks the archive's MD5 before anything is read from it
    except Exception as error:
        raise UserError(str(root), f"{name} could not be downloaded: {_reason(error)}", fix) from error


def _reason(error: BaseException) -> str:
    """A failed download in words: the network's own words say neither from where nor what to do."""
    text = str(getattr(error, "reason", None) or error)
    if isinstance(error, OSError) and "urlopen" in str(error):
        return f"no connection to its server ({text})"
    return text or type(error).__name__


def _test_order(pixels: Pixels, labels: Labels) -> NDArray[np.int64]:
    """Where each image of the original order is; the right set of images is assumed (none occurs twice)."""
    found = digests(pixels)
    if joined(found, ordered=True) == TEST_ORDER:
        return np.arange(len(found))
    original, _ = shipped("test").read()
    place = {digest: row for row, digest in enumerate(found)}
    return np.array([place[digest] for digest in digests(original)], np.int64)

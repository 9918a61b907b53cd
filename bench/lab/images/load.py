"""Images by split, the same arrays from every source, and proof that they are the right ones."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import UserError, nearest
from bench.lab.images.cifar10 import FETCH, SHIPPED
from bench.lab.images.cifar10_files import CLASSES
from bench.lab.images.proof import Split, digests, fingerprint, joined, labelled
from bench.recipes.datasets import NAMED, DataSet
from bench.store.disk import write

if TYPE_CHECKING:
    from torch import Tensor

    from bench.recipes import Data

__all__ = ["CLASSES", "FETCH", "SHIPPED", "Images", "as_tensor", "fingerprint", "load", "of", "rows_of", "shuffle"]


class Images(NamedTuple):
    """A split in its canonical order.

    images (n, h, w, c) uint8, or float32 in [0, 1] where no byte says them; labels (n,) int64; index (n,) int64, the
    position in the canonical order of the split; classes, the labels' names; fingerprint of the split.
    """

    images: NDArray[Any]
    labels: NDArray[np.int64]
    index: NDArray[np.int64]  # type: ignore[assignment]  # a tuple's method of that name is not missed
    classes: tuple[str, ...]
    fingerprint: str

    def take(self, rows: NDArray[np.int64] | slice) -> Images:
        """The chosen rows, which keep their index and the fingerprint of the split they are from."""
        return self._replace(images=self.images[rows], labels=self.labels[rows], index=self.index[rows])


def of(data: Data, root: Path | None = None, *, download: bool = False, kept: Path | None = None) -> Images:
    """The whole split that a recipe's images are of, in its canonical order; UserError as `load` and `own.read`."""
    if data.own:
        from bench.lab.images import own

        return own.read(data)
    return load(data.kind, data.split, root, download=download, kept=kept)


def rows_of(data: Data, n: int) -> NDArray[np.int64]:
    """Which of a split's n rows a recipe takes, and in which order, before its start and stop."""
    if data.indices is not None:
        return np.asarray(data.indices, np.int64)
    return np.arange(n) if data.order == "original" else shuffle(n, data.shuffle)


def load(
    dataset: str = "cifar10",
    split: str = "test",
    root: Path | None = None,
    *,
    download: bool = False,
    kept: Path | None = None,
) -> Images:
    """Read a split of a named data set and check pixels and labels against what is known of it.

    CIFAR-10's "test" has the order of the original distribution; "train" (50,000) and "excerpt" (10,000 of them)
    are in the order of their images' SHA-256, so that no source's order matters. `root` is the folder of data sets,
    into which `download` has torchvision put what is missing. In the folder `kept` the decoded images are left,
    and the next time taken from there if they are still the same. UserError for an unknown data set or split,
    a missing or damaged file, and any set of images or labels that is not the data set's.
    """
    if dataset not in NAMED:
        raise UserError(f"data set {dataset!r}", "unknown", nearest(dataset, NAMED))
    about = NAMED[dataset]
    if split not in about.splits:
        raise UserError(f"split {split!r}", "unknown", nearest(split, about.splits))
    file = None if kept is None or split not in about.fingerprints else kept / f"{dataset}-{split}.bin"
    images = None if file is None else _kept(file, about, split)
    if images is None:
        module, _, name = about.loader.partition(":")
        images = _checked(getattr(importlib.import_module(module), name)(split, root, download), about, split)
        if file is not None:
            write(file, images.labels.astype(np.uint8).tobytes() + images.images.tobytes(), lasting=False)
    return images


def _kept(file: Path, about: DataSet, split: str) -> Images | None:
    """A split as `load` left it: the labels, then the pixels, a byte each. None if it is not there or not that."""
    try:
        data = np.fromfile(file, np.uint8)
    except OSError:
        return None
    channels, height, width = about.shape
    size = channels * height * width
    count = len(data) // (1 + size)
    if len(data) != count * (1 + size):
        return None
    return _known(data[count:].reshape(-1, height, width, channels), data[:count], about, split)


def _known(pixels: NDArray[np.uint8], labels: NDArray[np.uint8], about: DataSet, split: str) -> Images | None:
    """The split, if these are its images and labels in its canonical order.

    One digest of all of them: where that is enough, ten thousand of an image each are not taken,
    which would fight the import of torch for the interpreter.
    """
    digest = hashlib.sha256(labels.data)
    digest.update(pixels.data)
    proof = about.fingerprints[split]
    if digest.hexdigest() != proof.decoded:
        return None
    return Images(pixels, labels.astype(np.int64), np.arange(len(labels)), about.classes, proof.images)


def _checked(found: Split, about: DataSet, split: str) -> Images:
    pixels, labels = found.pixels, found.labels
    if split not in about.fingerprints:  # proved by its loader
        images = Images(pixels, labels.astype(np.int64), np.arange(len(labels)), about.classes, "")
        return images.take(found.order(pixels, labels))
    if known := _known(pixels, labels, about, split):
        return known
    parts, proof, name = digests(pixels), about.fingerprints[split], _title(about)
    if joined(parts) != proof.images:
        what = f"these are not the images of {name} ({split}): fingerprint {joined(parts)}, expected {proof.images}"
        raise UserError(found.where, what, "restore the files, or fetch the data set anew")
    if labelled(parts, labels) != proof.labelled:
        raise UserError(found.where, f"the images are right, but not their labels ({split})", "restore the labels")
    order = found.order(pixels, labels)
    return Images(
        pixels[order], labels[order].astype(np.int64), np.arange(len(order)), about.classes, proof.images
    )  # fmt: skip


def _title(about: DataSet) -> str:
    return about.name.upper().replace("CIFAR", "CIFAR-")


def shuffle(n: int, seed: int) -> NDArray[np.int64]:
    """A fixed permutation (n,) int64; its first N entries are the subset of a run limited to N images.

    It sorts the raw words of PCG64, whose stream NumPy keeps for ever, as it does not for the
    methods of its Generator.
    """
    word = int.from_bytes(hashlib.sha256(f"shuffle {seed}".encode()).digest()[:16], "big")
    return np.argsort(np.random.PCG64(word).random_raw(n), kind="stable").astype(np.int64)


def as_tensor(images: NDArray[Any]) -> Tensor:
    """uint8 or float32 (n, h, w, c) -> float32 (n, c, h, w) in [0, 1], on the CPU.

    Bytes are divided here and not on an accelerator, whose division by a constant may round differently.
    """
    import torch  # here, so that images are decoded while it is loaded

    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return pixels.to(torch.float32) / 255 if images.dtype == np.uint8 else pixels

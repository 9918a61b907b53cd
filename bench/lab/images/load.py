"""Images by split, the same arrays from every source, and proof that they are the right ones."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import UserError, nearest
from bench.lab.images import cifar10_files
from bench.lab.images.cifar10_files import CLASSES, SIDE, Labels, Pixels, Source
from bench.store.disk import write

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "test", "excerpt"]
SHIPPED = Path(__file__).parent / "data" / "cifar10"

# The fingerprint of the images, and of the images with their labels (bench/lab/images/data/cifar10/README.md).
KNOWN: dict[str, tuple[str, str]] = {
    "test": (
        "eb97bdfceb97fec3832a6abdbbf9f16340a510375c77ce1b32c45de1e6d88318",
        "1b04d3429fedbbe10d7f49e7b0e05dbc88ced3c8667b55585d11660d96ca3dc6",
    ),
    "train": (
        "6bebf6967ad9d2d12d9cf95f54164bd95a0954d3177f1285fa8dd3673671ca76",
        "82fb45c778383c932698f6014846eb97f11bdc4442e0946e98d22cd01c54e4ae",
    ),
    "excerpt": (
        "ca85630bc444989105bf31165d033bb95897eff1a4201bcb2885a32fa082a0d4",
        "d5e3534cafa8e9a108251cba0f3fd5dbf0af5a267cf4d757d127eb75cee33663",
    ),
}
# SHA-256 of a split's labels and pixels, a byte each, in its canonical order.
DECODED = {
    "test": "1695efc9dc931b768f20f5cb2956256bc3a12eba128a3d7f6f8a6a6910d3b57e",
    "train": "ed6e80aa6b3746801fbdf4392a7f9cc2e1d3131cb5fe10c8dccbd9bca726b402",
    "excerpt": "f5d970275fa0c4c1fce6f57710621ceb8c279f1be51a878bb6737d7eff3eb360",
}
# SHA-256 of the digests of the test images in their original order.
TEST_ORDER = "7369b6bd11ac9581431e896b05428e4a60d72157387d9f3c9e778e5bb5244d12"
FETCH = (
    "give a directory with torchvision's download of CIFAR10 (cifar-10-batches-py), one folder of PNG files "
    "per class (train/airplane/...), or mosaics (train-0.webp to train-4.webp, train-labels.npy); "
    "or allow the download, which fetches torchvision's into that directory"
)


class Images(NamedTuple):
    """A split in its canonical order.

    images (n, 32, 32, 3) uint8 RGB; labels (n,) int64; index (n,) int64, the position in the
    canonical order of the split; classes, the labels' names; fingerprint of the split.
    """

    images: Pixels
    labels: NDArray[np.int64]
    index: NDArray[np.int64]  # type: ignore[assignment]  # a tuple's method of that name is not missed
    classes: tuple[str, ...]
    fingerprint: str

    def take(self, rows: NDArray[np.int64] | slice) -> Images:
        """The chosen rows, which keep their index and the fingerprint of the split they are from."""
        return self._replace(images=self.images[rows], labels=self.labels[rows], index=self.index[rows])


def load(
    dataset: str = "cifar10",
    split: Split = "test",
    root: Path | None = None,
    *,
    download: bool = False,
    kept: Path | None = None,
) -> Images:
    """Read a split and check pixels and labels against the known fingerprints.

    "test" has the order of the original distribution; "train" (50,000) and "excerpt" (10,000 of
    them) are in the order of their images' SHA-256, so that no source's order matters. "test"
    is read from `root` if it is there, else from the copy in the package; "excerpt" always from
    the package; "train" needs `root` in one of the layouts of `bench.lab.images.cifar10_files`, or
    `download=True` to have torchvision put it there. In the folder `kept` the decoded images are left,
    and the next time taken from there if they are still the same. UserError for an unknown data set or split,
    a missing or damaged file, and any set of images or labels that is not CIFAR-10's.
    """
    if dataset != "cifar10":
        raise UserError(f"data set {dataset!r}", "unknown", nearest(dataset, ["cifar10"]))
    if split not in KNOWN:
        raise UserError(f"split {split!r}", "unknown", nearest(split, KNOWN))
    source = _source(split, root, download)
    file = None if kept is None else kept / f"{dataset}-{split}.bin"
    images = None if file is None else _kept(file, split)
    if images is None:
        images = _checked(source, split)
        if file is not None:
            write(file, images.labels.astype(np.uint8).tobytes() + images.images.tobytes(), lasting=False)
    return images


def _kept(file: Path, split: Split) -> Images | None:
    """A split as `load` left it: the labels, then the pixels, a byte each. None if it is not there or not that."""
    try:
        data = np.fromfile(file, np.uint8)
    except OSError:
        return None
    count = len(data) // (1 + 3 * SIDE**2)
    if len(data) != count * (1 + 3 * SIDE**2):
        return None
    return _known(data[count:].reshape(-1, SIDE, SIDE, 3), data[:count], split)


def _known(pixels: Pixels, labels: Labels, split: Split) -> Images | None:
    """The split, if these are its images and labels in its canonical order.

    One digest of all of them: where that is enough, ten thousand of an image each are not taken,
    which would fight the import of torch for the interpreter.
    """
    digest = hashlib.sha256(labels.data)
    digest.update(pixels.data)
    if digest.hexdigest() != DECODED[split]:
        return None
    return Images(pixels, labels.astype(np.int64), np.arange(len(labels)), CLASSES, KNOWN[split][0])


def _checked(source: Source, split: Split) -> Images:
    pixels, labels = source.read()
    if found := _known(pixels, labels, split):
        return found
    digests = _digests(pixels)
    images, labelled = KNOWN[split]
    if _joined(digests) != images:
        what = f"these are not the images of CIFAR-10 ({split}): fingerprint {_joined(digests)}, expected {images}"
        raise UserError(source.where, what, "restore the files, or fetch the data set anew")
    if _labelled(digests, labels) != labelled:
        raise UserError(source.where, f"the images are right, but not their labels ({split})", "restore the labels")
    order = _test_order(digests) if split == "test" else _ranks(digests)
    return Images(pixels[order], labels[order].astype(np.int64), np.arange(len(order)), CLASSES, images)


def fingerprint(images: Pixels) -> str:
    """SHA-256 (hex) over the sorted SHA-256 digests of the images (n, ...) uint8, whatever their order."""
    return _joined(_digests(images))


def shuffle(n: int, seed: int) -> NDArray[np.int64]:
    """A fixed permutation (n,) int64; its first N entries are the subset of a run limited to N images.

    It sorts the raw words of PCG64, whose stream NumPy keeps for ever, as it does not for the
    methods of its Generator.
    """
    word = int.from_bytes(hashlib.sha256(f"shuffle {seed}".encode()).digest()[:16], "big")
    return np.argsort(np.random.PCG64(word).random_raw(n), kind="stable").astype(np.int64)


def as_tensor(images: Pixels) -> Tensor:
    """uint8 (n, h, w, 3) -> float32 (n, 3, h, w) in [0, 1], on the CPU.

    Divided here and not on an accelerator, whose division by a constant may round differently.
    """
    import torch  # here, so that images are decoded while it is loaded

    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(torch.float32) / 255


def _source(split: Split, root: Path | None, download: bool) -> Source:
    if split == "excerpt":
        return _shipped("train-excerpt")
    if root is not None:
        if not root.is_dir() and not download:
            raise UserError(str(root), "there is no such directory of data", FETCH)
        found = cifar10_files.find(root, split)
        if found is None and download and split == "train":
            _download(root)
            found = cifar10_files.find(root, split)
        if found is not None:
            return found
    if split == "test":
        return _shipped("test")
    where = "the data directory" if root is None else str(root)
    raise UserError(where, "the 50,000 training images are not shipped with the package, nor found here", FETCH)


def _shipped(name: str) -> Source:
    image, labels = SHIPPED / f"{name}.webp", SHIPPED / f"{name}-labels.npy"
    return Source(f"{image} and {labels.name}", lambda: cifar10_files.mosaic([image], labels))


def _download(root: Path) -> None:
    from torchvision.datasets import CIFAR10

    try:
        CIFAR10(str(root), download=True)  # checks the archive's MD5 before anything is read from it
    except Exception as error:
        raise UserError(str(root), f"CIFAR-10 could not be downloaded: {error}", FETCH) from error


def _digests(images: Pixels) -> list[bytes]:
    return [hashlib.sha256(image.data).digest() for image in np.ascontiguousarray(images)]


def _joined(parts: list[bytes]) -> str:
    return hashlib.sha256(b"".join(sorted(parts))).hexdigest()


def _labelled(digests: list[bytes], labels: Labels) -> str:
    return _joined([digest + bytes([label]) for digest, label in zip(digests, labels, strict=True)])


def _ranks(digests: list[bytes]) -> NDArray[np.int64]:
    return np.array(sorted(range(len(digests)), key=digests.__getitem__), np.int64)


def _test_order(digests: list[bytes]) -> NDArray[np.int64]:
    """Where each image of the original order is; the right set of images is assumed (none occurs twice)."""
    if hashlib.sha256(b"".join(digests)).hexdigest() == TEST_ORDER:
        return np.arange(len(digests))
    pixels, _ = _shipped("test").read()
    place = {digest: row for row, digest in enumerate(digests)}
    return np.array([place[digest] for digest in _digests(pixels)], np.int64)

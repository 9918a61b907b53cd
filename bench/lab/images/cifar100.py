"""CIFAR-100 (Krizhevsky 2009), as torchvision has it: cifar-100-python, its fine labels, in its own order."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bench import UserError
from bench.lab.images.cifar10 import fetch
from bench.lab.images.cifar10_files import batch
from bench.lab.images.proof import Split, as_found

FOLDER = "cifar-100-python"
# The MD5 that torchvision checks of each file: no SHA-256 of them is published.
MD5 = {"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"}
FETCH = (
    "give a directory with torchvision's download of CIFAR100 (cifar-100-python); or allow the download, which "
    "fetches it into that directory"
)


def read(split: str, root: Path | None, download: bool = False) -> Split:
    """One split, its file's MD5 checked before anything is read from it."""
    if root is None:
        raise UserError("the data directory", "CIFAR-100 is not shipped with the package", f"--data-root: {FETCH}")
    file = (root if root.name == FOLDER else root / FOLDER) / split
    if not file.is_file() and download:
        fetch("CIFAR100", root, FETCH)
    if not file.is_file():
        raise UserError(str(root), f"there is no {FOLDER}/{split} here", FETCH)
    with file.open("rb") as open_:
        found = hashlib.file_digest(open_, "md5").hexdigest()
    if found != MD5[split]:
        raise UserError(str(file), f"is not CIFAR-100's {split}: MD5 {found}, expected {MD5[split]}", FETCH)
    pixels, labels = batch(file, "fine_labels")
    return Split(str(file), pixels, labels, as_found)

"""Images and labels as a program has them, in arrays: tensors, a Dataset, a DataLoader; whatever is none, in words."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import UserError

WHERE = "data"
KINDS = "(images, labels) as arrays or tensors, a Dataset, a DataLoader, a bench data set, or a name such as 'cifar10'"
AGAIN = 8  # items of a Dataset that are read twice
MOVED = (
    "images of the data set differ each time they are read (an augmentation?): one reading of them is judged, and "
    "another call judges others"
)


def chosen(total: int, n: int | None, seed: int, ordered: bool) -> NDArray[np.int64]:
    """Which of `total` images are taken, in which order."""
    from bench.lab.images.load import shuffle

    rows = np.arange(total) if ordered or n is None or n >= total else shuffle(total, seed)
    return np.asarray(rows[:n], np.int64)


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """What the user's data raise in words, as theirs."""
    from bench.lab.foreign.theirs import theirs

    with theirs("your data", f"{what} was read", fix="mend it, or give images and labels as arrays"):
        yield


def arrays(data: Any, n: int | None, seed: int, ordered: bool) -> Any:
    """Images, labels, their places in what was handed over, the names of classes, and what is to be said of them."""
    if isinstance(data, Mapping):
        raise UserError(WHERE, f"a {type(data).__name__} of {', '.join(map(repr, data))}", "give (images, labels)")
    if isinstance(data, tuple | list) and len(data) == 2 and hasattr(data[0], "shape"):
        with _reading("the pair of images and labels"):
            images, labels = plain(data[0]), plain(data[1])
        if images.ndim < 3 or len(images) != len(labels):
            raise UserError(WHERE, f"images are {images.shape} and labels {labels.shape}", "one label an image")
        rows = chosen(len(images), n, seed, ordered)
        return images[rows], labels[rows], rows, (), ()
    if isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], list | tuple) and len(data[0]) != 2:
        return arrays((np.stack([pixels(one) for one in data[0]]), data[1]), n, seed, ordered)
    if hasattr(data, "dataset") and hasattr(data, "batch_size"):
        return _loader(data, n, seed, ordered)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return _dataset(data, n, seed, ordered)
    if isinstance(data, Iterable) and not isinstance(data, str | bytes):
        return _joined(WHERE, data, n, ())
    raise UserError(WHERE, f"a {type(data).__name__} is not data", f"give {KINDS}")


def _loader(loader: Any, n: int | None, seed: int, ordered: bool) -> Any:
    """The data set behind a DataLoader, image by image, so that its shuffling, if it shuffles, changes nothing."""
    dataset = loader.dataset
    plain_ = getattr(loader.collate_fn, "__module__", "").startswith("torch.utils.data")
    if plain_ and hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") and not _subset(loader):
        return _dataset(dataset, n, seed, ordered)
    return _joined("data (a DataLoader)", loader, n, _classes(dataset))


def _subset(loader: Any) -> bool:
    """Whether a loader's own sampler takes other images than all of the data set, each once."""
    sampler = type(loader.sampler).__name__ if getattr(loader, "sampler", None) is not None else ""
    return sampler not in ("SequentialSampler", "RandomSampler") or getattr(loader.sampler, "replacement", False)


def _dataset(dataset: Any, n: int | None, seed: int, ordered: bool) -> Any:
    rows = chosen(len(dataset), n, seed, ordered)
    images, labels = [], []
    for row in rows.tolist():
        with _reading(f"item {row}"):
            item = _item(dataset, row)
            images.append(pixels(item[0]))
        labels.append(_label(item[1], row))
    if len({image.shape for image in images}) > 1:
        sizes = sorted({image.shape for image in images})[:3]
        fix = "resize and crop in its transform"
        raise UserError("data (a Dataset)", f"its images have several sizes: {sizes}", fix)
    with _reading("its first items once more"):
        again = [pixels(_item(dataset, row)[0]) for row in rows[:AGAIN].tolist()]
    moved = any(not np.array_equal(one, other) for one, other in zip(images, again, strict=False))
    notes = (MOVED,) if moved else ()
    return np.stack(images), np.array(labels), rows, _classes(dataset), notes


def _item(dataset: Any, row: int) -> Any:
    """An image and its label."""
    item = dataset[row]
    if not isinstance(item, tuple | list) or len(item) < 2:
        what = f"item {row} is a {type(item).__name__}"
        raise UserError("data (a Dataset)", what, "each item is an image and its label")
    return item


def _label(label: Any, row: int) -> int:
    try:
        return operator.index(plain(label).item() if hasattr(label, "shape") else label)
    except (TypeError, ValueError):
        fix = "give the class of each image as a whole number, counted from 0"
        raise UserError("data (a Dataset)", f"the label of item {row} is {label!r}", fix) from None


def _joined(where: str, batches: Iterable[Any], n: int | None, classes: tuple[str, ...]) -> Any:
    """Batches one after the other; single images with their labels too."""
    images: list[Any] = []
    labels: list[Any] = []
    seen = 0
    for batch in _each(batches):
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            raise UserError(where, f"a batch is a {type(batch).__name__}", "each batch is images and their labels")
        some, told = plain(batch[0]), plain(batch[1])
        if told.ndim == 0:
            some, told = pixels(batch[0])[None], np.array([_label(batch[1], seen)])
        if len(some) != len(told) or (images and some.shape[1:] != images[0].shape[1:]):
            what = f"batch {len(images)} has images {some.shape} and labels {told.shape}"
            raise UserError(where, what, "one label an image, all images of one size")
        images.append(some)
        labels.append(told)
        seen += len(some)
        if n is not None and seen >= n:
            break
    if not images:
        raise UserError(where, "it holds no images", f"give {KINDS}")
    count = seen if n is None else min(n, seen)
    return np.concatenate(images)[:count], np.concatenate(labels)[:count], np.arange(count), classes, ()


def _each(batches: Iterable[Any]) -> Iterator[Any]:
    with _reading("the first batch"):
        several = iter(batches)
    for number in itertools.count():
        with _reading(f"batch {number}"):
            try:
                batch = next(several)
            except StopIteration:
                return
        yield batch


def _classes(dataset: Any) -> tuple[str, ...]:
    names = getattr(dataset, "classes", ())
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()


def plain(value: Any) -> NDArray[Any]:
    """A tensor or anything like an array as an array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        short = str(value.dtype) in ("torch.bfloat16", "torch.float16")
        return np.asarray((value.float() if short else value).numpy())
    return np.asarray(value)


def pixels(image: Any) -> NDArray[Any]:
    """One image as (c, h, w): a tensor or array, or a PIL image."""
    found = plain(image)
    if found.ndim == 2:
        return found[None]
    first = hasattr(image, "detach") or found.ndim != 3 or found.shape[2] not in (1, 3)
    return found if first else found.transpose(2, 0, 1)

"""Images as a program has them: arrays, tensors, a Dataset, a DataLoader, a name; as a recipe and its pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import UserError, nearest
from bench.recipes import Data
from bench.recipes.datasets import NAMED

if TYPE_CHECKING:
    from bench.lab.images.load import Images
    from bench.store.tasks import Settings

WHERE = "data"
FILE = "images.npz"
KINDS = "(images, labels) as arrays or tensors, a Dataset, a DataLoader, a bench data set, or a name such as 'cifar10'"


class Given(NamedTuple):
    """The recipe of the images, and the images themselves where only this program has them (None for a name)."""

    data: Data
    images: Images | None


def given(data: Any, n: int | None, *, classes: Sequence[str] = (), seed: int = 0, ordered: bool = False) -> Given:
    """What was handed over as data, `n` images of it: those of a fixed shuffle by `seed` (`ordered`: the first).

    Every image keeps its place in what was handed over as its index. UserError for anything else.
    """
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
        raise UserError("n", f"{n!r} images cannot be judged", "give a number from 1 on, or None for all")
    if isinstance(data, str):
        name, _, split = data.partition("/")
        if name not in NAMED:
            raise UserError(WHERE, f"no data set is called {data!r}", f"{nearest(name, NAMED)}; or give {KINDS}")
        recipe = Data(kind=name, split=split or "test")
        return Given(_first(recipe, n, seed, ordered), None)
    data = getattr(data, "data", data) if type(data).__name__ == "Dataset" and hasattr(data, "toml") else data
    if isinstance(data, Data):
        from bench.lab.images.own import described, read

        found = read(data) if data.own else None
        data = data if found is None else described(data, found)
        return Given(data if n is None or n >= data.whole else _first(data, n, seed, ordered), found)
    from bench.lab.images.own import pack

    images, labels, index, names = _arrays(data, n, seed, ordered)
    found = pack(WHERE, images, labels, tuple(classes) or names, index)
    return Given(memory(found), found)


def memory(found: Images) -> Data:
    """The recipe of images that are in memory, in the order in which they lie there, as of the file they may become."""
    from bench.lab.images.own import described

    return described(Data(kind="npz", path=FILE, order="original"), found)


def _first(recipe: Data, n: int | None, seed: int, ordered: bool) -> Data:
    changes: dict[str, Any] = {"shuffle": seed} | ({"order": "original"} if ordered else {})
    stop = None if n is None or recipe.start + n >= recipe.whole else recipe.start + n
    return recipe.model_copy(update=changes | ({} if stop is None else {"stop": stop}))


def chosen(total: int, n: int | None, seed: int, ordered: bool) -> NDArray[np.int64]:
    """Which of `total` images are taken, in which order."""
    from bench.lab.images.load import shuffle

    rows = np.arange(total) if ordered or n is None or n >= total else shuffle(total, seed)
    return np.asarray(rows[:n], np.int64)


def _arrays(data: Any, n: int | None, seed: int, ordered: bool) -> Any:
    """Images, labels, their places in what was handed over, and the names of classes."""
    if isinstance(data, tuple | list) and len(data) == 2 and hasattr(data[0], "shape"):
        images, labels = plain(data[0]), plain(data[1])
        if images.ndim < 3 or len(images) != len(labels):
            raise UserError(WHERE, f"images are {images.shape} and labels {labels.shape}", "one label an image")
        rows = chosen(len(images), n, seed, ordered)
        return images[rows], labels[rows], rows, ()
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
        item = dataset[row]
        if not isinstance(item, tuple | list) or len(item) < 2:
            what = f"item {row} is a {type(item).__name__}"
            raise UserError("data (a Dataset)", what, "each item is an image and its label")
        images.append(pixels(item[0]))
        labels.append(int(item[1]))
    if len({image.shape for image in images}) > 1:
        sizes = sorted({image.shape for image in images})[:3]
        fix = "resize and crop in its transform"
        raise UserError("data (a Dataset)", f"its images have several sizes: {sizes}", fix)
    return np.stack(images), np.array(labels), rows, _classes(dataset)


def _joined(where: str, batches: Iterable[Any], n: int | None, classes: tuple[str, ...]) -> Any:
    images, labels, seen = [], [], 0
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            raise UserError(where, f"a batch is a {type(batch).__name__}", "each batch is images and their labels")
        images.append(plain(batch[0]))
        labels.append(plain(batch[1]))
        seen += len(images[-1])
        if n is not None and seen >= n:
            break
    if not images:
        raise UserError(where, "it holds no images", f"give {KINDS}")
    count = seen if n is None else min(n, seen)
    return np.concatenate(images)[:count], np.concatenate(labels)[:count], np.arange(count), classes


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


def eps_rows(eps: Any, total: int) -> dict[Fraction, tuple[int, ...]] | None:
    """For an array of an eps an image: the images (their places) of each eps; None for one eps or a list of some."""
    from bench.api.attacks import eps_of

    if not hasattr(eps, "shape") or getattr(eps, "ndim", 0) != 1:
        return None
    values = plain(eps)
    if len(values) != total:
        fix = "give an eps an image, or a list for a curve"
        raise UserError("eps", f"{len(values)} values for {total} images", fix)
    rows: dict[Fraction, list[int]] = {}
    for row, value in enumerate(values.tolist()):
        rows.setdefault(eps_of(value), []).append(row)
    return {one: tuple(some) for one, some in rows.items()}


def read(data: Data, images: Images | None, settings: Settings) -> tuple[Data, Images]:
    """The whole split that the images are of."""
    if images is not None:
        return data, images
    from bench.lab.images.load import of
    from bench.store.records import Store

    return data, of(data, settings.data_root, download=settings.download, kept=Store(settings.root).images)

"""Images as a program has them: arrays, tensors, a Dataset, a DataLoader, a name; as a recipe and its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import UserError, nearest
from bench.api.checked import whole
from bench.api.handed import KINDS, WHERE, arrays, plain
from bench.recipes import Data
from bench.recipes.datasets import NAMED

if TYPE_CHECKING:
    from bench.lab.images.load import Images
    from bench.store.tasks import Settings

FILE = "images.npz"


class Given(NamedTuple):
    """The recipe of the images, and the images themselves where only this program has them (None for a name)."""

    data: Data
    images: Images | None
    notes: tuple[str, ...] = ()


def given(data: Any, n: int | None, *, classes: Sequence[str] = (), seed: int = 0, ordered: bool = False) -> Given:
    """What was handed over as data, `n` images of it: those of a fixed shuffle by `seed` (`ordered`: the first).

    Every image keeps its place in what was handed over as its index. UserError for anything else.
    """
    n = None if n is None else whole("n", n, "give how many images, or None for all")
    if isinstance(data, str):
        name, _, split = data.partition("/")
        if name not in NAMED:
            raise UserError(WHERE, f"no data set is called {data!r}", f"{nearest(name, NAMED)}; or give {KINDS}")
        splits = NAMED[name].splits
        if split and split not in splits:
            raise UserError(WHERE, f"{name} has no split {split!r}", nearest(split, splits))
        return Given(_first(Data(kind=name, split=split or "test"), n, seed, ordered), None)
    data = getattr(data, "data", data) if type(data).__name__ == "Dataset" and hasattr(data, "toml") else data
    if isinstance(data, Data):
        from bench.lab.images.own import described, read

        found = read(data) if data.own else None
        data = data if found is None else described(data, found)
        if data.start >= data.whole:
            raise UserError(WHERE, f"start = {data.start} is past its {data.whole:,} images", "start before the last")
        return Given(data if n is None or n >= data.whole else _first(data, n, seed, ordered), found)
    from bench.lab.images.own import pack

    images, labels, index, names, notes = arrays(data, n, seed, ordered)
    found = pack(WHERE, images, labels, tuple(classes) or names, index)
    return Given(memory(found), found, notes)


def memory(found: Images) -> Data:
    """The recipe of images that are in memory, in the order in which they lie there, as of the file they may become."""
    from bench.lab.images.own import described

    return described(Data(kind="npz", path=FILE, order="original"), found)


def _first(recipe: Data, n: int | None, seed: int, ordered: bool) -> Data:
    said = recipe.model_fields_set
    changes: dict[str, Any] = {} if "shuffle" in said else {"shuffle": seed}
    changes |= {"order": "original"} if ordered and "order" not in said else {}
    stop = None if n is None or recipe.start + n >= recipe.whole else recipe.start + n
    return recipe.model_copy(update=changes | ({} if stop is None else {"stop": stop}))


def eps_rows(eps: Any, data: Data) -> dict[Fraction, tuple[int, ...]] | None:
    """For an array of an eps an image of `data`: the rows of its split that have each eps; None for one eps or a list
    of some."""
    from bench.api.attacks import eps_of
    from bench.lab.images.load import rows_of

    if not hasattr(eps, "shape") or getattr(eps, "ndim", 0) != 1:
        return None
    values = plain(eps)
    taken = rows_of(data, data.total or data.whole)[data.start : data.stop]
    if len(values) != len(taken):
        fix = "give an eps an image, or a list for a curve"
        raise UserError("eps", f"{len(values)} values for {len(taken)} images", fix)
    rows: dict[Fraction, list[int]] = {}
    for row, value in zip(taken.tolist(), values.tolist(), strict=True):
        rows.setdefault(eps_of(value), []).append(row)
    return {one: tuple(some) for one, some in rows.items()}


def read(data: Data, images: Images | None, settings: Settings) -> tuple[Data, Images]:
    """The whole split that the images are of."""
    if images is not None:
        return data, images
    from bench.lab.images.load import of
    from bench.store.records import Store

    return data, of(data, settings.data_root, download=settings.download, kept=Store(settings.root).images)

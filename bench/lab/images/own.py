"""A user's own images: an .npz file, a folder a class, what their function returns.

Whatever they are, they become pixels (n, h, w, c) uint8, or float32 in [0, 1] where no byte says them, and labels.
Their fingerprint (`proof.content`) is part of the recipe's key: no name fixes these bytes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import UserError
from bench.lab.images import proof
from bench.lab.images.load import Images
from bench.recipes import Data

PAIRS = ("{0}_images {0}_labels", "images_{0} labels_{0}", "x_{0} y_{0}", "images labels", "x y")
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}
LARGEST = 64 << 30  # bytes of decoded images
UNITS = "images are bytes 0 to 255, or floats in [0, 1]; normalisation is the model's own business"


def read(data: Data) -> Images:
    """The images of a recipe whose fingerprint and size are known; UserError if they are others by now."""
    found = look(data)
    if data.fingerprint not in (None, found.fingerprint):
        what = f"these are other images than declared: fingerprint {found.fingerprint}, declared {data.fingerprint}"
        raise UserError(_where(data), what, "put the former images back, or declare the new ones (leave it out)")
    return found


def survey(data: Data, folders: Sequence[Path]) -> Data:
    """The recipe with what its key needs to know of the images: fingerprint, size and shape.

    A relative `path` starts from the first of `folders` that has it. A recipe that declares fingerprint, size and
    shape is taken at its word until its images are loaded. A user's function is never run here. UserError for images
    that are not there or not images.
    """
    if not data.own:
        return data
    file = data.path.rpartition(":")[0] if data.kind == "python" else data.path
    place = next((folder for folder in folders if (folder / file).exists()), None)
    if place is None:
        raise UserError(_where(data), f"there is no {file}", f"it is looked for in {', '.join(map(str, folders))}")
    data = data.model_copy(update={"place": str(place)})
    if data.fingerprint is not None and data.size is not None and data.shape is not None:
        return data
    if data.kind == "python":
        what = "a function's images are not asked for before the run: declare their fingerprint, size and shape"
        raise UserError(_where(data), what, f"bench.dataset('python', path={data.path!r}).toml() writes the lines")
    return described(data, read(data))


def described(data: Data, found: Images) -> Data:
    """The recipe with what is to be said of the images found."""
    n, height, width, channels = found.images.shape
    about: dict[str, Any] = {"fingerprint": found.fingerprint, "size": n, "shape": (channels, height, width)}
    return data.model_copy(update=about | {"classes": data.classes or found.classes})


def look(data: Data) -> Images:
    """The images of a recipe as they are now."""
    where = _where(data)
    match data.kind:
        case "npz":
            arrays = _npz(Path(data.place or "") / data.path, data.split)
        case "folder":
            arrays = _folder(Path(data.place or "") / data.path, data.split)
        case _:
            arrays = _python(data)
    return pack(where, *arrays[:2], classes=data.classes or arrays[2], index=arrays[3])


Arrays = tuple[Any, Any, tuple[str, ...], Any]
"""Images, labels, class names (or none), and positions in a larger set (or None)."""


def pack(where: str, images: Any, labels: Any, classes: Sequence[str] = (), index: Any = None) -> Images:
    """Arrays as `Images`: (n, c, h, w), (n, h, w, c) or (n, h, w), bytes or floats in [0, 1]; labels (n,) integers.

    Floats that are all whole 255ths become bytes. UserError, by `where`, for any other thing.
    """
    pixels, told = laid_out(where, np.asarray(images)), np.asarray(labels)
    if told.ndim == 2 and told.shape[1] == 1:
        told = told[:, 0]
    if told.ndim != 1 or not np.issubdtype(told.dtype, np.integer):
        what = f"labels are {told.dtype} {told.shape}, not whole numbers (n,)"
        raise UserError(where, what, "give the class of each image, counted from 0; one-hot rows by their argmax(1)")
    if len(told) != len(pixels) or not len(told):
        raise UserError(where, f"holds {len(pixels)} images and {len(told)} labels", "one label an image")
    if told.min() < 0 or (classes and told.max() >= len(classes)):
        what = f"labels run from {told.min()} to {told.max()}"
        raise UserError(where, what, f"count classes from 0 to {len(classes) - 1}" if classes else "count from 0")
    names = tuple(classes) or tuple(map(str, range(int(told.max()) + 1)))
    told = np.ascontiguousarray(told, np.int64)
    at = np.arange(len(told)) if index is None else np.ascontiguousarray(index, np.int64)
    return Images(pixels, told, at, names, proof.content(pixels, told))


def laid_out(where: str, images: NDArray[Any]) -> NDArray[Any]:
    """Images as (n, h, w, c), uint8 or float32."""
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.dtype.kind not in "uf" or (images.dtype.kind == "u" and images.dtype != np.uint8):
        raise UserError(where, f"images are {images.dtype} {images.shape}", f"give (n, c, h, w); {UNITS}")
    if images.shape[3] not in (1, 3) or (images.shape[1] in (1, 3) and images.shape[2] == images.shape[3]):
        images = images.transpose(0, 2, 3, 1)
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    pixels = np.ascontiguousarray(images, np.float32)
    if not (np.isfinite(pixels).all() and pixels.min(initial=0) >= 0 and pixels.max(initial=0) <= 1):
        what = f"images reach from {float(pixels.min()):.4g} to {float(pixels.max()):.4g}"
        raise UserError(where, what, UNITS)
    whole = np.rint(pixels * 255).astype(np.uint8)
    return whole if (whole.astype(np.float32) / np.float32(255) == pixels).all() else pixels


def _npz(path: Path, split: str) -> Arrays:
    """Arrays of an .npz file, by the names that people give them; `classes` and `index` where they are there."""
    try:
        with np.load(path, allow_pickle=False) as file:
            for pair in PAIRS:
                images, labels = pair.format(split).split()
                if images in file and labels in file:
                    classes = tuple(map(str, file["classes"].tolist())) if "classes" in file else ()
                    return file[images], file[labels], classes, file.get("index")
            names = ", ".join(file.files)
    except (OSError, ValueError, EOFError, AttributeError) as error:
        fix = "write it with numpy.savez(path, images=..., labels=...)"
        raise UserError(str(path), f"cannot be read: {error}", fix) from None
    fix = f"call them images and labels, or {split}_images and {split}_labels"
    raise UserError(str(path), f"its arrays are {names or 'none'}", fix)


def _folder(path: Path, split: str) -> Arrays:
    """Image files, a folder a class: path/<split>/<class>/*.png, or path/<class>/*.png."""
    from PIL import Image

    top = path / split if (path / split).is_dir() else path
    classes = tuple(sorted(item.name for item in top.iterdir() if item.is_dir())) if top.is_dir() else ()
    files = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((top / name).iterdir())
        if file.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise UserError(str(top), "holds no images", "one folder for each class, with PNG files in it")
    pixels: NDArray[np.uint8] | None = None
    for row, (file, _) in enumerate(files):
        try:
            with Image.open(file) as image:
                grey = image.mode in ("1", "L", "LA", "I;16")
                size = (image.height, image.width, 1 if grey else 3)
                if pixels is None:
                    if len(files) * np.prod(size, dtype=np.int64) > LARGEST:
                        raise UserError(str(top), "its images are more than fit in memory", "take fewer, or smaller")
                    pixels = np.empty((len(files), *size), np.uint8)
                if size != pixels.shape[1:]:
                    what = f"is {size}, the first image {pixels.shape[1:]} (height, width, channels)"
                    raise UserError(str(file), what, "bring all images to one size first: the harness never resizes")
                pixels[row] = np.asarray(image.convert("L" if grey else "RGB")).reshape(size)
        except (OSError, ValueError) as error:
            raise UserError(str(file), f"cannot be read: {error}", "restore or remove it") from None
    return pixels, np.array([label for _, label in files]), classes, None


def _python(data: Data) -> Arrays:
    """What ``file.py:function`` returns: images and labels, as arrays or tensors. This runs the user's code."""
    where, _, name = data.path.rpartition(":")
    path = Path(data.place or "") / where
    spec = importlib.util.spec_from_file_location(f"data_{path.stem}", path)
    if not name or spec is None or spec.loader is None:
        raise UserError(_where(data), "names no function of a file", "write path = 'file.py:function'")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        function = getattr(module, name, None)
        if not callable(function):
            raise UserError(str(path), f"has no function {name}", "name the function that returns images and labels")
        given = function(**data.arguments)
    except UserError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        what = f"your function {name} failed: {type(error).__name__}: {error}"
        raise UserError(str(path), what, "call it by itself to see where") from error
    images, labels, classes = (*given, ())[:3] if isinstance(given, tuple) else _fields(given, where)
    return _plain(images), _plain(labels), tuple(map(str, classes)), None


def _fields(given: Any, where: str) -> tuple[Any, Any, Any]:
    if not isinstance(given, Mapping) or not {"images", "labels"} <= given.keys():
        what = f"returned a {type(given).__name__}"
        raise UserError(where, what, "return (images, labels), or (images, labels, classes)")
    return given["images"], given["labels"], given.get("classes", ())


def _plain(value: Any) -> Any:
    """A tensor as the array behind it."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def _where(data: Data) -> str:
    return f"data set {data.kind} {data.path}".rstrip()

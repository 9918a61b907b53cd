"""What a user's own code gives: a network, a Classifier, or a plain function from images to logits."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bench.models.adapters.checkpoint import Loaded
from bench.models.adapters.randomised import seeded

OURS = __name__.partition(".")[0]
DIGEST = "__digest_of_source__"


class Function(nn.Module):
    """A plain function from images to logits; networks that it holds on to are submodules, and move with it."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.held = nn.ModuleList(_held(function))

    def forward(self, images: Tensor) -> Any:
        return self.function(images)


def load(
    name: str,
    classes: int,
    *,
    root: Path = Path(),
    arguments: Mapping[str, Any] | None = None,
    modules: Mapping[str, Path] | None = None,
) -> Loaded:
    """What ``package.module:name`` or ``path/to/file.py:name`` gives, called with `arguments` if it is no network yet.

    A path is taken from `root` unless it is absolute. The name may be a network, a class of one, or a
    function that returns one: an nn.Module, images (n, 3, h, w) in [0, 1] to logits, or a
    models.classifier.Classifier, or a plain function of images. This runs the user's code, with the
    file's folder first on the path; `modules` are the user's modules that it imports, which are taken from
    these files whatever another model of the same process has imported under their names.
    FileNotFoundError and ImportError for a missing file or module; ValueError for a missing name,
    arguments it does not take, or a result of another kind; whatever the code itself raises. What it draws
    is the same at each loading, unless it sees to that itself.
    """
    found, file = find(name, root, modules)
    with on_path(folders(name, root)), seeded(0):  # whatever seed its modules set when they were first imported
        net = _made(name, found, dict(arguments or {}))
    return Loaded(net.eval(), _classes(net, classes), (file,) if file else (), name)


def _classes(net: nn.Module, declared: int) -> int:
    """How many classes a network says that it has: a number, or a list of their names; else as declared."""
    said = getattr(net, "classes", declared)
    if isinstance(said, int) and not isinstance(said, bool):
        return said
    return len(said) if isinstance(said, list | tuple) else declared


def find(name: str, root: Path, modules: Mapping[str, Path] | None = None) -> tuple[Any, Path | None]:
    """The object of that name, and the file that it was asked from; raises as `load` does."""
    where, _, attribute = name.rpartition(":")
    if not where or not attribute:
        raise ValueError(f"{name!r} names no function. Write package.module:function or path/to/file.py:function.")
    tag = _forget(modules or {})
    with on_path(folders(name, root)), _ours_aside(modules or {}), _no_bytecode(), seeded(0):
        if where.endswith(".py"):
            path = root / where
            if not path.is_file():
                raise FileNotFoundError(f"There is no file {path}, which {name} names.")
            module = _from_file(path.resolve(), tag)
        else:
            try:
                module = importlib.import_module(where)
            except ModuleNotFoundError as error:
                if error.name is None or not f"{where}.".startswith(f"{error.name}."):
                    raise  # the user's module imports something that is not there
                raise ImportError(f"Module {where}, which {name} names, cannot be imported: {error}.") from None
    for asked in modules or {}:
        if asked in sys.modules and asked.partition(".")[0] != OURS:
            setattr(sys.modules[asked], DIGEST, tag)
    if not hasattr(module, attribute):
        raise ValueError(f"{where} has no function {attribute}.")
    return getattr(module, attribute), Path(module.__file__) if module.__file__ else None


def folders(name: str, root: Path) -> list[str]:
    """What a user's code expects on the path: the folder of its file, and the one that its name starts from."""
    where = name.rpartition(":")[0]
    own = [str((root / where).resolve().parent)] if where.endswith(".py") else []
    return list(dict.fromkeys([*own, str(root.resolve())]))


@contextlib.contextmanager
def on_path(places: Sequence[str]) -> Iterator[None]:
    """Have these folders first on the path, as if the user's file had been started from there."""
    sys.path[:0] = places
    try:
        yield
    finally:
        for place in places:
            with contextlib.suppress(ValueError):
                sys.path.remove(place)


@contextlib.contextmanager
def _no_bytecode() -> Iterator[None]:
    """Python takes compiled code for current if the file has its size and second: an edit may have both."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _made(name: str, found: Any, arguments: dict[str, Any]) -> nn.Module:
    for _ in range(3):  # a function may give a class, which gives a network
        if isinstance(found, nn.Module):
            if arguments:
                raise ValueError(f"{name} is a network, which takes no arguments: leave {arguments} out.")
            return found
        if isinstance(found, Mapping):
            tensors = sum(isinstance(value, Tensor) for value in found.values())
            what = f"a state dict of {tensors} tensors" if tensors else f"a {type(found).__name__}"
            raise ValueError(
                f"{name} returned {what}, not a network. Load it into a network and return that, "
                'or declare the checkpoint with kind = "file" and the network that it is of.'
            )
        if not callable(found):
            raise ValueError(f"{name} returned a {type(found).__name__}, not a torch.nn.Module.")
        try:
            signature = inspect.signature(found)
            signature.bind(**arguments)
        except TypeError as error:
            if not arguments and _takes_images(found):
                return Function(found)
            raise ValueError(f"{name} cannot be called with {arguments}: {error}.") from None
        except ValueError:  # no signature to be had
            pass
        found, arguments = found(**arguments), {}
    raise ValueError(f"{name} returned a {type(found).__name__}, not a torch.nn.Module.")


def _takes_images(found: Any) -> bool:
    """Whether something that cannot be called without arguments can be called with one: images."""
    if inspect.isclass(found):
        return False
    try:
        inspect.signature(found).bind(torch.empty(0))
    except (TypeError, ValueError):
        return False
    return True


def _held(function: Any) -> list[nn.Module]:
    """Networks in a function's closure, defaults, arguments bound before, and the globals that it names."""
    held: list[Any] = []
    if isinstance(function, functools.partial):
        held += [*function.args, *function.keywords.values()]
        function = function.func
    held.append(getattr(function, "__self__", None))
    function = getattr(function, "__func__", function)
    if not inspect.isfunction(function) and not inspect.isclass(function):
        held += vars(function).values() if hasattr(function, "__dict__") else []
        function = vars(type(function)).get("__call__", function)
    if inspect.isfunction(function):
        with contextlib.suppress(TypeError, ValueError):
            seen = inspect.getclosurevars(function)
            held += [*seen.nonlocals.values(), *seen.globals.values()]
        held += function.__defaults__ or ()
    more = [item for value in held if isinstance(value, list | tuple) for item in value]
    more += [item for value in held if isinstance(value, dict) for item in value.values()]
    return list(dict.fromkeys(value for value in [*held, *more] if isinstance(value, nn.Module)))


def _from_file(path: Path, tag: str) -> ModuleType:
    """The file as a module under a name of its own, so that its classes can be found again."""
    about = f"{path} {tag} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    name = f"model_{path.stem}_{hashlib.sha256(about.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _ours_aside(modules: Mapping[str, Path]) -> Iterator[None]:
    """Where a user's code has a module `bench` of its own, that name is theirs while it is imported, then ours again.

    What they import later, inside a function, is the harness's.
    """
    if OURS not in modules:
        yield
        return
    ours = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == OURS}
    for name in ours:
        del sys.modules[name]
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == OURS]:
            del sys.modules[name]
        sys.modules.update(ours)


def _forget(modules: Mapping[str, Path]) -> str:
    """Drop modules of these names that are other files, or these as they were before one of them was edited.

    What was imported with them stays with whoever holds on to it. Returns a digest of all their bytes.
    """
    importlib.invalidate_caches()
    digests = [f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}" for name, file in sorted(modules.items())]
    tag = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    for name, file in modules.items():
        if name.partition(".")[0] == OURS:
            continue
        loaded = sys.modules.get(name)
        there = getattr(loaded, "__file__", None)
        other = there is None or Path(there).resolve() != file
        if loaded is not None and (other or getattr(loaded, DIGEST, tag) != tag):
            del sys.modules[name]
    return tag

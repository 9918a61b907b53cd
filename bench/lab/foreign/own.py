"""A user's own code loaded: a network or an attack, with what no key would know of it found out, or refused."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench import Refused
from bench.lab.foreign.held import of_network
from bench.lab.foreign.state import reading
from bench.lab.foreign.theirs import Foreign, Guarded, blamed, theirs
from bench.models.adapters import python
from bench.models.adapters.checkpoint import Loaded
from bench.models.adapters.randomised import Held, held_in
from bench.models.classifier import Classifier
from bench.recipes import Fetched, Peer
from bench.suite import code


class Own(NamedTuple):
    """A user's network behind its guard, what a record says of it, and the generators among its modules' names."""

    loaded: Loaded
    about: dict[str, Any]
    held: list[Held]


def load(recipe: Fetched, root: Path, where: str) -> Own:
    """The network of a user's own code. Refused, their traceback with it, where it fails or is no network.

    Files that it opens and that are not declared are
    named with their digests in what the record says; modules that its source does not show are refused.
    """
    place = Path(recipe.place or root)
    known = written(recipe, place, where)
    modules = known.modules if known else {}
    before = set(sys.modules)
    with reading() as opened, _in_words(recipe, where):
        shown = {name: path for name, path in modules.items() if name}
        made = python.load(recipe.name, recipe.classes, root=place, arguments=recipe.arguments, modules=shown)
    files = {*modules.values(), *(known.files.values() if known else ())}
    _shown(set(sys.modules) - before, files, place, where)
    unseen = [path for path in opened if not _among(path, files)]
    about = {"code": recipe.code, "read": {_named(path, place): code.sha256(path) for path in sorted(unseen)}}
    about["numbers"] = of_network(made.net)
    places = python.folders(recipe.name, place)
    if isinstance(made.net, Classifier):
        net: Any = Guarded(made.net, where, recipe.classes, places)
    else:
        net = Foreign(
            made.net, where, recipe.classes, output=recipe.output, outputs=recipe.outputs, places=places
        ).eval()
        made = made._replace(classes=recipe.classes if recipe.outputs else made.classes)
    return Own(made._replace(net=net), about, _held(files))


def attack(recipe: Peer, where: str) -> Any:
    """The class or function of a user's own attack, and the folders that its code expects on the path."""
    place = Path(recipe.place or Path())
    known = written(recipe, place, where)
    before = set(sys.modules)
    with declared(recipe, where), _in_words(recipe, where):
        found, _ = python.find(recipe.name, place, {n: p for n, p in known.modules.items() if n} if known else {})
    if known:
        _shown(set(sys.modules) - before, {*known.modules.values(), *known.files.values()}, place, where)
    return found


@contextlib.contextmanager
def declared(recipe: Peer, where: str) -> Iterator[None]:
    """Refused where an attack's code reads a file beside it that is not declared: no record of its own could name it.

    A network's would (`load`).
    """
    place = Path(recipe.place or Path())
    known = code.read(recipe.name, recipe.files, [place])
    with reading() as opened:
        yield
    for path in opened if known else ():
        assert known
        if path.is_relative_to(place.resolve()) and not _among(path, {*known.modules.values(), *known.files.values()}):
            what = f"it reads {_named(path, place)}, which no key knows of"
            raise Refused(where, what, f'declare it: files = ["{_named(path, place)}"]')


class _in_words:
    """What the adapter says is said as it is; what the user's code raised is theirs."""

    def __init__(self, recipe: Fetched | Peer, where: str) -> None:
        self.doing, self.where = f"{recipe.name} was loaded", where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, FileNotFoundError | ImportError | ValueError) and not blamed(error):
            raise Refused(self.where, str(error)) from error
        if error is not None:
            with theirs(self.where, self.doing):
                raise error


def written(recipe: Fetched | Peer, place: Path, where: str) -> code.Code | None:
    """The recipe's code as it is now; Refused where it is not that of its key, or a declared file is missing."""
    found = code.read(recipe.name, recipe.files, [place])
    if found is None:
        return None
    for file, path in found.files.items():
        if not path.exists():
            raise Refused(where, f"there is no {path}, which files = [...] names as {file!r}")
    if recipe.code not in (None, found.digest):
        raise Refused(where, "its code was edited since the suite was read", "run the same command again")
    return found


def _shown(imported: set[str], files: set[Path], place: Path, where: str) -> None:
    """Refused where a user's module was imported that neither the source shows nor the suite declares."""
    for name in sorted(imported):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None or name.startswith("model_"):
            continue
        path = Path(file).resolve()
        if code.own(path) and path.is_relative_to(place.resolve()) and not _among(path, files):
            what = f"it imports {name} in a way that its source does not show, so that no key knows of it"
            raise Refused(where, what, f'declare it: files = ["{_named(path, place)}"]')


def _among(path: Path, files: set[Path]) -> bool:
    return any(path == file or path.is_relative_to(file) for file in files)


def _named(path: Path, place: Path) -> str:
    inside = path.is_relative_to(place.resolve())
    return path.relative_to(place.resolve()).as_posix() if inside else path.name


def _held(files: set[Path]) -> list[Held]:
    """The generators that the user's modules have among their names."""
    names = {str(path) for path in files}
    modules = [module for module in list(sys.modules.values()) if getattr(module, "__file__", None) in names]
    return [one for module in modules for one in held_in(vars(module).values())]

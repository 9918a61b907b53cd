"""A user's own code as a suite names it: where it lies, which modules of theirs it uses, one digest of it all.

Nothing is imported or run: what a file imports is read from its text. What the text does not show (a module
whose name is put together as the program runs) is found, and refused, when the code is loaded.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.machinery
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import NamedTuple

OURS = Path(__file__).parents[1]
MISSING = "missing"


class Code(NamedTuple):
    """What a name such as ``nets.py:build`` stands for.

    `place`: the folder that relative names start from; `modules`: the user's own modules by name, the named one
    first ("" if it is a file); `files`: the declared files; `digest`: SHA-256 over the bytes of all of them.
    """

    place: Path
    modules: dict[str, Path]
    files: dict[str, Path]
    digest: str


def read(name: str, files: Sequence[str], folders: Sequence[Path]) -> Code | None:
    """The code behind ``file.py:name`` or ``package.module:name``, with the declared `files` (or folders of them).

    Names are relative to the first of `folders` that has the code; so are `files`. None if the code is
    not there. A declared file that is not there is part of the digest as missing: whoever loads the code says so.
    """
    where, _, attribute = name.rpartition(":")
    if not where or not attribute:
        return None
    importlib.invalidate_caches()
    place, modules = next(((folder, found) for folder in folders if (found := _modules(where, folder))), (None, {}))
    if place is None:
        return None
    there = {file: (place / file).resolve() for file in files}
    digest = hashlib.sha256()
    for label, path in sorted([(f"module {module}", path) for module, path in modules.items()]):
        digest.update(f"{label!r} {sha256(path)}\n".encode())
    for file in sorted(files):
        digest.update(f"file {file!r} {sha256(there[file])}\n".encode())
    return Code(place, modules, there, digest.hexdigest())


def _modules(where: str, folder: Path) -> dict[str, Path]:
    """The user's modules that a name needs if it starts from this folder; none if it is not there."""
    base = str(folder.resolve())
    if where.endswith(".py"):
        file = (folder / where).resolve()
        return _closure({"": file}, [str(file.parent), base], "") if file.is_file() else {}
    always = where.partition(".")[0]
    start = dict(_resolve(where, [base], always))
    return _closure(start, [base], always) if where in start else {}


def own(path: Path) -> bool:
    """Whether a module's file is the user's: neither Python's, nor an installed library's, nor the harness's."""
    return path.is_absolute() and not any(path.is_relative_to(folder) for folder in _others())


@functools.cache
def _others() -> list[Path]:
    named = [sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    named += [*site.getsitepackages(), site.getusersitepackages()]
    return [OURS, *(Path(folder).resolve() for folder in named if folder)]


def sha256(path: Path) -> str:
    """Digest of a file (of a text, whatever its line ends), or of all the files of a folder."""
    if path.is_dir():
        inside = sorted(item for item in path.rglob("*") if item.is_file() and "__pycache__" not in item.parts)
        lines = [f"{item.relative_to(path).as_posix()!r} {sha256(item)}" for item in inside]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    if not path.is_file():
        return MISSING
    if path.suffix == ".py":
        return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _closure(start: dict[str, Path], search: list[str], always: str) -> dict[str, Path]:
    """The user's modules that the first ones import, and those import, and so on."""
    found, waiting = dict(start), list(start.items())
    while waiting:
        module, path = waiting.pop()
        for asked in _imports(module, path):
            for name, file in _resolve(asked, search, always):
                if name not in found:
                    found[name] = file
                    waiting.append((name, file))
    return found


def _imports(module: str, path: Path) -> Iterator[str]:
    """Names that a file imports anywhere in its text; ``from a import b`` may name a module a.b."""
    if path.suffix != ".py":
        return
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return  # whoever loads it says so
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=base, names=names, level=level):
                parts = package.split(".") if level and package else []
                parts = parts[: len(parts) - level + 1] if level else []
                whole = ".".join([*parts, *([base] if base else [])])
                if whole:
                    yield whole
                    yield from (f"{whole}.{alias.name}" for alias in names if alias.name != "*")
            case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__")):
                if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                    yield node.args[0].value


def _resolve(name: str, search: list[str], always: str) -> Iterator[tuple[str, Path]]:
    """The modules that importing `name` runs, from its package down, as far as they are the user's."""
    path: list[str] | None = None
    done = ""
    for part in name.split("."):
        done = f"{done}.{part}" if done else part
        spec = _spec(done, path, search)
        if spec is None:
            return
        file = Path(spec.origin).resolve() if spec.origin and spec.has_location else None
        if file is not None:
            if not own(file) and (part := done.partition(".")[0]) != always:
                return
            yield done, file
        path = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
        if path is None:
            return


def _spec(name: str, path: list[str] | None, search: list[str]) -> ModuleSpec | None:
    if path is not None:
        return PathFinder.find_spec(name, path)
    if name in sys.builtin_module_names:
        return None
    found = PathFinder.find_spec(name, [*search, *sys.path])
    if found is not None:
        return found
    for finder in sys.meta_path:  # such as those of packages that are installed in place
        if finder in (PathFinder, importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter):
            continue
        try:
            spec = finder.find_spec(name, None)
        except Exception:  # a stranger's finder may want more than its protocol says
            continue
        if spec is not None:
            return spec
    return None

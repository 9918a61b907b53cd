"""How another program can make a network again: the user's files that it takes, and what a suite calls it."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import UserError

if TYPE_CHECKING:
    from torch import nn

SAY = "give build = 'file.py:function' that makes it"
DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
HARMLESS = (*DEFINES, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)


class Built(NamedTuple):
    """The user's files by where they are to lie, the name in a suite (``file.py:name`` or ``package.module:name``), and
    what is missing, if it cannot be made."""

    files: Mapping[str, Path]
    name: str
    missing: str


def built(net: nn.Module, build: str, still: Mapping[str, str]) -> Built:
    """How to make `net` again; `still` are the numbers in its attributes that no pass changes, by name."""
    from bench.lab.weights.memory import function_of, own

    if build:
        file, name = Path(build.rpartition(":")[0]), build.rpartition(":")[2]
        if not file.is_file():
            raise UserError("build", f"there is no file {file}", "write build = 'file.py:function'")
        return _found(file.resolve(), name, "")
    one: Any = function_of(net) or type(net)
    name = getattr(one, "__qualname__", type(one).__name__)
    try:
        source = inspect.getsourcefile(one)
    except TypeError:
        source = None
    if source is None or not Path(source).is_file() or "<" in name:
        return _not(f"the source of {name} is in no file that a suite can name: {SAY}")
    if not own(source):
        return _not(f"{name} is a class of {Path(source).parent.name}, whose arguments no suite knows: {SAY}")
    if one.__module__ == "__main__" and _runs(Path(source)):
        what = f"{Path(source).name} is a program, which runs when {name} is imported from it"
        return _not(f'{what}: put what it does under if __name__ == "__main__", or {name} into a file of its own')
    if inspect.isclass(one) and (other := _other(one, net, still)):
        return _not(f"{other}: {SAY}")
    module = sys.modules.get(one.__module__)
    package = getattr(module, "__package__", None) or ""
    return _found(Path(source).resolve(), name, one.__module__ if package else "")


def _not(why: str) -> Built:
    return Built({}, "", why)


def _found(file: Path, name: str, module: str) -> Built:
    """The file with all modules of the user's that it imports, a package's where its names expect them."""
    from bench.suite.code import read

    root = file.parents[module.count(".") + (file.name == "__init__.py")] if module else file.parent
    where = f"{module or file.name}:{name}"
    code = read(where, (), [root])
    files = {} if module else {file.name: file}
    for called, path in code.modules.items() if code is not None else ():
        if called and path.suffix == ".py":
            within = called.split(".")
            tail = [*within, "__init__.py"] if path.name == "__init__.py" else [*within[:-1], f"{within[-1]}.py"]
            files["/".join(tail)] = path
    return Built(files, where, "")


def _runs(file: Path) -> bool:
    """Whether importing a file does more than define things."""
    try:
        body = ast.parse(file.read_text("utf-8")).body
    except (OSError, SyntaxError, ValueError):
        return False
    return not all(_harmless(node) for node in body)


def _harmless(node: ast.stmt) -> bool:
    """Whether a statement of a module defines something, or is no program's when it is imported."""
    if isinstance(node, ast.If):
        return "__name__" in ast.unparse(node.test)
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, HARMLESS) and ("evaluate(" not in ast.unparse(node) or isinstance(node, DEFINES))


def _other(kind: Any, net: nn.Module, still: Mapping[str, str]) -> str:
    """Why the class called without arguments is another network than this one; empty if it is the same."""
    import torch

    from bench.lab.foreign.held import of_network
    from bench.lab.streams import fenced

    name = kind.__qualname__
    try:
        inspect.signature(kind).bind()
    except (TypeError, ValueError):
        return f"{name} takes arguments that no suite knows"
    fresh: Any = None
    for device in ("meta", "cpu"):  # without numbers, if its code can do without
        try:
            with fenced(0), torch.device(device):
                fresh = kind()
            break
        except Exception as error:
            why = f"{name}() cannot be made: {type(error).__name__}: {error}"
    if fresh is None:
        return why
    mine, theirs = ({key: tuple(t.shape) for key, t in one.state_dict().items()} for one in (net, fresh))
    if mine != theirs:
        key = next((key for key in mine if mine[key] != theirs.get(key)), next(iter(theirs.keys() - mine.keys()), ""))
        return f"{name}() is another network than this: {key} is {theirs.get(key)} there and {mine.get(key)} here"
    held = of_network(fresh)
    for key, value in still.items():
        if held.get(key, value) != value:
            return f"{name}() is another network than this: {key.strip('.')} is {held[key]} there and {value} here"
    return ""

"""What a suite says of the world beside it: files and code that it names, and images that must be there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

from pydantic import ValidationError

from bench import UserError
from bench.recipes import Data, Fetched, Peer
from bench.suite import code

Survey = Callable[[Data, Sequence[Path]], Data]
"""Completes a data set of the user's own by what its files say; UserError where they are no images."""


def placed(recipe: Any, folders: Sequence[Path], survey: Survey | None = None) -> tuple[Any, dict[str, str]]:
    """The recipe with the place and the digest of what it names, and its mistakes by key.

    Names are relative to the first of `folders` that has them: the suite's own, then the run's.
    """
    match recipe:
        case Data(own=True):
            wrong = _outside(recipe)
            if survey is None or wrong:
                return recipe, wrong
            try:
                found = survey(recipe, folders)
            except UserError as error:
                return recipe, {"path": f"{error.where}: {error.what}" + (f" ({error.fix})" if error.fix else "")}
            except ValidationError as error:  # such as an index past the images that were found
                return recipe, {"indices": str(error.errors()[0]["msg"]).removeprefix("Value error, ")}
            return found, _images(found)
        case Data():
            return recipe, _images(recipe)
        case Fetched() | Peer(kind="python"):
            wrong = _outside(recipe)
            return (recipe, wrong) if wrong else _found(recipe, folders)
    return recipe, {}


def _images(data: Data) -> dict[str, str]:
    whole, split = data.whole, data.split
    if data.start >= whole:
        return {"start": f"start = {data.start} is past the last of the {whole:,} images of {split}"}
    if data.stop is not None and data.stop > whole:
        return {"stop": f"stop = {data.stop} is past the {whole:,} images of {split}; leave it out for all of them"}
    return {}


def _outside(recipe: Fetched | Peer | Data) -> dict[str, str]:
    """A suite may come from a stranger: the files that it names lie below its own folder or the run's."""
    named = [("path", recipe.path)] if isinstance(recipe, Data) else [("files", file) for file in recipe.files]
    if isinstance(recipe, Fetched):
        named += [("file", recipe.file or ""), ("build", recipe.build), ("state", recipe.state)]
        named += [("name", recipe.name)] if recipe.kind == "file" else []
    wrong = {}
    for key, file in named:
        path = PurePath(file)
        if path.is_absolute() or ".." in path.parts or not str(path).isprintable():
            wrong[key] = f"{file!r} leads outside the folder of the run (--root) and the suite's"
    return wrong


def _found(recipe: Fetched | Peer, folders: Sequence[Path]) -> tuple[Fetched | Peer, dict[str, str]]:
    if recipe.kind != "python":
        assert isinstance(recipe, Fetched)
        if recipe.files:
            return recipe, {"files": f'files belong to kind = "python", not to {recipe.kind!r}'}
        file = recipe.file or (recipe.name if recipe.kind == "file" else None)
        file = (recipe.state or recipe.build.rpartition(":")[0]) if recipe.kind == "memory" else file
        place = next((folder for folder in folders if file and (folder / file).exists()), None)
        return (recipe if place is None else recipe.model_copy(update={"place": str(place)})), {}
    found = code.read(recipe.name, recipe.files, folders)
    if found is None:
        return recipe, {}  # whoever loads it says what is missing
    if recipe.code not in (None, found.digest):
        return recipe, {"code": f"the code is now {found.digest}: put the former back, or leave code out"}
    return recipe.model_copy(update={"place": str(found.place), "code": found.digest}), {}

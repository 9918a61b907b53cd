"""Weights that somebody else made: a `Fetched` recipe to a classifier, and the proof of which files they are."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, assert_never

from bench import Refused, UserError
from bench.lab.foreign import own
from bench.lab.foreign.state import fingerprint
from bench.lab.weights import build, files
from bench.models.adapters.checkpoint import Loaded, read, sha256, state_of
from bench.models.adapters.randomised import GlobalRandom, Held
from bench.models.adapters.wrappers import Prepared
from bench.models.classifier import Classifier, Plain
from bench.recipes import Fetched, Trained
from bench.store.records import Store

NOTE = "fetched.json"
PLACE = "BENCH_MODELS"


def fetch(recipe: Fetched, root: Path, download: bool = True) -> Classifier:
    """The classifier, on the CPU, in eval mode, parameters frozen.

    It is what the store's record says that it is, if there is one. UserError, naming library and model, where
    it cannot be had, is refused, does not fit, or has changed since the numbers here were made.
    """
    note, classifier = load(recipe, root, download)
    changed = differs(recipe, note, root)
    if changed is not None:
        what = f"{changed} is not the one that the numbers here were made with: they are stale"
        raise Refused(name_of(recipe), what, "restore it, or judge again with what is there now: run with --fresh")
    return classifier


def load(recipe: Fetched, root: Path, download: bool = True) -> tuple[dict[str, Any], Classifier]:
    """What the model is (source, classes, SHA-256 of its files, of its numbers, and of files that its code read), and
    the classifier, on the CPU, in eval mode, parameters frozen. UserError as `fetch`.
    """
    if recipe.kind == "python":
        mine = own.load(recipe, root, name_of(recipe))
        loaded, more, held = _prepared(recipe, mine.loaded), mine.about, mine.held
    else:
        loaded, more, held = _load(recipe, root, download), {}, []
    files = _hashes(recipe, loaded)
    note = {"source": loaded.source, "classes": loaded.classes, "sha256": files, "state": fingerprint(loaded.net)}
    return note | more, _classifier(recipe, loaded, held)


def _classifier(recipe: Fetched, loaded: Loaded, held: Sequence[Held]) -> Classifier:
    if isinstance(loaded.net, Classifier):
        classifier = loaded.net
        declared = recipe.stochastic or recipe.kind == "slwta"
        if classifier.stochastic != declared and recipe.noise is None and recipe.defence is None:
            fix = f"set stochastic = {str(classifier.stochastic).lower()}"
            raise UserError(name_of(recipe), "it says otherwise of being stochastic than the suite does", fix)
    elif recipe.stochastic:
        classifier = GlobalRandom(loaded.net, loaded.classes, held)
    else:
        classifier = Plain(loaded.net, loaded.classes)
    return classifier.eval().requires_grad_(False)


def describe(
    recipe: Fetched, folder: Path, root: Path | None = None, download: bool = True
) -> tuple[dict[str, Any], Classifier]:
    """Load the model and write into `folder` what it is, as `load` says; returns the same, and the classifier.

    `folder` is the place of the record's task under `root`'s scratch folder, from which root is
    taken if it is not given. UserError as `fetch`.
    """
    root = root or next((parent.parent for parent in folder.resolve().parents if parent.name == ".bench"), Path())
    note, classifier = load(recipe, root, download)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NOTE).write_text(written(note), encoding="utf-8")
    return {"fetched": note}, classifier


def written(note: dict[str, Any]) -> str:
    """The note as its file holds it."""
    return json.dumps(note, indent=1) + "\n"


def model_dir(root: Path) -> Path:
    """Where downloaded weights are: the environment's BENCH_MODELS, or .bench/fetched under the root.

    RobustBench's files are in it as RobustBench has them: cifar10/Linf/<name>.pt.
    """
    return Path(os.environ.get(PLACE) or root / ".bench" / "fetched")


def name_of(recipe: Fetched) -> str:
    """What messages call it: ``weights robustbench Carmon2019Unlabeled``; ``your model Net`` of one in memory."""
    if recipe.kind == "memory":
        return f"your model {recipe.name}"
    return " ".join(filter(None, ("weights", recipe.kind, recipe.name or recipe.file)))


def _load(recipe: Fetched, root: Path, download: bool) -> Loaded:
    try:
        return _adapted(recipe, root, download)
    except FileNotFoundError as error:
        raise UserError(name_of(recipe), str(error)) from error
    except (ValueError, ImportError) as error:
        raise UserError(name_of(recipe), str(error)) from error


def _adapted(recipe: Fetched, root: Path, download: bool) -> Loaded:
    base = Path(recipe.place or root)
    file = None if recipe.file is None else base / recipe.file
    own: dict[str, Any] = {"mean": recipe.mean, "std": recipe.std, "resize": recipe.resize}
    arguments = dict(recipe.arguments)
    match recipe.kind:
        case "robustbench":
            from bench.models.adapters import robustbench

            loaded = robustbench.load(
                recipe.name, recipe.dataset, recipe.threat, model_dir=model_dir(root), file=file, download=download
            )
            return _prepared(recipe, loaded)
        case "timm":
            from bench.models.adapters import timm

            return timm.load(recipe.name, recipe.classes, file=file, download=download, arguments=arguments, **own)
        case "torchvision":
            from bench.models.adapters import torchvision

            return torchvision.load(
                recipe.name, recipe.classes, file=file, download=download, arguments=arguments, **own
            )
        case "autoattack-example":
            from bench.models.adapters import autoattack_example

            return _prepared(recipe, autoattack_example.load())
        case "python":
            raise TypeError("bench.lab.foreign.own loads it")
        case "huggingface":
            from bench.models.adapters import huggingface

            revision = arguments.pop("revision", None)
            if recipe.network is None:
                return huggingface.load(
                    recipe.name, recipe.classes, revision=revision, file=recipe.file, download=download, **own
                )
            found = huggingface.repository(recipe.name, revision=revision, file=recipe.file, download=download)
            return _built(recipe, found.state(), huggingface.files_of(found), found.folder.name)
        case "memory":
            from bench.lab.weights import memory

            return memory.load(recipe, base)
        case "file":
            return _from_file(recipe, base / (recipe.file or recipe.name))
        case "slwta":
            from bench.models.adapters import slwta

            return slwta.load(file)
        case _:
            assert_never(recipe.kind)


def _from_file(recipe: Fetched, path: Path) -> Loaded:
    """Weights of our own kind of network: a folder as `files.save` writes it, or one checkpoint."""
    if path.is_dir():
        return _built(recipe, files.load(path), tuple(sorted(path.glob("*.safetensors*"))), "file")
    return _built(recipe, state_of(read(path), path), (path,), "file")


def _built(recipe: Fetched, state: Any, files: tuple[Path, ...], source: str) -> Loaded:
    if recipe.network is None:
        raise UserError(
            f"{name_of(recipe)}: network", "a file of weights does not say of which network they are", "name one"
        )
    if recipe.noise is None and recipe.defence is None and not any(name.startswith("net.") for name in state):
        state = {f"net.{name}": tensor for name, tensor in state.items()}
    state = {name: t.float() if t.is_floating_point() else t for name, t in state.items()}
    classifier = build.build(Trained(network=recipe.network, noise=recipe.noise, defence=recipe.defence))
    build.fit(classifier, state, name_of(recipe))
    return _prepared(recipe, Loaded(classifier, classifier.classes, files, source))


def _prepared(recipe: Fetched, loaded: Loaded) -> Loaded:
    if recipe.mean is None and recipe.std is None and recipe.resize is None:
        return loaded
    if isinstance(loaded.net, Classifier):
        fix = "leave mean, std and resize out"
        raise UserError(name_of(recipe), "this model does its own preprocessing", fix)
    return loaded._replace(net=Prepared(loaded.net, recipe.mean, recipe.std, recipe.resize).eval())


def _hashes(recipe: Fetched, loaded: Loaded) -> dict[str, str]:
    """SHA-256 by file name; UserError unless one of them is what the recipe pins, and the classes are right."""
    if loaded.classes != recipe.classes:
        fix = f"set classes = {loaded.classes}"
        raise UserError(name_of(recipe), f"it has {loaded.classes} classes, the suite says {recipe.classes}", fix)
    if recipe.kind == "memory":
        return {"identity": recipe.sha256 or ""}  # `memory.load` has checked it
    found = {path.name: sha256(path) for path in loaded.files}
    if recipe.sha256 is not None and recipe.sha256 not in found.values():
        what = f"sha256 {', '.join(found.values()) or 'of no file'} is not the {recipe.sha256} that is pinned"
        raise UserError(name_of(recipe), what, "restore the file, or pin another after checking where it is from")
    return found


def differs(recipe: Fetched, note: dict[str, Any], root: Path) -> str | None:
    """The first thing (a file, or the numbers) of which `note` says otherwise than the store's record; None if none.

    Records of former versions say nothing of the numbers.
    """
    place = Store(root).place(recipe) / NOTE
    if not place.is_file():
        return None
    then = json.loads(place.read_text("utf-8"))
    for part in ("sha256", "read"):
        now, before = note.get(part, {}), then.get(part, {})
        if changed := [name for name in sorted(now.keys() | before.keys()) if now.get(name) != before.get(name)]:
            return f"the file {changed[0]}"
    if then.get("state", note["state"]) != note["state"]:
        return "its weights (parameters or buffers)"
    now, before = note.get("numbers", {}), then.get("numbers", {})  # a library's next version may know more of them
    changed = [name for name in sorted(now.keys() & before.keys()) if now[name] != before[name]]
    return f"the number {changed[0].removeprefix('.')} beside its weights" if changed else None

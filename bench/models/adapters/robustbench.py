"""RobustBench's model zoo, through its own `load_model`, past three wrinkles of how it is packaged.

robustbench 1.1.1 imports a module `autoattack` that PyPI does not have (its authors' package is
`pyautoattack`) and `pkg_resources`, which setuptools no longer has: both are lent to it while it
is imported and taken away again. The wheel of torchattacks carries an older top-level
`robustbench` of its own, so the one installed last overwrites the other: `installed` tells which
one is there. Its downloads are done by its own function, into a temporary name, and every file is
read by ``weights_only=True`` before the library reads it.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import io
import os
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from bench.models.adapters.checkpoint import Loaded, fill, read, state_of

MEND = "pip install --force-reinstall --no-deps robustbench"
State = Literal["whole", "overwritten", "missing"]


def installed() -> tuple[State, str]:
    """Whether robustbench's own files are what is on the disk, and a sentence about it; imports nothing.

    Each file is compared with the digest that the distribution recorded when it was installed.
    """
    try:
        distribution = importlib.metadata.distribution("robustbench")
    except importlib.metadata.PackageNotFoundError:
        old = importlib.util.find_spec("robustbench") is not None
        return "missing", "not installed" + (" (the old one inside torchattacks' wheel does not count)" if old else "")
    differ = []
    for name, digest, _ in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
        if not name.startswith("robustbench/") or not name.endswith(".py") or not digest:
            continue
        path = Path(str(distribution.locate_file(name)))
        kind, _, expected = digest.partition("=")
        if not path.is_file() or _digest(path, kind) != expected:
            differ.append(name)
    if differ:
        which = f"{len(differ)} of its files, {differ[0]} first, are not its own"
        return "overwritten", f"robustbench {distribution.version} was overwritten by torchattacks' wheel: {which}"
    return "whole", f"robustbench {distribution.version}, its own files"


def missing() -> list[str]:
    """The modules that robustbench imports and that are not installed; `imported` lends them."""
    return [name for name in ("autoattack", "pkg_resources") if importlib.util.find_spec(name) is None]


@contextlib.contextmanager
def imported() -> Iterator[types.ModuleType]:
    """The module robustbench.utils, imported with stand-ins for what it lacks; they are gone afterwards.

    ImportError if robustbench is missing or another package has overwritten it.
    """
    state, words = installed()
    if state != "whole":
        mend = "pip install 'freshdraws[robustbench]'" if state == "missing" else MEND
        raise ImportError(f"RobustBench's models cannot be loaded: {words}. Mend it with: {mend}")
    lent = _stand_ins(missing())
    before = {name: sys.modules.get(name) for name in lent}
    sys.modules.update(lent)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            utils = importlib.import_module("robustbench.utils")
        yield utils
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def load(
    name: str,
    dataset: str = "cifar10",
    threat: str = "Linf",
    *,
    model_dir: Path,
    file: Path | None = None,
    download: bool = True,
) -> Loaded:
    """A model of the zoo by its name and threat model, images in [0, 1] to logits, in eval mode.

    Its weights are `file`, or ``<model_dir>/<dataset>/<threat>/<name>.pt`` if it is there, or else
    downloaded to that place. FileNotFoundError, naming the place, where they cannot be had;
    ValueError for a name the zoo lacks or a file that is refused or does not fit.
    """
    with imported() as utils:
        zoo = utils.all_models[utils.BenchmarkDataset(dataset)][utils.ThreatModel(threat)]
        in_timm = f"{name.lower().replace('-', '_')}_{dataset}_{threat.lower()}"
        classes = int(utils.DATASET_CLASSES[utils.BenchmarkDataset(dataset)])
        source = f"robustbench {importlib.metadata.version('robustbench')}"
        place = Path(model_dir) / dataset / threat / f"{name}.pt"
        if utils.timm.is_model(in_timm):
            files = _here((file or place,))
            if not files:
                where = f"{file or place}, as the state dict of timm's {in_timm}"
                raise FileNotFoundError(f"{name} is a timm model whose weights are not here. Put them at {where}.")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                net = utils.timm.create_model(in_timm, num_classes=classes, pretrained=False)
            fill(net, state_of(read(files[0]), files[0]), files[0])
            return Loaded(net.eval(), classes, files, source)
        if name not in zoo:
            close = difflib.get_close_matches(name, zoo, n=3, cutoff=0.4)
            raise ValueError(
                f"RobustBench has no {dataset} {threat} model {name!r}; close: {', '.join(close) or 'none'}."
            )
        drive = zoo[name]["gdrive_id"]
        parts = len(drive) if isinstance(drive, list) else 0
        if file is not None and parts:
            raise ValueError(
                f"{name} is made of {parts} files: put them at {place}_m0.pt and so on, and leave file out."
            )
        if file is not None:
            return _from(utils, name, dataset, threat, file, classes, source=source)
        wanted = tuple(Path(f"{place}_m{i}.pt") for i in range(parts)) or (place,)
        for path, number in zip(wanted, drive if parts else [drive], strict=True):
            if not path.is_file():
                _fetch(utils, name, number, path, download)
            read(path)
        return Loaded(_load(utils, name, dataset, threat, Path(model_dir), wanted[0]), classes, wanted, source)


def _from(utils: Any, name: str, dataset: str, threat: str, file: Path, classes: int, *, source: str) -> Loaded:
    """The model with its weights from any file: the library is shown a folder in which it has the expected name."""
    read(file)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / dataset / threat / f"{name}.pt"
        place.parent.mkdir(parents=True)
        place.symlink_to(file.resolve())
        return Loaded(_load(utils, name, dataset, threat, Path(folder), file), classes, (file,), source)


def _load(utils: Any, name: str, dataset: str, threat: str, model_dir: Path, file: Path) -> Any:
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return utils.load_model(name, model_dir=model_dir, dataset=dataset, threat_model=threat)
    except (RuntimeError, KeyError, AttributeError, TypeError) as error:
        words = " ".join(str(error).split())[:300]
        raise ValueError(f"{file} does not fit RobustBench's {name}: {words}") from None


def _fetch(utils: Any, name: str, drive: str | None, path: Path, download: bool) -> None:
    """Download one file to `path`, which has either all of it or nothing."""
    put = f"Put RobustBench's checkpoint of {name} at {path}"
    if not download or drive is None:
        raise FileNotFoundError(f"The weights of {name} are not here. {put}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            utils.download_gdrive_new(drive, part)
        if not part.is_file():
            raise OSError("the drive sent nothing")
        read(part)
        os.replace(part, path)
    except Exception as error:
        words = " ".join(str(error).split())[:160]
        raise FileNotFoundError(f"The weights of {name} could not be downloaded ({words}). {put}.") from None
    finally:
        part.unlink(missing_ok=True)


def _here(files: tuple[Path, ...]) -> tuple[Path, ...]:
    return tuple(path for path in files if path.is_file())


def _digest(path: Path, kind: str) -> str:
    return base64.urlsafe_b64encode(hashlib.new(kind, path.read_bytes()).digest()).rstrip(b"=").decode()


def _stand_ins(names: list[str]) -> dict[str, types.ModuleType]:
    lent: dict[str, types.ModuleType] = {}
    if "autoattack" in names:
        lent["autoattack"] = importlib.import_module("pyautoattack")
        lent["autoattack.state"] = importlib.import_module("pyautoattack.state")
    if "pkg_resources" in names:
        lent["pkg_resources"] = types.ModuleType("pkg_resources")
        lent["pkg_resources"].resource_filename = _resource  # type: ignore[attr-defined]
    return lent


def _resource(package: str, name: str) -> str:
    """What pkg_resources.resource_filename does for files on the disk: `package` may be a module in it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(package)
    return str(Path(spec.origin).parent / name)

"""What this machine has, what will not work here and how to mend it; asks no network."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from bench.suite.libraries import install

Verdict = Literal["ok", "note", "broken"]
"""ok: as it should be; note: works, with something to know; broken: something will not work."""

OLDEST = (3, 11)
EXTRAS = {"foolbox": "foolbox", "ray": "ray", "tensorboard": "tensorboard"}


class Finding(NamedTuple):
    """One thing looked at: what it is, what was found, how that is, and what to do about it (or empty)."""

    what: str
    found: str
    verdict: Verdict
    fix: str = ""


def report(root: Path = Path(), data_root: Path | None = None) -> list[Finding]:
    """Every finding, in the order in which one would mend them. Imports torch; takes a few seconds."""
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "Python": _python,
        "torch": _torch,
        "device": _device,
        "torch.compile": _compiler,
        "CIFAR-10": lambda: _data(data_root),
        "root": lambda: _root(root),
        "libraries": _required,
        "torchattacks": _torchattacks,
        "pyautoattack": _pyautoattack,
        "robustbench": _robustbench,
        "timm": _timm,
        "fetched models": lambda: _models(root),
        "extras": _extras,
        "pins": _pins,
    }
    findings: list[Finding] = []
    for name, check in checks.items():
        try:
            findings += check()
        except Exception as error:  # a machine that breaks a check is exactly what a doctor is called to
            findings.append(Finding(name, f"could not be looked at: {type(error).__name__}: {error}", "broken"))
    return findings


def words(findings: list[Finding]) -> str:
    """The findings as lines of text, a fix under what needs one."""
    marks = {"ok": "ok    ", "note": "note  ", "broken": "BROKEN"}
    width = max(len(finding.what) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.verdict]}  {finding.what:<{width}}  {finding.found}")
        if finding.fix:
            lines.append(f"{'':8}{'':<{width}}  fix: {finding.fix}")
    return "\n".join(lines)


def healthy(findings: list[Finding]) -> bool:
    """Whether nothing is broken."""
    return all(finding.verdict != "broken" for finding in findings)


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    if sys.version_info < OLDEST:
        yield Finding("Python", version, "broken", "install Python 3.11 or later")
    else:
        yield Finding("Python", f"{version} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores", "ok")


def _torch() -> Iterator[Finding]:
    if _version("torch") is None:
        yield Finding("torch", "not installed", "broken", "pip install torch")
        return
    import torch

    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPU"
    yield Finding("torch", f"{torch.__version__}, {built}, {torch.get_num_threads()} threads", "ok")


def _device() -> Iterator[Finding]:
    import torch

    from bench.store.machine import gpus

    there = gpus()
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            words = f"{about.name}, {about.total_memory / 2**30:.0f} GiB, compute {about.major}.{about.minor}"
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
            note = "" if bf16 else "; bfloat16 is emulated: set precision = float32"
            yield Finding(f"cuda:{index}", words + note, "ok" if bf16 else "note")
    elif there:
        yield Finding("GPU", f"the driver reports {there}, and torch cannot use them", "broken", "install a CUDA torch")
    else:
        yield Finding("GPU", "none: a scale that declares gpu = true would take days to train here", "note")


def _compiler() -> Iterator[Finding]:
    wanted = os.environ.get("CXX", "g++"), os.environ.get("CC", "gcc"), "clang++", "cl"
    found = next((path for name in wanted if (path := shutil.which(name))), None)
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    lost = [] if found else ["a C++ compiler"]
    lost += [] if headers.is_file() else ["Python's headers (Python.h)"]
    if lost:
        fix = "apt install g++ python3-dev, or go on without: everything runs, slower"
        yield Finding("torch.compile", f"lacks {' and '.join(lost)}", "note", fix)
    else:
        yield Finding("torch.compile", f"{found}, Python.h", "ok")


def _data(data_root: Path | None) -> Iterator[Finding]:
    from bench import UserError
    from bench.lab.images.load import load

    root = data_root or (Path(os.environ["BENCH_DATA"]) if os.environ.get("BENCH_DATA") else None)
    for split, where in (("test", "shipped"), ("excerpt", "shipped"), ("train", str(root or "no folder given"))):
        try:
            images = load("cifar10", split, root)
            yield Finding(f"CIFAR-10 {split}", f"{len(images.labels):,} images, fingerprint right ({where})", "ok")
        except UserError as error:
            if split == "train" and root is None:
                fix = "give --data-root or BENCH_DATA; training from scratch fetches it, where there is a network"
                yield Finding("CIFAR-10 train", "not here: only needed to train at full scale", "note", fix)
            else:
                yield Finding(f"CIFAR-10 {split}", f"{error.where}: {error.what}", "broken", error.fix)


def _root(root: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(root).free / 2**30
    if not os.access(root, os.W_OK):
        yield Finding(
            "root", f"{root.resolve()} cannot be written", "broken", "give --root a folder that can be written"
        )
    elif free < 2:
        yield Finding("root", f"{free:.1f} GiB free at {root.resolve()}", "note", "examples and weights need more")
    else:
        yield Finding("root", f"{root.resolve()}, {free:.0f} GiB free", "ok")


def _required() -> Iterator[Finding]:
    lost, versions = [], []
    for name in ("torchvision", "numpy", "scipy", "pyarrow", "pydantic", "safetensors", "huggingface_hub"):
        version = _version(name)
        lost += [name] if version is None else []
        versions += [f"{name} {version}"] if version else []
    if lost:
        yield Finding("libraries", f"missing: {', '.join(lost)}", "broken", f"pip install {' '.join(lost)}")
    yield Finding("libraries", ", ".join(versions), "ok")


def _torchattacks() -> Iterator[Finding]:
    version = _version("torchattacks")
    if version is None:
        yield Finding("torchattacks", "not installed: its attacks cannot run", "note", install(["peers"]))
        return
    yield Finding("torchattacks", f"{version}; its APGD, FAB and AutoAttack run 10 steps by default, here 100", "ok")


def _pyautoattack() -> Iterator[Finding]:
    version = _version("pyautoattack")
    if version is None:
        yield Finding("pyautoattack", "not installed: AutoAttack cannot run", "note", install(["peers"]))
        return
    yield Finding("pyautoattack", f"{version}; seeds the global generator at each call: fenced here", "ok")


def _robustbench() -> Iterator[Finding]:
    from bench.models.adapters.robustbench import MEND, installed, missing

    state, words = installed()
    if state == "missing":
        yield Finding("robustbench", f"{words}: its models cannot be had", "note", install(["robustbench"]))
    elif state == "overwritten":
        yield Finding("robustbench", words, "broken", MEND)
    else:
        lent = missing()
        note = (
            f"; imports {' and '.join(lent)}, which are not installed: lent to it while it is imported" if lent else ""
        )
        yield Finding("robustbench", words + note, "ok")


def _timm() -> Iterator[Finding]:
    version = _version("timm")
    if version is None:
        yield Finding("timm", "not installed: its models cannot be had", "note", install(["timm"]))
    else:
        yield Finding("timm", f"{version}; pretrained weights are fetched here, as safetensors, not by timm", "ok")


def _models(root: Path) -> Iterator[Finding]:
    place = Path(os.environ.get("BENCH_MODELS") or root / ".bench" / "fetched")
    files = sorted(place.glob("*/*/*.pt")) if place.is_dir() else []
    listed = ", ".join(path.stem for path in files[:5]) + (" ..." if len(files) > 5 else "")
    found = f"{len(files)} of RobustBench's in {place}" + (f": {listed}" if files else "")
    yield Finding("fetched models", found, "ok" if files else "note")


def _extras() -> Iterator[Finding]:
    for name, extra in EXTRAS.items():
        version = _version(name)
        if version is None:
            yield Finding(name, "not installed (optional)", "note", install([extra]))
        else:
            yield Finding(name, version, "ok")


def _pins() -> Iterator[Finding]:
    """What the libraries demand of one another and do not get."""
    if importlib.util.find_spec("packaging") is None:
        return
    from packaging.requirements import Requirement

    for name in ("torchattacks", "robustbench", "pyautoattack", "timm", "torchvision"):
        if _version(name) is None:
            continue
        for line in importlib.metadata.requires(name) or ():
            wanted = Requirement(line)
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
                continue
            have = _version(wanted.name)
            if have is None:
                yield Finding(name, f"wants {wanted.name}, which is missing", "note", f"pip install '{wanted}'")
            elif not wanted.specifier.contains(have, prereleases=True):
                yield Finding(name, f"wants {wanted.name}{wanted.specifier}, and {have} is installed", "note")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None

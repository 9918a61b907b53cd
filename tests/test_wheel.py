"""A wheel, installed by itself and used from a stranger's folder: one with a package `models` and a `bench.py`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import own_data
import pytest

ROOT = Path(__file__).parent.parent
NET = """
from models.parts import block          # the user's own package
from bench import NAME                   # and the user's own bench.py
import torch
assert NAME == "mine"
def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(*block(), torch.nn.Flatten(), torch.nn.Linear(3072, 10))
"""
SUITE = """
[datasets.test]
kind = "npz"
path = "mine.npz"
[weights.net]
kind = "python"
name = "net.py:build"
[models.net]
weights = "net"
[tables.t]
rows = ["net"]
columns = ["clean"]
"""


def run(words: list[str], folder: Path, path: Path | None) -> subprocess.CompletedProcess[str]:
    keep = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    more = {"PYTHONPATH": str(path)} if path else {}
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, env=keep | more | {"OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of the files that git knows and installed into a folder of its own."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0"):
        if name.startswith(("bench/", "suites/", "models/claims/", "pyproject", "README")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(place), str(source)], place, None)
    assert build.returncode == 0, build.stderr
    wheel = next(place.glob("*.whl"))
    target = place / "target"
    install = run([*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)], place, None)
    assert install.returncode == 0, install.stderr
    with zipfile.ZipFile(wheel) as file:
        (place / "names").write_text("\n".join(file.namelist()))
    return target


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("")
    (tmp_path / "models" / "parts.py").write_text("def block():\n    return []\n")
    (tmp_path / "bench.py").write_text(
        "NAME = 'mine'\nif __name__ == '__main__':\n    raise SystemExit('this is the bench.py of the user')\n"
    )
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "mine.npz").touch()
    own_data.npz(tmp_path / "mine.npz", *own_data.excerpt(12), classes=list("abcdefghij"))
    (tmp_path / "suite.toml").write_text(SUITE)
    return tmp_path


@pytest.mark.slow
def test_what_travels(installed: Path) -> None:
    names = (installed.parent / "names").read_text().splitlines()
    assert "bench/py.typed" in names and "bench/lab/images/data/cifar10/test.webp" in names
    assert any(name.endswith("share/freshdraws/suites/paper.toml") for name in names)
    assert any("share/freshdraws/claims/" in name for name in names)
    assert not [name for name in names if name.endswith(".safetensors") or name.split("/")[0] in ("models", "tests")]


@pytest.mark.slow
def test_from_a_strangers_folder(installed: Path, stranger: Path) -> None:
    """`-P` keeps the folder's own bench.py from standing in for the package; nothing else needs it."""
    done = run([sys.executable, "-P", "-m", "bench", "run", "suite.toml", "--device", "cpu"], stranger, installed)
    assert done.returncode == 0, done.stderr
    assert "| net |" in (stranger / "results" / "suite" / "tables.md").read_text()
    theirs = run([sys.executable, "-m", "bench", "--help"], stranger, installed)
    assert "bench.py of the user" in theirs.stderr
    (stranger / "bench.py").rename(stranger / "names.py")
    (stranger / "net.py").write_text(NET.replace("from bench import", "from names import"))
    again = run([sys.executable, "-m", "bench", "run", "suite.toml"], stranger, installed)
    assert again.returncode == 0, again.stderr  # with nothing in the package's way, no -P
    shipped = run([sys.executable, "-m", "bench", "plan", "suites/paper.toml", "--scale", "quick"], stranger, installed)
    assert shipped.returncode == 0 and "to make" in shipped.stdout, shipped.stderr


@pytest.mark.slow
def test_types_are_there(installed: Path, stranger: Path) -> None:
    (stranger / "use.py").write_text(
        "import bench\nreport: bench.Report = bench.evaluate(1)\nreveal_type(report.clean)\n"
    )
    (stranger / "bench.py").unlink()
    flags = ["--follow-imports=silent", "--ignore-missing-imports", "--no-incremental"]
    done = run([sys.executable, "-m", "mypy", *flags, "use.py"], stranger, installed)
    assert 'Revealed type is "bench.api.numbers.Number"' in done.stdout, done.stdout + done.stderr


def test_an_import_is_quick_and_without_torch() -> None:
    code = "import sys, bench; assert 'torch' not in sys.modules and 'numpy' not in sys.modules; print(bench.__all__)"
    times = []
    for words in (["-c", "pass"], ["-c", code]) * 3:
        begun = time.perf_counter()
        done = run([sys.executable, *words], ROOT, ROOT)
        assert done.returncode == 0, done.stderr
        times.append(time.perf_counter() - begun)
    assert min(times[1::2]) - min(times[::2]) < 0.1

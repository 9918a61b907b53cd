"""The arrows of the house: who may import whom, and what starts without torch."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("bench/**/*.py"), *ROOT.glob("models/**/*.py")])
TORCH = {"torch", "torchvision", "torchattacks", "pyautoattack", "robustbench", "timm", "foolbox", "safetensors"}


def imports(path, top_only):
    """Modules that a file imports (at import time only, if `top_only`)."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    name = path.relative_to(ROOT).with_suffix("").as_posix()
    found = set(imports(path, top_only=False))
    roots = {module.split(".")[0] for module in found}
    if name.startswith("models/"):
        assert "bench" not in roots
    elif not name.startswith("bench/lab/"):
        top = {module.split(".")[0] for module in imports(path, top_only=True)}
        assert not top & TORCH, "torch stays in bench/lab"
        assert not {m for m in imports(path, top_only=True) if m.startswith(("bench.lab", "models"))}
    order = {
        "bench/errors": set(),
        "bench/values": set(),
        "bench/attacks": {"bench.values"},
        "bench/recipes": {"bench.values", "bench.attacks", "bench.training"},
        "bench/votes": {"bench.errors"},
    }
    if name in order:
        assert {module for module in found if module.startswith("bench")} <= order[name]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_small(path):
    assert len(path.read_text().splitlines()) <= 360, "would two names tell more than one?"


@pytest.mark.parametrize("words", [["--help"], ["plan", "suites/paper.toml", "--scale", "full"], ["list", "attacks"]])
def test_starts_without_torch(words, tmp_path):
    code = (
        "import sys; sys.argv[1:] = " + repr(words) + "\nfrom bench.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"BENCH_ROOT": str(tmp_path), "PATH": "", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr


def test_help_is_quick():
    """Medians, and against the interpreter's own start, so that a slow machine is no failure."""

    def seconds(*words):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, check=True)
            times.append(time.perf_counter() - start)
        return sorted(times)[1]

    assert seconds("-m", "bench", "--help") < 0.5 + 10 * seconds("-c", "pass")


def test_no_machine_path_in_the_repository():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    bad = ["/" + "work/", "/" + "home/", "/" + "root/"]
    for name in tracked:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".cfg", ""} and path.is_file() and path.stat().st_size < 1 << 20:
            text = path.read_text(errors="replace")
            assert not [word for word in bad if f" {word}" in text or f'"{word}' in text], name

"""The house: who may import whom, how large a room may be, and what starts without torch."""

import ast
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "bench").rglob("*.py"))
TORCH = {"torch", "torchvision", "torchattacks", "pyautoattack", "robustbench", "timm", "foolbox", "safetensors"}
FLOORS = ["recipes", "suite votes store", "lab", "run", "report", "cli api", "compat"]
"""Each floor may import those before it, and of its own only itself; `bench` itself and its models stand below all."""
TORCHED = ("bench/lab/", "bench/models/")
ENTRIES = {
    "__init__.py", "__main__.py", "api", "cli", "compat.py", "lab", "models", "py.typed", "recipes", "report", "run",
    "store", "suite", "votes",
}  # fmt: skip


def name_of(path):
    return path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__").replace("/", ".")


MODULES = {name_of(path): path for path in SOURCES}


def imports(path, top_only=False):
    """Modules that a file imports (at import time only, if `top_only`), submodules by their own names."""
    tree = ast.parse(path.read_text())
    nodes = list(tree.body) if top_only else list(ast.walk(tree))
    for node in nodes:
        if top_only and isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef | ast.For | ast.While):
            typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            nodes += ([] if typing else node.body) + getattr(node, "orelse", []) + getattr(node, "finalbody", [])
            nodes += [inner for handler in getattr(node, "handlers", []) for inner in handler.body]
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from inner & MODULES.keys()
            if not inner <= MODULES.keys():
                yield node.module


def floor_of(module):
    parts = module.split(".")
    room = parts[1] if len(parts) > 1 else ""
    return next((i for i, floor in enumerate(FLOORS) if room in floor.split()), -1), room


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_follow_the_arrows(path):
    mine, room = floor_of(name_of(path))
    for module in set(imports(path)):
        if not module.startswith("bench."):
            continue
        theirs, other = floor_of(module)
        if name_of(path) in ("bench", "bench.__main__"):
            continue  # the door: it loads by name, when asked
        if room == "models":
            assert other == "models", f"the model code knows no harness: {module}"
        elif other == "models":
            doctor = name_of(path) == "bench.cli.doctor"  # it asks the adapters what they miss
            assert room in ("lab", "api", "compat") or doctor, f"networks are met in the lab: {module}"
        else:
            assert theirs < mine or other == room, f"{module} is not below {name_of(path)}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_torch_stays_in_the_lab(path):
    """Elsewhere neither torch nor what imports it is loaded by an import; a function may load it when it is called."""
    if not path.relative_to(ROOT).as_posix().startswith(TORCHED):
        found = {*imports(path, top_only=True)}
        assert not {module.split(".")[0] for module in found} & TORCH
        assert not {module for module in found if module.startswith(("bench.lab", "bench.models"))}


def test_no_module_imports_itself_round_a_circle():
    """At import time; a function's own import is how a circle is cut."""
    graph = defaultdict(set)
    for name, path in MODULES.items():
        graph[name] = {module for module in imports(path, top_only=True) if module in MODULES and module != name}
    done, open_ = set(), []

    def walk(name):
        if name in done:
            return
        assert name not in open_, " -> ".join([*open_[open_.index(name) :], name])
        open_.append(name)
        for other in sorted(graph[name]):
            if not name.startswith(f"{other}."):  # a package is always there before its modules
                walk(other)
        open_.pop()
        done.add(name)

    for name in sorted(graph):
        walk(name)


def test_the_first_floor_has_fourteen_doors_at_most():
    there = {path.name for path in (ROOT / "bench").iterdir() if path.name != "__pycache__"}
    assert there <= ENTRIES and len(ENTRIES) <= 14


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_are_small(path):
    assert len(path.read_text().splitlines()) <= 250, "would two names tell more than one?"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_functions_take_six_arguments_by_place_at_most(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not any(
            ast.unparse(d).startswith(("app.command(", "command(")) for d in node.decorator_list
        ):
            places = [a.arg for a in node.args.posonlyargs + node.args.args if a.arg not in ("self", "cls")]
            assert len(places) <= 6, f"{node.name}({', '.join(places)})"


def test_the_door_gives_the_rooms_errors_alone():
    """`bench` itself loads the Python interface by name: nobody below may reach it through the door."""
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "bench" and name != "bench":
                own = {"UserError", "Paused", "Refused", "nearest", "__version__"}
                asked = {alias.name for alias in node.names} - own
                assert all(f"bench.{word}" in MODULES for word in asked), f"{name}: {asked}"


def test_one_place_says_which_device_is_booked():
    """Five callers book and learn rates: each by the answer of store/machine.py, none by one of its own."""
    found = 0
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Rates":
                found += 1
                assert ast.unparse(node.args[1]).split("(")[0].split(".")[-1] == "kind", f"{name}: {ast.unparse(node)}"
    assert found >= 3


def test_no_test_imports_a_test():
    for path in (ROOT / "tests").rglob("*.py"):
        assert not [module for module in imports(path) if module.split(".")[0].startswith("test_")], path


@pytest.mark.parametrize("words", [["--help"], ["plan", "suites/paper.toml", "--scale", "full"], ["list", "attacks"]])
def test_starts_without_torch(words, tmp_path):
    code = (
        "import sys; sys.argv[1:] = " + repr(words) + "\nfrom bench.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"BENCH_ROOT": str(tmp_path), "PATH": "", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
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

    assert seconds("-m", "bench", "--help") < 0.2 + 10 * seconds("-c", "pass")


def test_no_machine_path_in_the_repository():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    bad = ["/" + "work/", "/" + "home/", "/" + "root/"]
    for name in tracked:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".cfg", ""} and path.is_file() and path.stat().st_size < 1 << 20:
            text = path.read_text(errors="replace")
            assert not [word for word in bad if f" {word}" in text or f'"{word}' in text], name

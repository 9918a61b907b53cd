"""The scale of the graph: ten thousand cells planned and resumed, a hundred thousand artefacts in the store.

python -m pytest tests/benchmarks/test_scale.py -s
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.recipes import Data, Examples, Model, Outcomes, Trained, Training
from bench.report.planned import planned_text
from bench.run.session import open_suite, planned
from bench.store.records import Store
from bench.store.tasks import Settings
from bench.votes.votes import to_parquet

sys.path.insert(0, str(Path(__file__).parent.parent))
from made_votes import honest

ROOT = Path(__file__).parent.parent.parent
PLAN, RESUME = 2.0, 5.0  # seconds of processor time for ten thousand cells


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is made here need not survive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    yield


def suite(root: Path, models: int, attacks: int) -> Path:
    """A suite of models x attacks cells."""
    words = ["[datasets.test]\nstop = 50\n[networks.n]\ndepth = 10\nwidth = 1\n"]
    words += [
        f'[trainings.t{i}]\nseed = {i}\n[weights.w{i}]\nkind = "trained"\nnetwork = "n"\ntraining = "t{i}"\n'
        f'[models.m{i}]\nweights = "w{i}"\n'
        for i in range(models)
    ]
    words += [f'[attacks.a{j}]\nkind = "pgd"\nsteps = {j + 1}\n' for j in range(attacks)]
    rows, columns = [f"m{i}" for i in range(models)], [f"a{j}" for j in range(attacks)]
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"scale{models}.toml"
    path.write_text("".join([*words, f"[tables.t]\nrows = {rows}\ncolumns = {columns}\n"]))
    return path


def timed(path: Path, root: Path) -> tuple[float, int, int]:
    """Processor seconds of a plan in words, records found, records to make."""
    start = time.process_time()
    session = open_suite(path, "auto", None, Settings(root, device="cpu"))
    plan = planned(session, session.wanted(), False)
    planned_text(session, plan, False)
    return time.process_time() - start, len(plan.found), len(plan.order)


def test_ten_thousand_cells(tmp_path: Path, quick_disk: None):
    seconds = {}
    for models in (25, 50, 100):
        seconds[models], _, missing = timed(suite(tmp_path, models, 100), tmp_path)
        assert missing == models * 100 * 2 + models
    print(f"\nplan of 2,500, 5,000, 10,000 cells: {', '.join(f'{s:.2f} s' for s in seconds.values())}")
    assert seconds[100] < PLAN
    store = Store(tmp_path)
    session = open_suite(suite(tmp_path, 100, 100), "auto", None, Settings(tmp_path, device="cpu"))
    start = time.process_time()
    for cell in session.suite.cells():
        votes = to_parquet(honest(cell.outcomes, 0.6))
        store.seal(cell.outcomes, lambda at, votes=votes: (at / "votes.parquet").write_bytes(votes) and None, {}, {})
    print(f"10,000 records sealed: {time.process_time() - start:.1f} s")
    resumed, found, missing = timed(suite(tmp_path, 100, 100), tmp_path)
    print(f"resume with all of them there: {resumed:.2f} s")
    assert (found, missing) == (10_000, 0)
    assert resumed < RESUME
    words = [sys.executable, "-m", "bench", "run", str(tmp_path / "scale100.toml"), "--root", str(tmp_path), "--quiet"]
    whole = []
    for _ in range(2):
        start = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run([*words, "--device", "cpu"], cwd=ROOT, check=True)
        whole.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - start)
    print(f"bench run: {whole[0]:.1f} s with tables and page, {whole[1]:.1f} s when they are there")
    assert whole[1] < RESUME


def test_memory_grows_with_the_cells_and_no_faster(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from bench.run.session import open_suite, planned\n"
        "from bench.store.tasks import Settings\n"
        "s = open_suite(Path(sys.argv[1]), 'auto', None, Settings(Path(sys.argv[2]), device='cpu'))\n"
        "p = planned(s, s.wanted(), False)\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )

    def peak(models: int) -> int:
        words = [sys.executable, "-c", code, str(suite(tmp_path, models, 100)), str(tmp_path)]
        return int(subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout)

    small, middle, large = peak(1), peak(50), peak(100)
    print(f"\npeak memory of a plan of 100, 5,000, 10,000 cells: {small >> 10}, {middle >> 10}, {large >> 10} MiB")
    assert large - small < 2.5 * (middle - small)
    assert large < 1 << 20


def test_a_hundred_thousand_artefacts(tmp_path: Path, quick_disk: None):
    """Finding and sealing cost the same in a full store as in an empty one."""
    store, model = Store(tmp_path), Model(weights=Trained(training=Training(seed=1)))
    few = [Outcomes(examples=Examples(data=Data(stop=20)), target=model, seed=seed) for seed in range(300)]
    votes = to_parquet(honest(few[0], 0.6))

    def work(some: list[Outcomes]) -> float:
        start = time.process_time()
        for recipe in some:
            assert store.find(recipe) is None
            store.seal(recipe, lambda at: (at / "votes.parquet").write_bytes(votes) and None, {}, {})
            assert store.find(recipe) is not None
        return (time.process_time() - start) / len(some)

    empty = work(few)
    shelf, made = tmp_path / "results" / "records", 0
    first = store.place(few[0])
    files = {path.name: path.read_bytes() for path in first.iterdir()}
    while made < 100_000:
        folder = shelf / f"{made % 256:02x}" / f"{made % 256:02x}{made:062x}"
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        made += 1
    full = work([recipe.model_copy(update={"seed": recipe.seed + 1000}) for recipe in few])
    print(f"\nfind, seal, find: {1000 * empty:.2f} ms in an empty store, {1000 * full:.2f} ms among {made:,} records")
    assert full < 3 * empty + 0.002

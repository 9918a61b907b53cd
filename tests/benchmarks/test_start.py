"""What a user waits for before and after the work: an import, the help, a run that is finished already, a small run.

python -m pytest tests/benchmarks/test_start.py -s

Medians of whole processes beside their budgets, which no machine has to keep; the interpreter's own start stands first.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("REPEAT", "5"))
BUDGETS = {"import bench": 0.1, "bench --help": 0.15, "a finished run": 0.6, "a run of 8 images": 3.0}
SUITE = """
[datasets.test]
stop = 8
[weights.w]
kind = "autoattack-example"
[models.m]
weights = "w"
[tables.table]
rows = ["m"]
columns = ["clean"]
"""


def seconds(*words: str) -> float:
    begun = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def test_starts_and_ends(tmp_path: Path) -> None:
    """The small run is the same suite with its records made anew; its weights come with pyautoattack."""
    suite = tmp_path / "suite.toml"
    suite.write_text(SUITE)
    run = ["-m", "bench", "run", str(suite), "--root", str(tmp_path), "-q"]
    works = {
        "python itself": ["-c", "pass"],
        "import bench": ["-c", "import bench"],
        "bench --help": ["-m", "bench", "--help"],
        "a finished run": run,
        "a run of 8 images": [*run, "--fresh"],
    }
    seconds(*run)  # files read once, the first record
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, words in works.items():
            times[name].append(seconds(*words))
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, medians of {ROUNDS}")
    for name, took in times.items():
        budget = f"budget {BUDGETS[name]:.2f} s" if name in BUDGETS else ""
        print(f"{name:<20}{statistics.median(took):6.2f} s  ({min(took):.2f} to {max(took):.2f})  {budget}")
    # What holds on any machine: nothing of what is not asked for is loaded, so that each takes longer than the last.
    assert statistics.median(times["import bench"]) < statistics.median(times["a run of 8 images"])

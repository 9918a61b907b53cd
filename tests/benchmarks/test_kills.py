"""Thirty kills at random moments of a small run: thirty resumes, one result, the redone work counted.

python -m pytest tests/benchmarks/test_kills.py -s
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from small import SUITE, TASKS, go, result

ROOT = Path(__file__).parent.parent.parent
KILLS = int(os.environ.get("KILLS", "30"))
LOGGED = """
import os, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from pathlib import Path
from small import Kept, go, session

root = Path(sys.argv[2])
log = os.open(root / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

class Logged(Kept):
    def wait(self):
        task = self.task
        name = f"{type(task.recipe).__name__} {task.recipe.key[:8]} {task.shard}".encode()
        os.write(log, b"begun " + name + b"\\n")
        done = super().wait()
        os.write(log, b"done " + name + b"\\n")
        return done

engine = Logged(session(root).settings)
engine.lab.images(session(root).suite.datasets["test"])
os.write(log, b"start\\n")
go(root, engine)
os.write(log, b"end\\n")
"""


def start(root: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", LOGGED, str(ROOT), str(root)], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def log(root: Path) -> list[str]:
    path = root / "log"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("signal_", [signal.SIGKILL])
def test_kills_at_random_moments(signal_: signal.Signals, tmp_path: Path):
    whole = tmp_path / "whole"
    go(whole)
    wanted = result(whole)
    rng, kills, roots, where, redone, worst = random.Random(0), 0, 0, [], 0, 0
    while kills < KILLS:
        root = tmp_path / f"root{roots}"
        root.mkdir()
        (root / "small.toml").write_text(SUITE)
        roots += 1
        while "end" not in log(root):
            before = len(log(root))
            process = start(root)
            while len(log(root)) == before and process.poll() is None:
                time.sleep(0.002)  # Python and torch are loading: nothing to lose yet
            # At some task from here on, at some moment of it.
            lines, moment = before + 1 + rng.randrange(1, 14), rng.uniform(0, 0.15)
            while len(log(root)) < lines and process.poll() is None:
                time.sleep(0.001)
            time.sleep(moment)
            if process.poll() is None and kills < KILLS:
                process.send_signal(signal_)
                kills += 1
                process.wait()
                last = log(root)[-1].split()
                where.append("between tasks" if last[0] in ("done", "start", "end") else last[1])
            else:
                assert process.wait() == 0
        assert result(root) == wanted, "the same bytes in tables.md, the same outcomes"
        lines = log(root)
        done = [line for line in lines if line.startswith("done")]
        begun = [line for line in lines if line.startswith("begun")]
        redone += len(begun) - len(set(begun))
        worst = max(worst, len(done) - len(set(done)))
        assert len(set(begun)) == TASKS  # a kill may come between a result and its line in the log
        runs = lines.count("start") - 1
        assert len(begun) - TASKS <= runs, "a kill costs the task in flight and no other"
    counts = {name: where.count(name) for name in sorted(set(where))}
    print(f"\n{kills} kills over {roots} runs of {TASKS} tasks, in: {counts}")
    print(f"{redone} tasks begun again (the one in flight), {worst} finished tasks done twice; one result")

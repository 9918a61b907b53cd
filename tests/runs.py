"""Runs of the command line as a user starts them, killed or waited for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small import SUITE, Kept, go, session

from bench.store.tasks import Done

ROOT = Path(__file__).parents[1]


class Dies(Kept):
    """Stops existing after some tasks, as a machine does."""

    def __init__(self, settings: object, tasks: int) -> None:
        super().__init__(settings)  # type: ignore[arg-type]
        self.left = tasks

    def wait(self) -> Done:
        if not self.left:
            raise ConnectionResetError("the machine died")
        self.left -= 1
        return super().wait()


def part_of_a_run(root: Path, tasks: int, text: str = SUITE, **changes: object) -> int:
    """Do so many tasks and die; how many of them were done."""
    engine = Dies(session(root, text, **changes).settings, tasks)
    with pytest.raises(ConnectionResetError):
        go(root, engine, text=text, **changes)
    return len(engine.did)


def command(root: Path, *words: str, **options: object) -> subprocess.Popen[str]:
    """`python -m bench run` over `root`."""
    root.mkdir(exist_ok=True)
    (root / "small.toml").write_text(SUITE)
    words = ("-m", "bench", "run", str(root / "small.toml"), "--root", str(root), "--device", "cpu", *words)
    return subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, **options,  # type: ignore[call-overload]
    )  # fmt: skip


def until(ready: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 100) -> None:
    """Wait for something a process does."""
    end = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)

"""Two Ray workers against one, each with one thread, on work that falls apart into shards.

python -m pytest tests/benchmarks/test_ray_speed.py -s (on a machine with two idle cores)
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.cli.progress import Display
from bench.run.runner import run
from bench.run.session import planned
from bench.store.cost import Rates

sys.path.insert(0, str(Path(__file__).parent.parent))
from small import SUITE, Kept, go, result, session

pytest.importorskip("ray", reason="Ray is an extra: pip install -e .[ray]")
SPEEDUP, ROUNDS = 1.7, 3
HEAVY = (
    SUITE.replace("shard = 20", "shard = 100").replace("stop = 60", "stop = 2400").replace("steps = 2", "steps = 10")
)


def made_by(workers: int, root: Path) -> float:
    """Seconds in which so many workers craft and judge the suite; what is trained in one piece is there before."""
    from bench.run.engines.ray import Cluster

    opened = session(root, HEAVY)

    def make(wanted: list[Any], engine: Any) -> None:
        plan, rates = planned(opened, wanted, False), Rates(opened.store.scratch, "cpu")
        display = Display(plan, opened.names, rates, Console(quiet=True), True)
        run(plan, opened.settings, opened.store, engine, display, rates)

    make(list(opened.suite.weights.values()), Kept(opened.settings))
    engine = Cluster(opened.settings, 2, None)
    try:
        while len(engine.idle) < 2:  # both have loaded torch
            (ref,), _ = engine.ray.wait(list(engine.starting))
            engine.greeted(ref)
        engine.slots = workers
        for actor in engine.idle[workers:]:
            engine.ray.kill(actor)
        del engine.idle[workers:]
        start = time.monotonic()
        make(list(opened.wanted()), engine)
        return time.monotonic() - start
    finally:
        engine.close()


@pytest.mark.filterwarnings("ignore")  # Ray's own, about files it leaves open
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_two_workers_against_one(tmp_path: Path):
    """Rounds of both, in turn: what slows the machine for a while slows neighbours alike."""
    ratios = []
    for turn in range(ROUNDS):
        roots = {workers: tmp_path / f"{turn}-{workers}" for workers in ((1, 2), (2, 1))[turn % 2]}
        seconds = {workers: made_by(workers, root) for workers, root in roots.items()}
        ratios.append(seconds[1] / seconds[2])
        print(f"\none worker {seconds[1]:.1f} s, two {seconds[2]:.1f} s: {ratios[-1]:.2f} times as fast")
        for root in roots.values():
            go(root, text=HEAVY)
        assert result(roots[1]) == result(roots[2])
    print(f"median of {ROUNDS} rounds: {statistics.median(ratios):.2f}")
    assert statistics.median(ratios) >= SPEEDUP

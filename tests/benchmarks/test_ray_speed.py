"""Two Ray workers against one, each with one thread, on work that falls apart into shards.

python -m pytest tests/benchmarks/test_ray_speed.py -s (on a machine with two idle cores)
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from small import SUITE, Kept, go, result, session

pytest.importorskip("ray", reason="Ray is an extra: pip install -e .[ray]")
SPEEDUP = 1.7
HEAVY = (
    SUITE.replace("shard = 20", "shard = 100").replace("stop = 60", "stop = 1600").replace("steps = 2", "steps = 10")
)


@pytest.mark.filterwarnings("ignore")  # Ray's own, about files it leaves open
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_two_workers_against_one(tmp_path: Path):
    from bench.engines.ray import Cluster

    seconds: dict[int, float] = {}
    for workers in (1, 2):
        root = tmp_path / str(workers)
        opened = session(root, HEAVY)
        # What is trained in one piece is no part of the comparison.
        from rich.console import Console

        from bench.cost import Rates
        from bench.progress import Display
        from bench.run import run
        from bench.session import planned

        def make(wanted: list, engine: object, opened=opened) -> None:  # type: ignore[no-untyped-def,type-arg]
            plan, rates = planned(opened, wanted, False), Rates(opened.store.scratch, "cpu")
            display = Display(plan, opened.names, rates, Console(quiet=True), True)
            run(plan, opened.settings, opened.store, engine, display, rates)  # type: ignore[arg-type]

        make(list(opened.suite.weights.values()), Kept(opened.settings))
        engine = Cluster(opened.settings, 2, None)
        try:
            while len(engine.idle) < 2:  # both have loaded torch
                (ref,), _ = engine.ray.wait(list(engine.starting))
                engine.greeted(ref)
            for actor in engine.idle:
                engine.ray.get(actor.process.remote())
            engine.slots = workers
            if workers == 1:
                engine.ray.kill(engine.idle.pop())
            start = time.monotonic()
            make(opened.wanted(), engine)
            seconds[workers] = time.monotonic() - start
        finally:
            engine.close()
        go(root, text=HEAVY)
    print(f"\none worker {seconds[1]:.1f} s, two {seconds[2]:.1f} s: {seconds[1] / seconds[2]:.2f} times as fast")
    assert result(tmp_path / "1") == result(tmp_path / "2")
    assert seconds[1] / seconds[2] >= SPEEDUP

"""The same run on a Ray cluster of two nodes, one of whose workers is killed at its work."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import UserError
from bench.run import engines
from bench.store.tasks import Done, Hooks, Settings, Task

from small import RECORDS, TASKS, go, result, session  # isort: skip


def test_without_ray_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install .freshdraws\[ray\]."):
        engines.choose("ray", Settings(tmp_path), 1, None, Hooks())


def test_an_unknown_engine_gets_a_hint(tmp_path: Path):
    with pytest.raises(UserError, match="did you mean 'ray'"):
        engines.choose("rai", Settings(tmp_path), 1, None, Hooks())


def node(alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": resources}


@pytest.mark.parametrize(
    ("nodes", "device", "workers", "slots", "demand"),
    [
        ([node(CPU=1), node(CPU=1)], "auto", 1, 2, {"num_cpus": 1}),
        ([node(CPU=8), node(CPU=8)], "cpu", 4, 4, {"num_cpus": 4}),
        ([node(CPU=8), node(CPU=8)], "cpu", 3, 3, {"num_cpus": 4}),  # three of 5 cores would not fit on two of 8
        ([node(CPU=64, GPU=8), node(CPU=4)], "auto", 1, 8, {"num_gpus": 1, "num_cpus": 1}),
        ([node(CPU=64, GPU=8)], "cuda", 2, 2, {"num_gpus": 1, "num_cpus": 1}),
        ([node(CPU=64, GPU=8)], "cpu", 2, 2, {"num_cpus": 32}),
        ([node(CPU=4), node(False, CPU=64, GPU=8)], "auto", 1, 4, {"num_cpus": 1}),
    ],
)
def test_a_cluster_is_shared_out(nodes: list[Any], device: str, workers: int, slots: int, demand: dict[str, int]):
    from bench.run.engines.ray import share

    found, asked, threads = share(nodes, device, workers)
    assert (found, asked) == (slots, demand)
    assert threads == (0 if "num_gpus" in demand else demand["num_cpus"])


def test_a_cluster_without_what_is_asked_for_is_named():
    from bench.run.engines.ray import share

    with pytest.raises(UserError, match="no GPU"):
        share([node(CPU=4)], "cuda", 1)
    with pytest.raises(UserError, match="no free core"):
        share([], "cpu", 1)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Two nodes of one core on this machine."""
    pytest.importorskip("ray", reason="Ray is an extra: pip install -e .[ray]")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


@pytest.mark.filterwarnings("ignore")  # Ray's own, about files it leaves open
def test_a_killed_workers_shards_are_done_again_and_none_is_in_the_record_twice(address: str, tmp_path: Path):
    import ray

    from bench.run.engines.ray import Cluster

    class Watched(Cluster):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words)
            self.done: Counter[tuple[str, int | None]] = Counter()
            self.killed: list[Task] = []

        def wait(self) -> Done:
            if not self.killed and sum(self.done.values()) == 8:
                threading.Thread(target=self.kill_one, daemon=True).start()
            done = super().wait()
            self.done[done.task.recipe.key, done.task.shard] += 1
            return done

        def kill_one(self) -> None:
            while not self.busy:
                time.sleep(0.001)
            actor, task = next(iter(self.busy.values()))
            os.kill(ray.get(actor.process.remote()), signal.SIGKILL)
            self.killed.append(task)

    opened = session(tmp_path / "cluster")
    engine = Watched(opened.settings, 1, address)
    try:
        assert engine.slots == 2
        counts = go(tmp_path / "cluster", engine)
    finally:
        engine.close()
    assert len(engine.killed) == 1
    assert counts.records == RECORDS
    assert counts.tasks == TASKS
    assert set(engine.done.values()) == {1}, "each shard came back once"
    go(tmp_path / "alone")
    assert result(tmp_path / "cluster") == result(tmp_path / "alone")
    assert not list((tmp_path / "cluster" / ".bench").glob("ray-*"))


@pytest.mark.filterwarnings("ignore")
def test_a_node_without_the_store_is_named(address: str, tmp_path: Path):
    from bench.run.engines.ray import Cluster

    opened = session(tmp_path)
    engine = Cluster(opened.settings, 1, address)
    engine.token.unlink()
    try:
        with pytest.raises(UserError, match="all nodes need one shared folder"):
            go(tmp_path, engine)
    finally:
        engine.close()


@pytest.mark.parametrize("address", ["no-such-host.invalid:6379", "localhost:1", "localhost", "localhost:seventy"])
def test_a_cluster_that_is_not_there_is_named_at_once(address: str, tmp_path: Path):
    pytest.importorskip("ray")
    with pytest.raises(UserError, match="no Ray cluster answers"):
        engines.choose("ray", Settings(tmp_path), 1, address, Hooks())


@pytest.mark.parametrize("made", ["parts", "weights"])
def test_ctrl_c_in_a_terminal_pauses_a_cluster_of_this_machine(made: str, tmp_path: Path):
    """It reaches all that the run has started, while workers start and while they work; nothing of it stays."""
    pytest.importorskip("ray")
    from runs import command, until

    process = command(tmp_path, "--engine", "ray", "--workers", "2", start_new_session=True)
    until(lambda: bool(list(tmp_path.glob(f".bench/{made}/*"))), process)
    os.killpg(process.pid, signal.SIGINT)
    out, said = process.communicate(timeout=100)
    assert process.returncode == 130, said
    assert "resume with: python -m bench run" in said and "Traceback" not in said
    assert not out, "no tables of a run that was stopped"
    with pytest.raises(ProcessLookupError):
        for _ in range(200):
            os.killpg(process.pid, 0)
            time.sleep(0.1)
    assert not list(tmp_path.glob(".bench/ray-*")), "the token that workers know the store by"

"""A Ray cluster: the same tasks over the same store, which every node sees at the same path.

Each worker is an actor that keeps its models at hand and does one task (a shard, or a training) at
a time; with GPUs each holds one. Results go to the shared store, not through Ray, so a worker that
dies has lost the task it was at and nothing else: that task is queued again, and another worker
takes its place where the cluster has room.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections import Counter, deque
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import Paused, UserError
from bench.store.disk import write
from bench.store.tasks import Done, Hooks, Settings, Task

ATTEMPTS = 4  # of one task, each ended by the death of its worker


class Cluster:
    """Workers on a Ray cluster; `address` None starts one on this machine alone.

    `workers` of 1 takes all that the cluster has: a worker a GPU if there are GPUs (and the device
    is not "cpu"), else one a core.
    """

    def __init__(self, settings: Settings, workers: int, address: str | None, hooks: Hooks | None = None) -> None:
        self.ray = connect(address, workers)
        self.hooks, self.told, self.notes = hooks or Hooks(), False, list[str]()
        self.queue: deque[Task] = deque()
        self.starting: dict[Any, Any] = {}  # reference to an actor's greeting -> actor
        self.busy: dict[Any, tuple[Any, Task]] = {}  # reference to a result -> actor, task
        self.idle: list[Any] = []
        self.deaths: Counter[tuple[str, int | None]] = Counter()
        self.slots, self.demand, threads = share(self.ray.nodes(), settings.device, workers)
        device = "cuda" if "num_gpus" in self.demand else "cpu"
        if self.slots < workers:
            holds = "GPU" if device == "cuda" else "core"
            self.notes.append(f"{workers} workers asked for: {self.slots} at work, one a {holds} of this cluster")
        self.settings = replace(settings, device=device, threads=settings.threads or threads)
        self.token = settings.root / ".bench" / f"ray-{uuid.uuid4().hex[:8]}"
        write(self.token, b"whoever reads this shares the store\n")
        for _ in range(self.slots):
            self.hire()

    def hire(self) -> None:
        """Ask for one more worker; it counts once it has greeted."""
        kind = self.ray.remote(max_concurrency=2, max_restarts=0, **self.demand)(Worker)
        actor = kind.remote(self.settings, self.token)
        self.starting[actor.greet.remote()] = actor

    def submit(self, task: Task) -> None:
        self.queue.append(task)
        self.assign()

    def assign(self) -> None:
        """Give waiting tasks to idle workers."""
        while self.queue and self.idle:
            actor, task = self.idle.pop(), self.queue.popleft()
            self.busy[actor.perform.remote(task)] = actor, task

    def wait(self) -> Done:
        while True:
            self.assign()
            settled, _ = self.ray.wait([*self.busy, *self.starting], timeout=0.5)
            if self.hooks.should_stop() and not self.told:
                self.told = True
                for actor, _task in self.busy.values():
                    actor.stop.remote()
            for ref in settled:
                if ref in self.starting:
                    self.greeted(ref)
                elif (done := self.finished(ref)) is not None:
                    return done

    def greeted(self, ref: Any) -> None:
        """A worker has started, or could not."""
        actor = self.starting.pop(ref)
        try:
            problem = self.ray.get(ref)
        except self.ray.exceptions.RayActorError:
            self.mourn(("start", None), "a worker died while it started")
            return
        if problem is not None:
            raise problem
        self.idle.append(actor)

    def finished(self, ref: Any) -> Done | None:
        """What a worker made of its task; None if it died over it."""
        actor, task = self.busy.pop(ref)
        try:
            result = self.ray.get(ref)
        except self.ray.exceptions.RayActorError:
            self.ray.kill(actor)  # where it was only out of reach, it must not go on
            self.queue.appendleft(task)
            self.mourn((task.recipe.key, task.shard), "a worker died; what it was at is done again")
            return None
        except self.ray.exceptions.RayTaskError as error:
            raise (error.cause or error) from None
        self.idle.append(actor)
        if isinstance(result, UserError | Paused):
            raise result
        done: Done = result._replace(notes=(*result.notes, *self.notes))
        self.notes.clear()
        return done

    def mourn(self, what: tuple[str, int | None], words: str) -> None:
        """Hire another worker for one that died; UserError if the same work has cost too many."""
        self.deaths[what] += 1
        if self.deaths[what] >= ATTEMPTS:
            fix = "look at Ray's logs; a smaller --batch needs less memory"
            raise UserError("--engine ray", f"{ATTEMPTS} workers died over the same work", fix)
        self.notes.append(words)
        self.hire()
        for actor in [actor for actor in self.idle if not self.answers(actor)]:  # a node's death is that of all on it
            self.idle.remove(actor)
            self.hire()

    def answers(self, actor: Any) -> bool:
        """Whether an idle worker is still there."""
        try:
            return bool(self.ray.get(actor.process.remote(), timeout=10))
        except (self.ray.exceptions.RayActorError, self.ray.exceptions.GetTimeoutError):
            return False

    def close(self) -> None:
        """Let the workers go, and leave the cluster."""
        for actor in [*self.starting.values(), *self.idle, *(actor for actor, _ in self.busy.values())]:
            self.ray.kill(actor)
        self.token.unlink(missing_ok=True)
        self.ray.shutdown()


class Worker:
    """The actor: a lab in a process of its own. `stop` is called while `perform` is at work."""

    def __init__(self, settings: Settings, token: Path) -> None:
        self.settings, self.token, self.stopping = settings, token, False
        self.lab: Any = None

    def greet(self) -> UserError | None:
        """None if this node can do the work."""
        if not self.token.exists():
            what = f"the node {os.uname().nodename} does not see the store at {self.settings.root}"
            return UserError("--engine ray", what, "all nodes need one shared folder, at the same path")
        from bench.run.engines import start

        try:
            self.lab = start.begin(self.settings, Hooks(should_stop=lambda: self.stopping))
        except UserError as error:
            return error
        return None

    def perform(self, task: Task) -> Done | UserError | Paused:
        """Do a task; what the user can mend comes back as a value, so that it stays what it is."""
        try:
            done: Done = self.lab.perform(task)
        except (UserError, Paused) as error:
            return error
        return done

    def stop(self) -> None:
        """Have a training stop where it can go on from."""
        self.stopping = True

    def process(self) -> int:
        """The id of this worker's process."""
        return os.getpid()


def connect(address: str | None, workers: int) -> Any:
    """The ray module, connected; UserError if it is not installed or nothing answers."""
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray", "Ray is not installed", "pip install 'freshdraws[ray]'") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "ignore_reinit_error": True}
    if address is None:
        quiet |= {"include_dashboard": False, "num_cpus": workers if workers > 1 else None}
    try:
        if address not in (None, "auto", "local"):  # Ray itself would try for minutes
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address=address or "local", **quiet)
    except (OSError, ValueError, OverflowError, RuntimeError) as error:
        what = f"no Ray cluster answers: {(str(error).splitlines() or [type(error).__name__])[0]}"
        raise UserError(f"--address {address}", what, "start one with `ray start --head`, or leave it out") from None
    return ray


def share(nodes: list[dict[str, Any]], device: str, workers: int) -> tuple[int, dict[str, float], int]:
    """How many workers, what each asks Ray for, and its threads, given the cluster's nodes."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = sum(int(found.get("GPU", 0)) for found in alive)
    cores = [int(found.get("CPU", 0)) for found in alive]
    if device.startswith("cuda") and not gpus:
        raise UserError("--device", "this Ray cluster has no GPU", "use --device cpu or auto")
    if gpus and device != "cpu":
        slots = min(workers, gpus) if workers > 1 else gpus
        return slots, {"num_gpus": 1, "num_cpus": 1}, 0
    slots = min(workers, sum(cores)) if workers > 1 else sum(cores)
    if not slots:
        raise UserError("--engine ray", "this Ray cluster has no free core", "add a node, or wait")
    each = max(1, min(sum(cores) // slots, max(cores)))
    while each > 1 and sum(count // each for count in cores) < slots:
        each -= 1
    return slots, {"num_cpus": each}, each

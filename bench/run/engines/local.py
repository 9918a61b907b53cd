"""This machine: one task at a time in this process, or several worker processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.connection import wait as wait_for
from typing import Any

from bench import UserError
from bench.recipes import Data
from bench.run.engines import start
from bench.store.machine import gpus
from bench.store.tasks import Done, Hooks, Settings, Task

STOPS = (signal.SIGINT, signal.SIGTERM)


class Here:
    """One task at a time, in this process; the lab (and torch, and the images of `data`) is loaded at the first."""

    slots = 1

    def __init__(self, settings: Settings, hooks: Hooks, data: Data | None = None) -> None:
        self.settings, self.hooks, self.data = settings, hooks, data
        self.lab: Any = None
        self.task: Task | None = None

    def submit(self, task: Task) -> None:
        self.task = task

    def wait(self) -> Done:
        if self.lab is None:
            self.lab = start.begin(self.settings, self.hooks, self.data)
        assert self.task is not None
        done: Done = self.lab.perform(self.task)
        return done

    def close(self) -> None:
        self.lab = None


class Workers:
    """Several processes, the cores shared among them. Asked to stop, they finish their shards."""

    def __init__(self, settings: Settings, workers: int, hooks: Hooks) -> None:
        threads = settings.threads or max(1, (os.cpu_count() or 1) // workers)
        context = multiprocessing.get_context("spawn")
        self.slots, self.hooks, self.stopping = workers, hooks, context.Event()
        given = replace(settings, threads=threads), self.stopping, context.Value("i", 0)
        self.pool = ProcessPoolExecutor(workers, context, initializer=begin, initargs=given)
        self.futures: set[Future[Done]] = set()

    def submit(self, task: Task) -> None:
        # A worker that this starts inherits the mask: until it ignores a terminal's Ctrl-C, that waits.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            self.futures.add(self.pool.submit(perform, task))
        except BrokenProcessPool:
            raise died() from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def wait(self) -> Done:
        finished: set[Future[Done]] = set()
        while not finished:
            finished, _ = wait(self.futures, timeout=0.5, return_when=FIRST_COMPLETED)
            if self.hooks.should_stop():
                self.stopping.set()
        first = finished.pop()
        self.futures.discard(first)
        try:
            return first.result()
        except BrokenProcessPool:
            raise died() from None

    def close(self) -> None:
        """End the workers at once; what they have not finished is no one's."""
        workers = list((getattr(self.pool, "_processes", None) or {}).values())
        self.pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            with contextlib.suppress(OSError, ValueError):
                worker.kill()


def died() -> UserError:
    """A worker's death in words."""
    what, fix = "a worker process died (killed, or out of memory)", "run the same command again; fewer need less memory"
    return UserError("--workers", what, fix)


_lab: list[Any] = []  # a worker process's own, filled by `begin`


def device_of(device: str, number: int, found: int) -> str:
    """The device of worker `number` (from 0) where the driver reports `found` GPUs: each its own as far as they go."""
    return f"cuda:{number % found}" if device in ("auto", "cuda") and found > 1 else device


def begin(settings: Settings, stopping: Any, started: Any) -> None:
    """Give a worker process its lab; to interrupt is its parent's business, to outlive it is not. `started` counts the
    workers."""
    with started.get_lock():
        number, started.value = started.value, started.value + 1
    settings = replace(settings, device=device_of(settings.device, number, gpus()))
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    _lab.append(start.begin(settings, Hooks(should_stop=stopping.is_set)))


def perform(task: Task) -> Done:
    """Do a task in a worker process."""
    done: Done = _lab[0].perform(task)
    return done

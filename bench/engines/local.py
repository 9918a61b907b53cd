"""This machine: one task at a time in this process, or several worker processes."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

from bench.errors import UserError
from bench.tasks import Done, Hooks, Settings, Task


class Here:
    """One task at a time, in this process; the lab (and torch) is loaded at the first task."""

    slots = 1

    def __init__(self, settings: Settings, hooks: Hooks) -> None:
        self.settings, self.hooks = settings, hooks
        self.lab: Any = None
        self.task: Task | None = None

    def submit(self, task: Task) -> None:
        self.task = task

    def wait(self) -> Done:
        if self.lab is None:
            from bench.lab.work import Lab

            self.lab = Lab(self.settings, self.hooks)
        assert self.task is not None
        done: Done = self.lab.perform(self.task)
        return done

    def close(self) -> None:
        self.lab = None


class Workers:
    """Several processes, the cores shared among them."""

    def __init__(self, settings: Settings, workers: int) -> None:
        threads = settings.threads or max(1, (os.cpu_count() or 1) // workers)
        self.slots = workers
        self.pool = ProcessPoolExecutor(
            workers,
            multiprocessing.get_context("spawn"),
            initializer=begin,
            initargs=(replace(settings, threads=threads),),
        )
        self.futures: set[Future[Done]] = set()

    def submit(self, task: Task) -> None:
        self.futures.add(self.pool.submit(perform, task))

    def wait(self) -> Done:
        finished, self.futures = wait(self.futures, return_when=FIRST_COMPLETED)
        first, *others = finished
        self.futures.update(others)
        try:
            return first.result()
        except BrokenProcessPool:
            raise UserError("--workers", "a worker process died (killed, or out of memory)",
                            "run the same command again; fewer workers need less memory") from None  # fmt: skip

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)


_lab: list[Any] = []  # a worker process's own, filled by `begin`


def begin(settings: Settings) -> None:
    """Give a worker process its lab; interrupts are the parent's business."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from bench.lab.work import Lab

    _lab.append(Lab(settings))


def perform(task: Task) -> Done:
    """Do a task in a worker process."""
    done: Done = _lab[0].perform(task)
    return done

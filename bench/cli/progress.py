"""What a person sees while work goes on: one bar with an ETA on a terminal, plain lines elsewhere."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.recipes import Distilled, Trained
from bench.store.cost import Rates
from bench.store.plan import Plan, describe
from bench.store.tasks import Hooks, Task


class Display:
    """Progress of one run. On a terminal a live bar; else a line when a recipe's work begins; or nothing."""

    def __init__(
        self,
        plan: Plan,
        names: dict[str, str],
        rates: Rates,
        console: Console,
        quiet: bool,
        stop_at: float | None = None,
    ) -> None:
        self.names, self.console, self.quiet = names, console, quiet
        self.seconds = {recipe.key: max(0.01, rates.seconds(recipe)) for recipe in plan.order}
        self.live = console.is_terminal and not quiet
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console, disable=not self.live,
        )  # fmt: skip
        self.total = self.bar.add_task("starting", total=sum(self.seconds.values()) or 1)
        self.said: set[str] = set()
        self.base = 0.0
        self.current: Task | None = None
        self.stops = 0
        self.stop_at = stop_at
        self.began = time.monotonic()

    def doing(self, task: Task) -> None:
        self.current = task
        text = describe(task.recipe, self.names)
        self.bar.update(self.total, description=text)
        if task.recipe.key not in self.said:
            self.said.add(task.recipe.key)
            if not self.live and not self.quiet:
                self.console.print(f"[{time.monotonic() - self.began:6.0f} s] {text}", highlight=False, markup=False)

    def done(self, task: Task, share: float) -> None:
        self.base += self.seconds.get(task.recipe.key, 0.0) * share
        self.bar.update(self.total, completed=self.base)

    def note(self, message: str) -> None:
        if message not in self.said:
            self.said.add(message)
            self.console.print(f"note: {message}", highlight=False, markup=False)

    def should_stop(self) -> bool:
        return self.stops > 0 or (self.stop_at is not None and time.time() >= self.stop_at)

    def hooks(self) -> Hooks:
        """What a worker in this process calls."""

        def progress(done: float, total: float, text: str) -> None:
            task = self.current
            if task is None or not isinstance(task.recipe, Trained | Distilled) or total <= 0:
                return
            part = self.seconds.get(task.recipe.key, 0.0) * min(1.0, done / total)
            self.bar.update(
                self.total, completed=self.base + part, description=f"{describe(task.recipe, self.names)}: {text}"
            )

        return Hooks(progress, self.should_stop)

    @contextmanager
    def shown(self) -> Iterator[Display]:
        """Show the bar; the first Ctrl-C or SIGTERM asks to stop, the second stops now.

        One that comes while the program is leaving for an earlier one changes nothing: what it would
        interrupt is the leaving itself. So the handlers stay until the end then.
        """
        leaving = False

        def stop(number: int, frame: FrameType | None) -> None:
            self.stops += 1
            if leaving:
                return
            if self.stops > 1:
                raise KeyboardInterrupt
            self.console.print("\nstopping after this shard; once more to stop now", highlight=False)

        before: list[tuple[int, Any]] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                before.append((number, signal.signal(number, stop)))
            except ValueError:  # not in the main thread: whoever called decides about signals
                break
        try:
            with self.bar:
                yield self
        except BaseException:
            leaving = self.stops > 0
            raise
        finally:
            if not leaving:
                for taken, handler in before:
                    signal.signal(taken, handler)

"""A real suite that runs in seconds: trained, attacked and judged, on images that ship with the package."""

from __future__ import annotations

import hashlib
import random
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.cli.progress import Display
from bench.report.publish import publish
from bench.run.engines.local import Here
from bench.run.job import Counts, Engine
from bench.run.runner import run
from bench.run.session import Session, open_suite, planned
from bench.store.cost import Rates
from bench.store.tasks import Done, Hooks, Settings, Task

SUITE = """
[protocol]
shard = 20

[datasets.test]
split = "excerpt"
stop = 60

[datasets.train]
split = "excerpt"
start = 5000
stop = 5100

[networks.small]
depth = 10
width = 1

[attacks.pgd]
kind = "pgd"
steps = 2

[trainings.short]
epochs = 2
batch = 50
augment = "none"

[weights.cni]
kind = "trained"
network = "small"
noise = {rank = 1}
data = "train"
training = "short"

[weights.student]
kind = "distilled"
network = "small"
data = "train"
training = "short"
teacher = "cni"

[models.cni]
weights = "cni"
rule = "vote"
samples = 4

[models.student]
weights = "student"

[tables.t]
rows = ["cni", "student", ["student", "cni"]]
columns = ["clean", "pgd"]
"""
RECORDS, TASKS = 10, 24
_images: OrderedDict[Any, Any] = OrderedDict()  # read once for all runs of a test session


class Kept(Here):
    """This process, with the images of earlier runs at hand, and a list of what was done."""

    def __init__(self, settings: Settings, hooks: Hooks | None = None) -> None:
        from bench.lab.worker import Lab

        super().__init__(settings, hooks or Hooks())
        self.lab = Lab(settings, self.hooks)
        self.lab._data = _images
        self.did: list[tuple[str, int | None]] = []

    def wait(self) -> Done:
        assert self.task is not None
        self.did.append((type(self.task.recipe).__name__, self.task.shard))
        return super().wait()


class Shuffled(Kept):
    """Takes all tasks at once and does them in an order of its own."""

    slots = 1000

    def __init__(self, settings: Settings, seed: int) -> None:
        super().__init__(settings)
        self.random, self.tasks = random.Random(seed), list[Task]()

    def submit(self, task: Task) -> None:
        self.tasks.append(task)

    def wait(self) -> Done:
        self.task = self.tasks.pop(self.random.randrange(len(self.tasks)))
        return super().wait()


def session(root: Path, text: str = SUITE, **changes: Any) -> Session:
    """The suite over a store in `root`."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / "small.toml"
    path.write_text(text)
    return open_suite(path, "auto", None, Settings(root, device="cpu", **{"threads": 1, **changes}))


def go(root: Path, engine: Engine | None = None, text: str = SUITE, fresh: bool = False, **changes: Any) -> Counts:
    """Run the suite and write its tables."""
    opened = session(root, text, **changes)
    plan = planned(opened, opened.wanted(), fresh)
    rates = Rates(opened.store.scratch, "cpu")
    display = Display(plan, opened.names, rates, Console(quiet=True), True)
    counts = run(plan, opened.settings, opened.store, engine or Kept(opened.settings), display, rates)
    publish(opened)
    return counts


def result(root: Path) -> dict[str, str]:
    """The tables' bytes and the votes' bytes, as digests by name."""
    files: Sequence[Path] = [root / "results" / "small" / "tables.md", *root.glob("results/records/*/*/votes.parquet")]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

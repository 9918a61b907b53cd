"""A task: one piece of work that any process on any machine with the same store can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench import Refused
from bench.recipes import Distilled, Examples, Fetched, Outcomes, Trained, Work


@dataclass(frozen=True)
class Settings:
    """How work is done here; nothing in it changes what a recipe means, so none of it is in a key.

    `microbatch` images go through a network at once; `threads` of 0 leaves torch's own choice.
    `stop_at` (seconds since the epoch) is when work stops cleanly, to be gone on with later. `exact`
    forbids every shortcut whose result may differ in the last bits.
    """

    root: Path
    data_root: Path | None = None
    device: str = "auto"
    microbatch: int = 512
    threads: int = 0
    stop_at: float | None = None
    download: bool = True
    exact: bool = False
    tensorboard: Path | None = None


class Task(NamedTuple):
    """Train weights (shard None), or craft or judge one shard of examples or outcomes."""

    recipe: Work
    shard: int | None
    folder: Path


class Done(NamedTuple):
    """What a worker says of a task: finished, or `refused`; `notes` are for the user, once each."""

    task: Task
    seconds: float
    provenance: dict[str, object]
    notes: tuple[str, ...] = ()
    refused: Refused | None = None


class Hooks(NamedTuple):
    """What a worker calls while it works: progress (done, total, text), and whether to stop now."""

    progress: Callable[[float, float, str], None] = lambda done, total, text: None
    should_stop: Callable[[], bool] = lambda: False


def images_in(recipe: Examples | Outcomes) -> int:
    """How many images the recipe is about."""
    data = recipe.data if isinstance(recipe, Examples) else recipe.examples.data
    return max(0, min(data.stop or data.whole, data.whole) - data.start)


def shards(recipe: Work) -> list[int]:
    """The recipe's shards, 0 to n - 1; none for weights, which are made in one piece."""
    match recipe:
        case Trained() | Distilled() | Fetched():
            return []
        case Examples(shard=size) | Outcomes(examples=Examples(shard=size)):
            return list(range(-(-images_in(recipe) // size)))


def rows(recipe: Examples | Outcomes, shard: int) -> slice:
    """The rows of the shuffled dataset that a shard holds."""
    examples = recipe if isinstance(recipe, Examples) else recipe.examples
    start = examples.data.start + shard * examples.shard
    return slice(start, min(start + examples.shard, examples.data.start + images_in(recipe)))

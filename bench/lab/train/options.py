"""How a training runs, as far as it does not belong to its recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Options:
    """Nothing here changes what a recipe means.

    State is saved every `save_every_seconds`, and at each end of an epoch that is a multiple of
    `save_every_epochs`; `max_seconds` of this call, or `should_stop()`, save it and pause.
    `compile`: "auto" compiles where the work repays it. `exact` asks a GPU for deterministic
    kernels, which are slower; a CPU's always are. `progress` is told steps done, steps in all,
    and a text. `tensorboard` is a directory for events.
    """

    save_every_seconds: float | None = 60.0
    save_every_epochs: int | None = 1
    max_seconds: float | None = None
    compile: Literal["auto", "always", "never"] = "auto"
    exact: bool = False
    should_stop: Callable[[], bool] = lambda: False
    progress: Callable[[float, float, str], None] = lambda done, total, text: None
    tensorboard: Path | None = None


class Use(IntEnum):
    """What a random number of training is for: with the step it names the generator.

    So no generator has a state to save, and a resumed run draws what an uninterrupted one draws.
    """

    INIT = 0
    ORDER = 1
    AUGMENT = 2
    CLEAN = 3
    PERTURBED = 4
    TEACH_CLEAN = 5
    TEACH_PERTURBED = 6
    VALIDATE = 7

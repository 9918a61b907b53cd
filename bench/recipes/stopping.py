"""When an image's draws end."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bench.recipes.base import (
    Recipe,
    Rule,
)


class Stopping(Recipe):
    """When an image's draws end: all of them ("fixed"), or once `rule`'s winner is settled ("adaptive").

    `alpha` is the error level for each image of the anytime-valid test (bench/votes/stopping.py). With `infinite` an
    image goes on, up to all draws, until the vote of infinitely many draws is settled too, at the same level.
    """

    late: ClassVar[frozenset[str]] = frozenset({"infinite"})
    kind: Literal["fixed", "adaptive"] = "fixed"
    rule: Rule = "vote"
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 1e-3
    infinite: bool = False

"""Engines: where tasks run. All of them run the same steps over the same store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench import UserError, nearest
from bench.recipes import Work
from bench.store.tasks import Hooks, Settings


def choose(
    name: str, settings: Settings, workers: int, address: str | None, hooks: Hooks, order: Sequence[Work] = ()
) -> Any:
    """The engine called `name` (this process, worker processes, or a Ray cluster) for the work in `order`."""
    if name == "local":
        from bench.run.engines.local import Here, Workers
        from bench.run.engines.start import first_images

        return Here(settings, hooks, first_images(order)) if workers == 1 else Workers(settings, workers, hooks)
    if name == "ray":
        from bench.run.engines.ray import Cluster

        return Cluster(settings, workers, address, hooks)
    raise UserError("--engine", f"unknown engine {name!r}", nearest(name, ["local", "ray"]))

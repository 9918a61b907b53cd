"""Engines: where tasks run. All of them run the same steps over the same store."""

from __future__ import annotations

from typing import Any

from bench.errors import UserError, nearest
from bench.tasks import Hooks, Settings


def choose(name: str, settings: Settings, workers: int, address: str | None, hooks: Hooks) -> Any:
    """The engine called `name`: this process, worker processes, or a Ray cluster."""
    if name == "local":
        from bench.engines.local import Here, Workers

        return Here(settings, hooks) if workers == 1 else Workers(settings, workers, hooks)
    if name == "ray":
        from bench.engines.ray import Cluster

        return Cluster(settings, workers, address, hooks)
    raise UserError("--engine", f"unknown engine {name!r}", nearest(name, ["local", "ray"]))

"""The verbs beyond run and tables: record, certificates, claims, page, audit, diagnosis, peers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import Batch, Device, Quiet, Root, ScaleName, SuitePath, app, execute, faults, screen

from bench.cli import DataRoot, settings  # isort: skip

Slot = Annotated[str | None, typer.Option("--slot", help="Work for 9m, 30m, ... and stop cleanly; none: only say.")]


@app.command()
def record(
    suite: SuitePath,
    slot: Slot = None,
    scale: ScaleName = "auto",
    device: Device = "auto",
    quiet: Quiet = False,
    data_root: DataRoot = None,
    root: Root = Path(),
    batch: Batch = 512,
) -> None:
    """Make a suite's full record in time slots: each call does the next steps and says what is left.

    Finished weights are copied to models/weights, tables are written after every step.

    Example: python -m bench record suites/paper.toml --scale full --slot 9m
    """
    from bench import record as steps
    from bench.cost import Rates
    from bench.device import gpus
    from bench.publish import publish
    from bench.session import open_suite

    session = open_suite(suite, scale, None, settings(root, device, data_root, batch, slot))
    rates = Rates(session.store.scratch, "cuda" if gpus() and device != "cpu" else "cpu")
    made = steps.steps(session, rates)
    faults(session, screen(quiet))
    if slot is not None:
        for step in made:
            if not step.missing:
                continue
            screen(quiet).print(f"step: {step.title}", highlight=False, markup=False)
            execute(session, step.wanted, False, quiet, "local", 1, None)
            steps.publish_weights(session)
            publish(session)
        made = steps.steps(session, rates)
    if not quiet:
        print(steps.text(made))

"""The verbs that make what a suite lacks: run, train, record."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli.app import app, execute, faults, screen, settings
from bench.cli.options import (
    Address,
    Batch,
    DataRoot,
    Device,
    Engine,
    Exact,
    Form,
    Fresh,
    Images,
    MaxTime,
    Only,
    Quiet,
    Root,
    ScaleName,
    SuitePath,
    Workers,
)


@app.command()
def run(
    suite: SuitePath,
    scale: ScaleName = "auto",
    only: Only = None,
    images: Images = None,
    device: Device = "auto",
    fresh: Fresh = False,
    quiet: Quiet = False,
    form: Form = None,
    data_root: DataRoot = None,
    root: Root = Path(),
    max_time: MaxTime = None,
    engine: Engine = "local",
    workers: Workers = 1,
    address: Address = None,
    batch: Batch = 512,
    exact: Exact = False,
) -> None:
    """Make what a suite lacks (train, craft, judge), then its tables, figures and claims.

    Example: freshdraws run suites/paper.toml --only table1 --images 100
    """
    from bench import Refused
    from bench.report.forms import checked
    from bench.report.publish import publish, rendered, show
    from bench.run.session import open_suite

    checked(form)
    session = open_suite(suite, scale, images, settings(root, device, data_root, batch, max_time, exact))
    if not quiet and form is None:
        print(f"{session.suite.name} at scale {session.suite.scale or 'as written'}: {session.why}", file=sys.stderr)

    def make(wanted: Any) -> Any:
        return execute(session, wanted, fresh, quiet, engine, workers, address=address)

    try:
        counts = make(session.wanted(only))
    except Refused:  # the other cells are there all the same
        publish(session, only)
        raise
    report = publish(session, only, made=bool(counts.records))
    if form is not None:
        print(report.json() if form == "json" else rendered(session, only, form))
    elif not quiet:
        show(report, counts)


@app.command()
def train(
    suite: SuitePath,
    model: Annotated[str, typer.Argument(help="A model or weights of the suite.")],
    scale: ScaleName = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again even if the weights are there.")] = False,
    device: Device = "auto",
    quiet: Quiet = False,
    data_root: DataRoot = None,
    root: Root = Path(),
    max_time: MaxTime = None,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", help="Also write TensorBoard events here.")
    ] = None,
    batch: Batch = 512,
    exact: Exact = False,
) -> None:
    """Train a model of a suite, and whatever it needs (its teacher, the teacher's outputs).

    Example: freshdraws train suites/paper.toml cni --max-time 9m
    """
    from dataclasses import replace

    from bench import UserError, nearest
    from bench.run.session import open_suite

    chosen = replace(settings(root, device, data_root, batch, max_time, exact), tensorboard=tensorboard)
    session = open_suite(suite, scale, None, chosen)
    names = {name: entry.weights for name, entry in session.suite.models.items()} | session.suite.weights
    if model not in names:
        raise UserError(str(suite), f"has no model {model!r}", nearest(model, names))
    recipe = names[model]
    if fresh:
        session.store.discard(session.store.place(recipe))
    execute(session, [recipe], False, quiet, "local", 1, address=None)
    record = session.store.find(recipe)
    if record and not quiet:
        print(f"{model}: {os.path.relpath(record.path)}")


@app.command()
def record(
    suite: SuitePath,
    max_time: MaxTime = None,
    scale: ScaleName = "auto",
    device: Device = "auto",
    quiet: Quiet = False,
    data_root: DataRoot = None,
    root: Root = Path(),
    batch: Batch = 512,
) -> None:
    """Make a suite's full record in time slots: each call does the next steps and says what is left.

    Without --max-time it only says what is left.

    Finished weights are copied to models/weights, tables are written after every step.

    Example: freshdraws record suites/paper.toml --scale full --max-time 9m
    """
    from bench import Paused
    from bench.report.publish import publish
    from bench.run import slots as steps
    from bench.run.session import open_suite
    from bench.store.cost import Rates
    from bench.store.machine import kind

    session = open_suite(suite, scale, None, settings(root, device, data_root, batch, max_time))
    rates = Rates(session.store.scratch, kind(device))
    made = steps.steps(session, rates)
    faults(session, screen(quiet))

    def tell(made: list[steps.Step]) -> None:
        if not quiet:
            print(steps.text(made), flush=True)

    if max_time is None:
        return tell(made)
    try:
        for step in made:
            if not step.missing:
                continue
            screen(quiet).print(f"step: {step.title}", highlight=False, markup=False)
            execute(session, step.wanted, False, quiet, "local", 1, address=None)
            steps.publish_weights(session)
            publish(session)
    except (Paused, KeyboardInterrupt):
        tell(steps.steps(session, rates))
        raise
    tell(steps.steps(session, rates))

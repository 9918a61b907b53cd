"""The verbs beyond run and tables: record, certificates, claims, page, audit, diagnosis, peers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli import app, execute, faults, screen, settings
from bench.options import Batch, DataRoot, Device, Json, Limit, Quiet, Root, ScaleName, SuitePath

Slot = Annotated[str | None, typer.Option("--slot", help="Work for 9m, 30m, ... and stop cleanly; none: only say.")]


def recorded(suite: Path, scale: str, limit: int | None, root: Path) -> Any:
    """A suite as a verb that only reads records opens it."""
    from bench.session import open_suite

    return open_suite(suite, scale, limit, settings(root, "auto", None, 512))


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
    from bench.errors import Paused
    from bench.publish import publish
    from bench.session import open_suite

    session = open_suite(suite, scale, None, settings(root, device, data_root, batch, slot))
    rates = Rates(session.store.scratch, "cuda" if gpus() and device != "cpu" else "cpu")
    made = steps.steps(session, rates)
    faults(session, screen(quiet))

    def tell(made: list[steps.Step]) -> None:
        if not quiet:
            print(steps.text(made), flush=True)

    if slot is None:
        return tell(made)
    try:
        for step in made:
            if not step.missing:
                continue
            screen(quiet).print(f"step: {step.title}", highlight=False, markup=False)
            execute(session, step.wanted, False, quiet, "local", 1, None)
            steps.publish_weights(session)
            publish(session)
    except (Paused, KeyboardInterrupt):
        tell(steps.steps(session, rates))
        raise
    tell(steps.steps(session, rates))


@app.command()
def claims(
    suite: SuitePath,
    scale: ScaleName = "auto",
    limit: Limit = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if a claim is contradicted.")] = False,
    root: Root = Path(),
) -> None:
    """Test the paper's claims on what is recorded: reproduced, contradicted or undecided.

    Example: python -m bench claims suites/paper.toml --strict
    """
    from bench import claims as tested

    session = recorded(suite, scale, limit, root)
    verdicts = tested.claims(session.suite, session.votes)
    print(tested.markdown(verdicts) if verdicts else "this suite makes no claims")
    if strict and any(verdict.verdict == "contradicted" for verdict in verdicts):
        raise SystemExit(3)


@app.command()
def diagnose(
    suite: SuitePath,
    model: Annotated[str, typer.Argument(help="A model of the suite.")],
    scale: ScaleName = "auto",
    images: Annotated[int, typer.Option("--images", help="How many images to try it on.", min=8)] = 64,
    attack: Annotated[str | None, typer.Option("--attack", help="The suite's attack to check.")] = None,
    queries: Annotated[int, typer.Option("--queries", help="Queries of the black-box attack.", min=1)] = 200,
    device: Device = "auto",
    json: Json = False,
    data_root: DataRoot = None,
    root: Root = Path(),
    batch: Batch = 512,
) -> None:
    """Is this robustness real? Attack the model in the ways in which false defences give themselves away.

    Example: python -m bench diagnose suites/paper.toml cni --images 100
    """
    import json as encode

    from bench.lab.inspect import examine
    from bench.session import open_suite

    session = open_suite(suite, scale, None, settings(root, device, data_root, batch))
    entry = chosen(session, suite, model)
    execute(session, [entry.weights], False, json, "local", 1, None)
    found = []
    for finding in examine(session, model, images, attack, queries):
        found.append(finding._asdict())
        if not json:
            mark = {"ok": " ok ", "suspicious": "MARK", "cannot tell": "  ? "}[finding.verdict]
            print(f"[{mark}] {finding.check}: {finding.figure}", flush=True)
            if finding.verdict != "ok" and finding.advice:
                print(f"         {finding.advice}", flush=True)
    session.diagnosed(model, found)
    if json:
        print(encode.dumps(found, indent=1))


def chosen(session: Any, suite: Path, model: str) -> Any:
    """A model of the suite by name."""
    from bench.errors import UserError, nearest

    if model not in session.suite.models:
        raise UserError(str(suite), f"has no model {model!r}", nearest(model, session.suite.models))
    return session.suite.models[model]


@app.command()
def compare(
    suite: SuitePath,
    scale: ScaleName = "auto",
    limit: Limit = None,
    root: Root = Path(),
) -> None:
    """A suite's recorded models among RobustBench's CIFAR-10 L-inf leaderboard, in rows and in words.

    Example: python -m bench compare suites/paper.toml
    """
    from bench import baselines

    session = recorded(suite, scale, limit, root)
    print(baselines.compare(baselines.ours(session.suite, session.votes)))


@app.command()
def verify(
    suite: SuitePath,
    scale: ScaleName = "auto",
    limit: Limit = None,
    images: Annotated[int, typer.Option("--images", help="Images a cell; 0: all.", min=0)] = 64,
    seed: Annotated[int, typer.Option("--seed", help="Which images are sampled.", min=0)] = 0,
    device: Device = "auto",
    data_root: DataRoot = None,
    root: Root = Path(),
    batch: Batch = 512,
) -> None:
    """Audit recorded cells: recompute a random sample of their images here, and compare.

    Exit code 3 if a record is inconsistent. Example: python -m bench verify suites/paper.toml --images 64
    """
    from bench import audit
    from bench.lab.inspect import recomputer
    from bench.session import open_suite

    session = open_suite(suite, scale, limit, settings(root, device, data_root, batch))
    found = audit.verify(session.suite, session.votes, recomputer(session), images or None, seed)
    print(audit.markdown(found))
    if any(one.verdict == "inconsistent" for one in found):
        raise SystemExit(3)


@app.command()
def crosscheck(
    suite: SuitePath,
    model: Annotated[str, typer.Argument(help="A model of the suite.")],
    scale: ScaleName = "auto",
    images: Annotated[int, typer.Option("--images", help="How many images.", min=1)] = 64,
    device: Device = "auto",
    quiet: Quiet = False,
    data_root: DataRoot = None,
    root: Root = Path(),
    batch: Batch = 512,
) -> None:
    """Our PGD beside torchattacks' and foolbox's from the same starts, and APGD-CE of two libraries.

    Example: python -m bench crosscheck suites/paper.toml kd-at-vote --images 64
    """
    from bench.lab.crosscheck import words
    from bench.lab.inspect import compared
    from bench.session import open_suite

    session = open_suite(suite, scale, None, settings(root, device, data_root, batch))
    entry = chosen(session, suite, model)
    execute(session, [entry.weights], False, quiet, "local", 1, None)
    print(words(compared(session, model, images)))


@app.command()
def doctor(data_root: DataRoot = None, root: Root = Path()) -> None:
    """What is installed here, what it can do, and what will not work, with the fix; changes nothing."""
    from bench import doctor as doctors

    found = doctors.report(root, data_root)
    print(doctors.words(found))
    if not doctors.healthy(found):
        raise SystemExit(1)


@app.command()
def page(
    suite: SuitePath,
    scale: ScaleName = "auto",
    limit: Limit = None,
    root: Root = Path(),
) -> None:
    """Write the static page of what is recorded: leaderboard, cells, figures, claims, diagnosis. No network.

    Example: python -m bench page suites/paper.toml
    """
    from bench.publish import illustrate, views

    session = recorded(suite, scale, limit, root)
    print(illustrate(session, views(session)))


@app.command()
def speed(
    device: Device = "auto",
    model: Annotated[str, typer.Option("--model", help="wrn-28-4, resnet18, or a folder of weights.")] = "wrn-28-4",
    json: Json = False,
    quiet: Quiet = False,
    root: Root = Path(),
) -> None:
    """Images a second of our code beside torchattacks, foolbox and AutoAttack, measured in one run on this machine.

    Example: python -m bench speed --model wrn-28-4
    """
    import json as encode

    from bench.lab import speed as measured
    from bench.report import speed as words

    console = screen(quiet)
    found = measured.speed(device, model, root, note=lambda text: console.print(text, highlight=False, markup=False))
    print(encode.dumps(found, indent=1) if json else words.text(found))

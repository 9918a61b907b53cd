"""The verbs that read what is recorded: plan, list, tables, claims, compare, page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import app, faults, recorded, screen, seconds, settings
from bench.cli.options import Device, Json, Limit, Root, ScaleName, SuitePath


@app.command()
def plan(
    suite: SuitePath,
    scale: ScaleName = "auto",
    only: Annotated[str | None, typer.Option("--only", help="One table, without the figures.")] = None,
    limit: Limit = None,
    device: Device = "auto",
    json: Json = False,
    root: Root = Path(),
    time: Annotated[
        str | None, typer.Option("--time", help="Measure what 90s, 30m, 2h give to each attack of kind strong.")
    ] = None,
) -> None:
    """Say what is there, what is missing and what it would cost, without doing anything.

    Example: python -m bench plan suites/paper.toml --scale full
    """
    from bench.report.planned import planned_text
    from bench.run.session import open_suite, planned

    session = open_suite(suite, scale, limit, settings(root, device, None, 512))
    made = planned(session, session.wanted(only), False)
    faults(session, screen())
    print(planned_text(session, made, json))
    if time is not None and not json:
        from bench.lab.speed.budget import affordable, words

        length = seconds(time, "--time")
        assert length is not None
        print(words(list(affordable(session.suite, session.store, session.settings, length)), time))


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="models, attacks, defences or suites.")],
    suite: Annotated[Path, typer.Option("--suite", help="Whose models and attacks.")] = Path("suites/paper.toml"),
    scale: ScaleName = "auto",
    root: Root = Path(),
) -> None:
    """List the models or attacks of a suite, the defences that it may declare, or the suites at hand.

    Example: python -m bench list models --suite suites/paper.toml
    """
    from bench.report.listing import listing

    print(listing(what, suite, scale, root.resolve()))


@app.command()
def tables(
    suite: SuitePath,
    scale: ScaleName = "auto",
    only: Annotated[str | None, typer.Option("--only", help="One table.")] = None,
    limit: Limit = None,
    style: Annotated[str, typer.Option("--format", help="md, csv, html or latex.")] = "md",
    root: Root = Path(),
) -> None:
    """Print a suite's tables from what is recorded; a missing cell is a dash with its reason.

    Example: python -m bench tables suites/paper.toml --format latex
    """
    from bench.report.publish import rendered
    from bench.run.session import open_suite

    session = open_suite(suite, scale, limit, settings(root, "auto", None, 512))
    session.wanted(only)
    print(rendered(session, only, style))


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
    from bench.report import claims as tested

    session = recorded(suite, scale, limit, root)
    verdicts = tested.claims(session.suite, session.votes)
    print(tested.markdown(verdicts) if verdicts else "this suite makes no claims")
    if strict and any(verdict.verdict == "contradicted" for verdict in verdicts):
        raise SystemExit(3)


@app.command()
def published(root: Root = Path()) -> None:
    """What papers claim of randomised defences, checked: schema, intervals of their own n, faults of their protocols.

    One TOML file a defence in models/claims. Example: python -m bench published
    """
    from bench.report import published as claimed
    from bench.report.published_table import markdown

    print(markdown(claimed.read(claimed.folder(root.resolve()))))


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
    from bench.report import leaderboard as baselines

    session = recorded(suite, scale, limit, root)
    print(baselines.compare(baselines.ours(session.suite, session.votes)))


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
    from bench.report.publish import publish

    print(publish(recorded(suite, scale, limit, root)).folder / "index.html")

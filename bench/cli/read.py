"""The verbs that read what is recorded: plan, list, tables, claims, published, compare, page, results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import codes
from bench.cli.app import app, faults, recorded, screen, seconds, settings
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
    Output,
    Quiet,
    Root,
    ScaleName,
    SuitePath,
    Suites,
    Workers,
)
from bench.cli.terminal import form_of, save, say


@app.command()
def plan(
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
    time: Annotated[
        str | None, typer.Option("--time", help="Measure what 90s, 30m, 2h give to each attack of kind strong.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time a pass of each model that has not run here; runs its code.")
    ] = False,
) -> None:
    """Say what is there, what is missing and what it would cost, without doing anything; takes what `run` takes.

    Example: freshdraws plan suites/paper.toml --scale full
    """
    import json

    from bench.report.forms import Answer, checked
    from bench.report.planned import planned_text
    from bench.run.session import open_suite, planned

    checked(form)
    session = open_suite(suite, scale, images, settings(root, device, data_root, batch, max_time, exact))
    made = planned(session, session.wanted(only), fresh)
    faults(session, screen(quiet))
    if measure:
        from bench.run.strangers import pace
        from bench.store.cost import Rates
        from bench.store.machine import kind

        pace(session, made.order, Rates(session.store.scratch, kind(device)))
    data = json.loads(planned_text(session, made, True)) if form not in (None, "md") else {"missing": []}
    say(Answer(data["missing"], planned_text(session, made, False), data), form)
    if time is not None and form is None:
        from bench.lab.speed.budget import affordable, words

        length = seconds(time, "--time")
        assert length is not None
        print(words(list(affordable(session.suite, session.store, session.settings, length)), time))


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="models, attacks, defences or suites.")],
    suite: Annotated[Path, typer.Option("--suite", help="Whose models and attacks.")] = Path("suites/paper.toml"),
    scale: ScaleName = "auto",
    form: Form = None,
    root: Root = Path(),
) -> None:
    """List the models or attacks of a suite, the defences that it may declare, or the suites at hand.

    Example: freshdraws list models --suite suites/paper.toml
    """
    from bench.report.forms import Answer, checked
    from bench.report.listing import listing

    checked(form)
    text = listing(what, suite, scale, root.resolve())
    lines = (line.partition(" ") for line in text.splitlines())
    say(Answer([{"name": name, "about": " ".join(about.split())} for name, _, about in lines], text), form)


@app.command()
def tables(
    suite: SuitePath,
    scale: ScaleName = "auto",
    only: Annotated[str | None, typer.Option("--only", help="One table.")] = None,
    images: Images = None,
    form: Form = None,
    output: Output = None,
    root: Root = Path(),
) -> None:
    """Print a suite's tables from what is recorded; a missing cell is a dash with its reason.

    Example: freshdraws tables suites/paper.toml --format latex --output tables.tex
    """
    from bench.report.forms import Answer, checked
    from bench.report.publish import rendered
    from bench.run.session import open_suite

    checked(form)
    session = open_suite(suite, scale, images, settings(root, "auto", None, 512))
    session.wanted(only)
    if form in (None, "md") and output is None:
        say(Answer([], rendered(session, only, "md")), form)
    elif output is None:
        print(rendered(session, only, form or "md"))
    else:
        save(output, rendered(session, only, form or form_of(output)))


@app.command()
def claims(
    suite: SuitePath, scale: ScaleName = "auto", images: Images = None, form: Form = None, root: Root = Path()
) -> None:
    """Test the paper's claims on what is recorded: reproduced, contradicted (exit code 3) or undecided.

    Example: freshdraws claims suites/paper.toml
    """
    from bench.cli.answers import of_claims
    from bench.report import claims as tested
    from bench.report.forms import checked

    checked(form)
    session = recorded(suite, scale, images, root)
    verdicts = tested.claims(session.suite, session.votes)
    say(of_claims(verdicts, tested.markdown(verdicts) if verdicts else "this suite makes no claims"), form)
    if any(verdict.verdict == "contradicted" for verdict in verdicts):
        raise SystemExit(codes.DOUBT)


@app.command()
def published(
    suites: Suites = None, scale: ScaleName = "auto", form: Form = None, output: Output = None, root: Root = Path()
) -> None:
    """What papers claim of randomised defences, checked: schema, intervals of their own n, faults of their protocols.

    With suites, what is recorded of such defences, as published and as judged here, on one board. Example: freshdraws
    published suites/slwta.toml suites/randomised.toml --format latex
    """
    from bench.cli.answers import of_published
    from bench.report import board_of
    from bench.report import published as claimed
    from bench.report.forms import checked
    from bench.report.published_table import markdown

    checked(form)
    found = claimed.read(claimed.folder(root.resolve()))
    answer = of_published(found, markdown(found))
    if suites:
        answer = board_of.board([recorded(suite, scale, None, root) for suite in suites], form or form_of(output))
    if output is None:
        say(answer, form)
    else:
        board_of.put(output, answer, form or form_of(output))


@app.command()
def compare(
    suite: SuitePath, scale: ScaleName = "auto", images: Images = None, form: Form = None, root: Root = Path()
) -> None:
    """A suite's recorded models among RobustBench's CIFAR-10 L-inf leaderboard, in rows and in words.

    Example: freshdraws compare suites/paper.toml
    """
    from bench.cli.answers import of_board
    from bench.report import leaderboard as baselines
    from bench.report.forms import checked

    checked(form)
    session = recorded(suite, scale, images, root)
    models = baselines.ours(session.suite, session.votes)
    say(of_board(models, baselines.compare(models)), form)


@app.command()
def page(suite: SuitePath, scale: ScaleName = "auto", images: Images = None, root: Root = Path()) -> None:
    """Write the static page of what is recorded: leaderboard, cells, figures, claims, diagnosis. No network.

    Example: freshdraws page suites/paper.toml
    """
    from bench.report.publish import publish

    print(publish(recorded(suite, scale, images, root)).folder / "index.html")


@app.command()
def results(
    folder: Annotated[Path, typer.Argument(help="The folder in which suites were run.")] = Path(),
    each: Annotated[str, typer.Option("--each", help="A row a cell, or a row an image.")] = "cell",
    form: Form = None,
    output: Output = None,
) -> None:
    """Every number that suites left in a folder, in one tidy table; with --each image every image behind them.

    Example: freshdraws results --format csv --output numbers.csv
    """
    from bench.report.forms import Answer, checked
    from bench.report.frame import rows

    checked(form)
    say(Answer(rows(folder, each)), form, output)

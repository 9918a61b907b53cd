"""The verbs that try a model or this machine: verify, diagnose, crosscheck, doctor, speed."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli import codes
from bench.cli.app import app, execute, screen, settings
from bench.cli.options import Batch, DataRoot, Device, Form, Images, Quiet, Root, ScaleName, SuitePath
from bench.cli.terminal import say


@app.command()
def verify(
    suite: SuitePath,
    scale: ScaleName = "auto",
    images: Images = None,
    sample: Annotated[int, typer.Option("--sample", help="Images of each record made again; 0: all.", min=0)] = 64,
    seed: Annotated[int | None, typer.Option("--seed", help="Repeat the sample of an audit.", min=0)] = None,
    seals: Annotated[bool, typer.Option("--seals", help="Only seals and files; nothing is recomputed.")] = False,
    device: Device = "auto",
    form: Form = None,
    data_root: DataRoot = None,
    root: Root = Path(),
    batch: Batch = 512,
) -> None:
    """Audit recorded cells: recompute a random sample of their images here, and compare.

    The rows are drawn anew each time. Before that, every seal is followed: votes, images, weights, tables,
    figures and page. Exit code 3 if anything is inconsistent.

    Example: freshdraws verify suites/paper.toml --sample 64
    """
    from bench import UserError
    from bench.cli.answers import of_audit
    from bench.report import proof
    from bench.report import seals as sealed
    from bench.report.forms import checked
    from bench.run.session import open_suite

    checked(form)
    session = open_suite(suite, scale, images, settings(root, device, data_root, batch))
    if images is not None and not any(session.record(recipe) for recipe in session.wanted()):
        what = f"nothing is recorded of the first {images} images alone"
        raise UserError("--images", what, f"--sample {images} makes {images} images of each record again")
    chain, published = sealed.follow(session), proof.check(session)
    looked = (*chain.seals, *published)
    if form is None:
        print(sealed.words(chain, published), flush=True)
    found: list[Any] = []
    if not seals:
        from bench.lab.examine.again import Again
        from bench.report import audit

        seed = secrets.randbits(48) if seed is None else seed
        print(f"rows drawn with seed {seed}: --seed {seed} repeats them", file=sys.stderr, flush=True)
        again = Again(session.settings)
        found = audit.verify(session.suite, session.votes, session.manifest, again, sample or None, seed=seed)
        say(of_audit(looked, found, audit.markdown(found)), form)
    elif form is not None:
        say(of_audit(looked, found, sealed.words(chain, published)), form)
    if any(one.verdict == "inconsistent" for one in (*looked, *found)):
        raise SystemExit(codes.DOUBT)


@app.command()
def diagnose(
    suite: SuitePath,
    model: Annotated[str, typer.Argument(help="A model of the suite.")],
    scale: ScaleName = "auto",
    images: Annotated[int, typer.Option("--images", help="How many images to try it on.", min=8)] = 64,
    attack: Annotated[str | None, typer.Option("--attack", help="The suite's attack to check.")] = None,
    queries: Annotated[int, typer.Option("--queries", help="Queries of the black-box attack.", min=1)] = 200,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Surrogate and attack by answers alone; minutes.")
    ] = False,
    device: Device = "auto",
    form: Form = None,
    data_root: DataRoot = None,
    root: Root = Path(),
    batch: Batch = 512,
) -> None:
    """Is this robustness real? Attack the model in the ways in which false defences give themselves away.

    Exit code 3 if anything is marked. Example: freshdraws diagnose suites/paper.toml cni --images 100
    """
    from bench.lab.examine.of_suite import examine
    from bench.report.forms import Answer, checked
    from bench.run.session import open_suite

    checked(form)
    session = open_suite(suite, scale, None, settings(root, device, data_root, batch))
    entry = chosen(session, suite, model)
    execute(session, entry.model.made_from, False, form is not None, "local", 1, address=None)
    found = []
    for finding in examine(session, model, images, attack, queries, thorough):
        found.append(finding._asdict())
        if form is None:
            mark = {"ok": " ok ", "suspicious": "MARK", "cannot tell": "  ? "}[finding.verdict]
            print(f"[{mark}] {finding.check}: {finding.figure}", flush=True)
            if finding.verdict != "ok" and finding.advice:
                print(f"         {finding.advice}", flush=True)
    session.diagnosed(model, found)
    if form is not None:
        say(Answer(found), form)
    if any(one["verdict"] == "suspicious" for one in found):
        raise SystemExit(codes.DOUBT)


def chosen(session: Any, suite: Path, model: str) -> Any:
    """A model of the suite by name."""
    from bench import UserError, nearest

    if model not in session.suite.models:
        raise UserError(str(suite), f"has no model {model!r}", nearest(model, session.suite.models))
    return session.suite.models[model]


@app.command()
def crosscheck(
    suite: SuitePath,
    model: Annotated[str, typer.Argument(help="A model of the suite.")],
    scale: ScaleName = "auto",
    images: Annotated[int, typer.Option("--images", help="How many images.", min=1)] = 64,
    autoattack: Annotated[bool, typer.Option("--autoattack", help="The whole of AutoAttack too.")] = False,
    device: Device = "auto",
    quiet: Quiet = False,
    form: Form = None,
    data_root: DataRoot = None,
    root: Root = Path(),
    batch: Batch = 512,
) -> None:
    """Our PGD beside torchattacks' and foolbox's from the same starts, APGD-CE of two libraries, and APGD-T.

    Exit code 3 if libraries disagree on one algorithm. Example: freshdraws crosscheck suites/paper.toml kd-at-vote
    """
    from bench.cli.answers import of_crosscheck
    from bench.lab.examine.crosscheck import agreed, words
    from bench.lab.examine.of_suite import compared
    from bench.recipes import Peer
    from bench.report.forms import checked
    from bench.run.session import open_suite
    from bench.suite.libraries import refuse_lacking

    checked(form)
    refuse_lacking("crosscheck", [Peer(kind="torchattacks", name="PGD"), Peer(kind="autoattack", name="standard")])
    session = open_suite(suite, scale, None, settings(root, device, data_root, batch))
    entry = chosen(session, suite, model)
    execute(session, entry.model.made_from, False, quiet, "local", 1, address=None)
    found = compared(session, model, images, autoattack)
    say(of_crosscheck(found, words(found)), form)
    if not agreed(found):
        raise SystemExit(codes.DOUBT)


@app.command()
def doctor(form: Form = None, data_root: DataRoot = None, root: Root = Path()) -> None:
    """What is installed here, what it can do, and what will not work, with the fix; changes nothing."""
    from bench.cli import doctor as doctors
    from bench.report.forms import Answer, checked

    checked(form)
    found = doctors.report(root, data_root)
    say(Answer([one._asdict() for one in found], doctors.words(found)), form)
    if not doctors.healthy(found):
        raise SystemExit(codes.FAILED)


@app.command()
def speed(
    device: Device = "auto",
    model: Annotated[str, typer.Option("--model", help="wrn-28-4, resnet18, or a folder of weights.")] = "wrn-28-4",
    form: Form = None,
    quiet: Quiet = False,
    root: Root = Path(),
) -> None:
    """Images a second of our code beside torchattacks, foolbox and AutoAttack, measured in one run on this machine.

    Under two minutes at its default. Leaves a plot, results/speed.svg and .png.

    Example: freshdraws speed --model wrn-28-4
    """
    from bench.cli.answers import of_speed
    from bench.lab.speed import measure as measured
    from bench.report import speed as words
    from bench.report.draw import files
    from bench.report.forms import checked
    from bench.store.disk import write

    checked(form)
    console = screen(quiet)
    found = measured.speed(device, model, root, note=lambda text: console.print(text, highlight=False, markup=False))
    say(of_speed(found, words.text(found)), form)
    plot = root / "results" / "speed.svg"
    for path, data in zip((plot, plot.with_suffix(".png")), files(lambda: words.bars(found)), strict=True):
        write(path, data)
    console.print(f"drawn: {plot}", highlight=False, markup=False)

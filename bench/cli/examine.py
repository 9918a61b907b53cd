"""The verbs that try a model or this machine: verify, diagnose, crosscheck, doctor, speed."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli.app import app, execute, screen, settings
from bench.cli.options import Batch, DataRoot, Device, Json, Limit, Quiet, Root, ScaleName, SuitePath


@app.command()
def verify(
    suite: SuitePath,
    scale: ScaleName = "auto",
    limit: Limit = None,
    images: Annotated[int, typer.Option("--images", help="Images a cell; 0: all.", min=0)] = 64,
    seed: Annotated[int | None, typer.Option("--seed", help="Repeat the sample of an audit.", min=0)] = None,
    seals: Annotated[bool, typer.Option("--seals", help="Only seals and files; nothing is recomputed.")] = False,
    device: Device = "auto",
    data_root: DataRoot = None,
    root: Root = Path(),
    batch: Batch = 512,
) -> None:
    """Audit recorded cells: recompute a random sample of their images here, and compare.

    The rows are drawn anew each time. Before that, every seal is followed: votes, images, weights, tables,
    figures and page. Exit code 3 if anything is inconsistent.

    Example: python -m bench verify suites/paper.toml --images 64
    """
    from bench.report import proof
    from bench.report import seals as sealed
    from bench.run.session import open_suite

    session = open_suite(suite, scale, limit, settings(root, device, data_root, batch))
    chain, published = sealed.follow(session), proof.check(session)
    print(sealed.words(chain, published), flush=True)
    wrong = any(one.verdict == "inconsistent" for one in (*chain.seals, *published))
    if not seals:
        from bench.lab.examine.again import Again
        from bench.report import audit

        seed = secrets.randbits(48) if seed is None else seed
        print(f"rows drawn with seed {seed}: --seed {seed} repeats them", flush=True)
        again = Again(session.settings)
        found = audit.verify(session.suite, session.votes, session.manifest, again, images or None, seed=seed)
        print(audit.markdown(found))
        wrong |= any(one.verdict == "inconsistent" for one in found)
    if wrong:
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

    from bench.lab.examine.of_suite import examine
    from bench.run.session import open_suite

    session = open_suite(suite, scale, None, settings(root, device, data_root, batch))
    entry = chosen(session, suite, model)
    execute(session, entry.model.made_from, False, json, "local", 1, address=None)
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
    data_root: DataRoot = None,
    root: Root = Path(),
    batch: Batch = 512,
) -> None:
    """Our PGD beside torchattacks' and foolbox's from the same starts, APGD-CE of two libraries, and APGD-T.

    Example: python -m bench crosscheck suites/paper.toml kd-at-vote --images 64
    """
    from bench.lab.examine.crosscheck import words
    from bench.lab.examine.of_suite import compared
    from bench.recipes import Peer
    from bench.run.session import open_suite
    from bench.suite.libraries import refuse_lacking

    refuse_lacking("crosscheck", [Peer(kind="torchattacks", name="PGD"), Peer(kind="autoattack", name="standard")])
    session = open_suite(suite, scale, None, settings(root, device, data_root, batch))
    entry = chosen(session, suite, model)
    execute(session, entry.model.made_from, False, quiet, "local", 1, address=None)
    print(words(compared(session, model, images, autoattack)))


@app.command()
def doctor(data_root: DataRoot = None, root: Root = Path()) -> None:
    """What is installed here, what it can do, and what will not work, with the fix; changes nothing."""
    from bench.cli import doctor as doctors

    found = doctors.report(root, data_root)
    print(doctors.words(found))
    if not doctors.healthy(found):
        raise SystemExit(1)


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

    from bench.lab.speed import measure as measured
    from bench.report import speed as words

    console = screen(quiet)
    found = measured.speed(device, model, root, note=lambda text: console.print(text, highlight=False, markup=False))
    print(encode.dumps(found, indent=1) if json else words.text(found))

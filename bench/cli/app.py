"""The command line: what all verbs share, and how a mistake becomes words and an exit code."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import typer

from bench import __version__
from bench.cli import codes, terminal

app = typer.Typer(
    name="freshdraws",
    help="Judge classifiers, deterministic or stochastic, under attack: one TOML suite in, traceable tables out.",
    epilog=f"Examples:  freshdraws init net.py:build   |   freshdraws run suites/paper.toml\n\n{codes.line()}",
    rich_markup_mode=None,  # boxes around the help would take longer to load than all the rest
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


VERBS = {
    "init": "write a commented suite for a model",
    "run": "make what a suite lacks, then its tables, figures, claims and page",
    "plan": "what is there, what is missing, what it would cost",
    "tables": "the tables from what is recorded, in any format",
    "results": "every number, or every image, in one tidy table",
    "page": "the static page of what is recorded",
    "diagnose": "is this robustness real?",
    "crosscheck": "our attacks beside torchattacks, foolbox and AutoAttack",
    "verify": "follow every seal, make a sample again, compare",
    "claims": "the paper's claims, tested",
    "compare": "our models among RobustBench's leaderboard",
    "published": "what papers claim of randomised defences, checked",
    "train": "train one model of a suite",
    "record": "the whole record, a time slot a call",
    "list": "models, attacks, defences, suites",
    "schema": "every key of a suite",
    "doctor": "what is installed here and what will not work",
    "speed": "images a second beside other libraries",
}
"""The verbs in the order in which --help lists them, with a line on each."""


def _version(asked: bool) -> None:
    if asked:
        print(f"freshdraws {__version__}")
        raise typer.Exit


@app.callback()
def _shared(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Run the command line; the exit codes are those of bench/cli/codes.py."""
    from bench import Paused, UserError
    from bench.cli import examine, make, read, write  # noqa: F401  (they add their verbs to `app`)

    for verb in app.registered_commands:
        verb.short_help = VERBS[str(verb.name or getattr(verb.callback, "__name__", ""))]
    app.registered_commands.sort(key=lambda verb: list(VERBS.values()).index(str(verb.short_help)))
    terminal.plainly()
    sys.argv[1:], notes = terminal.present(sys.argv[1:])
    for note in notes:
        print(note, file=sys.stderr)
    try:
        code = app(standalone_mode=False)
        if code == codes.INTERRUPTED:  # what some versions of the parser make of an interrupt
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else codes.DONE)
    except UserError as error:
        fail(f"{error.where}: {error.what}" + (f"\n  fix: {error.fix}" if error.fix else ""), codes.MISTAKE)
    except Paused as pause:
        print(f"{pause}\nresume with: {command()}", file=sys.stderr)
        sys.exit(codes.PAUSED)
    except KeyboardInterrupt:
        interrupted()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(codes.FAILED)
    except Exception as error:
        # a usage error of the command line's own parser, whichever of its versions is installed
        if hasattr(error, "exit_code") and hasattr(error, "show"):
            error.show()
            sys.exit(codes.MISTAKE)
        if type(error).__name__ == "Abort":  # and others
            interrupted()
        raise


def command() -> str:
    """The command that was given, to be typed again."""
    script = Path(sys.argv[0]).stem == "freshdraws"
    return shlex.join([*(["freshdraws"] if script else ["python", "-m", "bench"]), *sys.argv[1:]])


def interrupted() -> NoReturn:
    """Say that nothing is lost, and how to go on."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever presses it again gets what they asked for, not a traceback
    fail(f"interrupted; what was finished is kept\nresume with: {command()}", codes.INTERRUPTED)


def fail(message: str, code: int) -> NoReturn:
    """Say why and leave."""
    print(f"bench: {message}", file=sys.stderr)
    sys.exit(code)


def settings(
    root: Path, device: str, data_root: Path | None, batch: int, max_time: str | None = None, exact: bool = False
) -> Any:
    """The machine's settings from the options."""
    from bench import UserError
    from bench.store.tasks import Settings

    if data_root is not None and not data_root.exists():
        raise UserError("--data-root", f"no folder {data_root}", "name the folder that holds the data set")
    return Settings(
        root=root.resolve(), data_root=data_root, device=device, microbatch=batch,
        stop_at=None if (length := seconds(max_time)) is None else time.time() + length, exact=exact,
    )  # fmt: skip


def seconds(text: str | None, option: str = "--max-time") -> float | None:
    """90s, 9m, 1h or plain seconds."""
    from bench import UserError

    if text is None:
        return None
    unit = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:], 0.0)
    try:
        value = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e7:
        raise UserError(option, f"{text!r} is no length of time", "write 90s, 9m or 1h")
    return value


def execute(
    session: Any, wanted: Any, fresh: bool, quiet: bool, engine: str, workers: int, *, address: str | None
) -> Any:
    """Plan, say what is missing, make it; the counts of what was done."""
    from bench.run.job import Counts
    from bench.run.session import planned
    from bench.run.strangers import changed, former, pace
    from bench.store.cost import Rates
    from bench.store.machine import kind
    from bench.store.plan import Plan, refuse_stale
    from bench.suite.libraries import refuse_lacking

    console = screen(quiet)
    if again := changed(session, wanted):
        keys = frozenset(recipe.key for recipe in again)
        _make(session, Plan([*again], [*again], {}, [], keys), quiet, engine, workers, address=address)
    plan = planned(session, wanted, fresh)
    faults(session, console)
    refuse_stale(plan.stale, session.names)
    if not plan.order:
        return Counts(0, 0, 0)
    refuse_lacking(str(session.suite.path), plan.order)
    preflight(plan.order)
    for words in former(session, plan.order):
        console.print(words, highlight=False, markup=False)
    rates = Rates(session.store.scratch, kind(session.settings.device))
    pace(session, plan.order, rates)
    estimate = sum(rates.seconds(recipe) for recipe in plan.order)
    console.print(f"to make: {len(plan.order)} records, about {clock(estimate)} on this machine", highlight=False)
    return _make(session, plan, quiet, engine, workers, address=address)


def _make(session: Any, plan: Any, quiet: bool, engine: str, workers: int, *, address: str | None) -> Any:
    """Do a plan's work, progress shown; the counts of what was done."""
    from bench import Paused
    from bench.cli.progress import Display
    from bench.run import engines
    from bench.run.runner import run
    from bench.store.cost import Rates
    from bench.store.machine import kind

    rates = Rates(session.store.scratch, kind(session.settings.device))
    display = Display(plan, session.names, rates, screen(quiet), quiet, session.settings.stop_at)
    runner = engines.choose(engine, session.settings, workers, address, display.hooks(), plan.order)
    try:
        with display.shown():
            return run(plan, session.settings, session.store, runner, display, rates)
    except Paused:
        if display.stops:
            raise KeyboardInterrupt from None
        raise
    finally:
        runner.close()


def preflight(order: Any) -> None:
    """Refuse what another library would refuse, before hours of training have been spent on it."""
    from bench.recipes import Examples, Peer

    peers = {recipe.attack for recipe in order if isinstance(recipe, Examples) and isinstance(recipe.attack, Peer)}
    if peers:
        from bench.lab.attacks.peers import effective

        for attack in sorted(peers, key=lambda attack: attack.key):
            effective(attack)


def screen(quiet: bool = False) -> Any:
    """Where progress and remarks go: the terminal's error stream, so that output stays clean."""
    from rich.console import Console

    return Console(stderr=True, quiet=quiet)


def faults(session: Any, console: Any) -> None:
    """Say which records are damaged; they are made again, never believed."""
    for fault in dict.fromkeys(session.store.faults):
        console.print(f"damaged, will be made again: {fault}", highlight=False, markup=False)
    session.store.faults.clear()


def clock(seconds: float) -> str:
    """A length of time in words."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def recorded(suite: Path, scale: str, images: int | None, root: Path) -> Any:
    """A suite as a verb that only reads records opens it."""
    from bench.run.session import open_suite

    return open_suite(suite, scale, images, settings(root, "auto", None, 512))

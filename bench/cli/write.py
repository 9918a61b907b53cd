"""The verbs that help to write a suite: init, schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import app
from bench.cli.options import Output


@app.command()
def init(
    model: Annotated[str, typer.Argument(help="net.py:build, or a library's: timm:NAME, robustbench:NAME, ...")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The suite to write.")] = Path("suite.toml"),
    data: Annotated[str, typer.Option("--data", help="Your own images: an .npz file, or a folder of classes.")] = "",
) -> None:
    """Write a commented suite that judges a model: clean, under PGD, and under the attack that adapts.

    Example: freshdraws init net.py:build
    """
    from bench import UserError
    from bench.cli.terminal import save
    from bench.report.listing import short
    from bench.suite.starter import starter

    if output.exists():
        raise UserError("--output", f"{output} is there already", "name another file, or take that one away")
    save(output, starter(model, data, short(output.resolve())))


@app.command()
def schema(
    form: Annotated[str, typer.Option("--format", help="json, or md: the same as a page.")] = "json",
    output: Output = None,
) -> None:
    """Print every key that a suite may have, as a JSON schema by which editors complete and check suites.

    Example: freshdraws schema --output suite.schema.json
    """
    import json

    from bench import UserError, nearest
    from bench.cli.terminal import save
    from bench.suite import keys

    if form not in ("json", "md"):
        raise UserError("--format", f"a schema is json or md, not {form!r}", nearest(form, ["json", "md"]))
    text = keys.page() if form == "md" else json.dumps(keys.schema(), indent=1)
    if output is None:
        print(text.rstrip("\n"))
    else:
        save(output, text)

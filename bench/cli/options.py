"""The command line's options, declared once for all verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Suites = Annotated[list[Path] | None, typer.Argument(help="Suites whose records to show.", metavar="[SUITE]...")]
SuitePath = Annotated[Path, typer.Argument(help="A suite's TOML file.", metavar="SUITE")]
ScaleName = Annotated[str, typer.Option("--scale", help="A declared scale, or auto.")]
Images = Annotated[int | None, typer.Option("--images", help="Only the first N images of a fixed shuffle.")]
Only = Annotated[str | None, typer.Option("--only", help="One table, without the figures.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Craft and judge again; weights are kept.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Form = Annotated[str | None, typer.Option("--format", help="md, csv, json, latex or html.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead of printing.")]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", envvar="BENCH_DATA", help="Where the data set lies, in any known layout.")
]
Root = Annotated[Path, typer.Option("--root", envvar="BENCH_ROOT", help="Where results/ and .bench/ are.")]
MaxTime = Annotated[
    str | None, typer.Option("--max-time", help="Stop cleanly after 90s, 9m or 1h; the next run goes on.")
]
Engine = Annotated[str, typer.Option("--engine", help="local or ray.")]
Workers = Annotated[int, typer.Option("--workers", help="Worker processes.", min=1)]
Address = Annotated[str | None, typer.Option("--address", help="A Ray cluster's address, or auto.")]
Exact = Annotated[bool, typer.Option("--exact", help="Nothing that changes the last bits; auto is float32.")]
Batch = Annotated[int, typer.Option("--batch", help="Images through a network at once.", min=1)]

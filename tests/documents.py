"""Pages that are run: what a block shows is written, executed or typed, in its order, in a folder of its own.

A fence says what is done with it. ``python`` is executed, all of a page in one namespace; with a name (``python
net.py``, ``toml suite.toml``) it is a file, written into the folder; ``toml`` alone is part of a suite and must fit the
schema; ``sh`` is typed, line by line, and ``# exit code 2`` at a line's end is what it must exit with. Counts are made
small.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench.suite import keys

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```", re.M | re.S)
SMALL = {"stop = 1000": "stop = 12", "n=1000": "n=8", "suite.toml net ": "suite.toml net --images 8 --queries 20 "}


class Block(NamedTuple):
    language: str
    name: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a Markdown page, in order."""
    return [Block(*found) for found in FENCE.findall(page.read_text("utf-8"))]


def perform(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Do all that a page shows in `folder`; the names that its Python blocks leave."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    before, space = set(sys.modules), {"__name__": page.name}
    try:
        for number, block in enumerate(blocks(page)):
            text = block.text
            for large, small in SMALL.items():
                text = text.replace(large, small)
            where = f"{page.name}, block {number}"
            if block.name:
                Path(block.name).write_text(text)
            elif block.language == "python":
                exec(compile(text, where, "exec"), space)
            elif block.language == "toml":
                assert keys_fit(tomllib.loads(text)), f"{where} is no part of a suite"
            elif block.language == "sh":
                for line in filter(None, map(str.strip, text.splitlines())):
                    type_(line, where, monkeypatch)
    finally:
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]
    return space


def type_(line: str, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Type a line; what is not ours is looked at, not done."""
    words = shlex.split(line, comments=True)
    codes = re.search(r"# exit code ([\d or]+)", line)
    wanted = {int(code) for code in re.findall(r"\d+", codes[1])} if codes else {0}
    if words and words[0] == "freshdraws":
        from bench.cli.app import main

        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            main()
        assert int(end.value.code or 0) in wanted, f"{where}: {line}: exit code {end.value.code}"
    elif words and words[0] == "make":
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout, f"{where}: {line}: {done.stderr}"
    elif words[:2] == ["pip", "install"] or "make" in words or words[0] == "while":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        for extras in re.findall(r"freshdraws\[([\w,]+)\]", line):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), f"{where}: {line}"
        assert subprocess.run(["sh", "-n", "-c", line], env={"PATH": os.environ["PATH"]}).returncode == 0
    else:
        raise AssertionError(f"{where}: nobody knows how to try {line!r}")


def keys_fit(value: Any, schema: dict[str, Any] | None = None) -> bool:
    """Whether a value fits a schema (a suite's), as far as ours go: type, enum, anyOf, properties, items, required."""
    schema = keys.schema() if schema is None else schema
    if "anyOf" in schema:
        return any(keys_fit(value, one) for one in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list}
    wanted = schema.get("type", [])
    named = [wanted] if isinstance(wanted, str) else wanted
    if named and not any(isinstance(value, kinds[one]) for one in named):
        return False
    if isinstance(value, list):
        return all(keys_fit(item, schema.get("items", {})) for item in value)
    if not isinstance(value, dict):
        return True
    known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
    inside = all(keys_fit(item, known[name]) for name, item in value.items() if name in known)
    others = [item for name, item in value.items() if name not in known]
    if rest is False and others:
        return False
    beyond = not isinstance(rest, dict) or all(keys_fit(item, rest) for item in others)
    return inside and beyond and set(schema.get("required", ())) <= set(value)

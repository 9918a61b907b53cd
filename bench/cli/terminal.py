"""What goes to the terminal: former names of options, characters that it cannot show, answers in any format."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.report.forms import Answer

FORMER = {"--limit": ("--images",), "--slot": ("--max-time",), "--json": ("--format", "json"), "--strict": ()}
"""Options that had another name, and what they are called now."""
PLAIN = {
    "\N{PLUS-MINUS SIGN}": "+-", "\N{MINUS SIGN}": "-", "\N{EM DASH}": "--", "\N{EN DASH}": "-",
    "\N{GREEK CAPITAL LETTER DELTA}": "diff", "\N{HORIZONTAL ELLIPSIS}": "...", "\N{MULTIPLICATION SIGN}": "x",
    "\N{BULLET}": "*", "\N{LEFT SINGLE QUOTATION MARK}": "'", "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"', "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
}  # fmt: skip


def present(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line with options by their present names, and a note for each former one."""
    now: list[str] = []
    notes = []
    for at, word in enumerate(words):
        name, mark, value = word.partition("=")
        if name not in FORMER or "--" in words[:at]:
            now.append(word)
            continue
        called = FORMER[name]
        now += [f"{called[0]}={value}"] if mark and called else called
        fix = f"is now called {' '.join(called)}" if called else "is not needed any more"
        notes.append(f"note: {name} {fix}")
    return now, notes


def plainly() -> None:
    """From now on, what a stream's encoding cannot say is said in other words: +- for a plus-minus sign."""
    codecs.register_error("freshdraws.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="freshdraws.plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(PLAIN.get(char) or _drawn(char) for char in lost), error.end


def _drawn(char: str) -> str:
    """What stands for a character: lines of a box as -, | and +, letters without their accents."""
    import unicodedata

    name = unicodedata.name(char, "")
    if name.startswith("BOX DRAWINGS"):
        return "-" if name.endswith("HORIZONTAL") else "|" if name.endswith("VERTICAL") else "+"
    return unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode() or "?"


def say(answer: Answer, form: str | None = None, output: Path | None = None) -> None:
    """Print an answer, or write it to a file. Without a format: Markdown, on a terminal without its entities."""
    from bench.report.forms import readable, written

    text = written(answer, form or form_of(output))
    if output is not None:
        save(output, text)
        return
    print(readable(text) if form is None and _tty() else text)


def _tty() -> bool:
    return sys.stdout.isatty()


def save(output: Path, text: str) -> None:
    """Write a file whole or not at all; UserError if its folder is not there."""
    from bench import UserError
    from bench.report.listing import short
    from bench.store.disk import write

    if not output.resolve().parent.is_dir() or output.is_dir():
        raise UserError("--output", f"{output} cannot be written", "name a file in a folder that exists")
    write(output, (text.rstrip("\n") + "\n").encode())
    print(f"written to {short(output.resolve())}", file=sys.stderr)


def form_of(output: Path | None) -> str:
    """The format that a file's name asks for; Markdown where it asks for none."""
    suffix = output.suffix.lower() if output else ""
    return {".tex": "latex", ".csv": "csv", ".json": "json", ".html": "html"}.get(suffix, "md")

"""What the exit codes mean: one table for all verbs."""

from __future__ import annotations

DONE, FAILED, MISTAKE, DOUBT, PAUSED, INTERRUPTED = 0, 1, 2, 3, 75, 130

MEANING = {
    DONE: "done",
    FAILED: "something went wrong that no option can mend, or `doctor` found something broken",
    MISTAKE: "a mistake that you can mend: the message names file, key and fix, and nothing was written",
    DOUBT: "a result speaks against a number: a mark of `diagnose`, a claim that is contradicted, a record that "
    "`verify` calls inconsistent, libraries that `crosscheck` finds to disagree",
    PAUSED: "paused at --max-time, and all that was finished is kept: the same command goes on",
    INTERRUPTED: "interrupted (Ctrl-C), and all that was finished is kept: the same command goes on",
}


def markdown() -> str:
    """The table for the documentation."""
    lines = [f"| {code} | {words} |" for code, words in MEANING.items()]
    return "\n".join(["| exit code | meaning |", "| ---: | --- |", *lines]) + "\n"


def line() -> str:
    """The table in a line, for --help."""
    short = {DONE: "done", FAILED: "failure", MISTAKE: "your mistake", DOUBT: "a mark or contradiction",
             PAUSED: "paused", INTERRUPTED: "interrupted"}  # fmt: skip
    return "Exit codes:  " + ", ".join(f"{code} {words}" for code, words in short.items()) + "."

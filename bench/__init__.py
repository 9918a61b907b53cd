"""An evaluation harness for randomised and distilled defences against adversarial examples."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api import (
        Number,
        Numbers,
        Report,
        attack,
        certify,
        compare,
        dataset,
        diagnose,
        evaluate,
        judge,
        results,
    )  # fmt: skip

__all__ = [
    "Number", "Numbers", "Paused", "Report", "UserError", "attack", "certify", "compare", "dataset", "diagnose",
    "evaluate", "judge", "nearest", "results",
]  # fmt: skip
__version__ = "0.1.0"


class UserError(Exception):
    """A mistake the user can mend: where it is, what is wrong, and how to mend it.

    The command line prints it as one message and exits with code 2. `where` names a file,
    a file and a key (``suites/paper.toml: attacks.pgd10.eps``), or an option (``--device``).
    """

    def __init__(self, where: str, what: str, fix: str = "") -> None:
        self.where, self.what, self.fix = where, what, fix
        super().__init__(f"{where}: {what}" + (f" ({fix})" if fix else ""))

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str, str]]:
        return type(self), (self.where, self.what, self.fix)  # so that a worker process can raise it here


class Refused(UserError):
    """A model or an attack of the user's that cannot be used as it is; other work of the same run goes on."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A "did you mean" phrase for `word`, or the known words; empty if there are none."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known)}" if known else ""


class Paused(Exception):
    """Work stopped cleanly at a point from which it can go on; the message says how far it got."""


def __getattr__(name: str) -> Any:
    """The Python interface, loaded when it is first asked for: `import bench` alone is quick."""
    if name in __all__:
        from bench import api

        return getattr(api, name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""What one pass of a view knows: which kinds are on, what it met, what has left torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from torch import Tensor

from bench.lab.attacks.adapt.kinds import Choice, Kind
from bench.lab.attacks.adapt.uses import Uses

SAME: Final = object()
"""What a rule answers where it has nothing to put in place of a call."""


class Pass:
    """The state of one pass through a view; `uses`, if any, is told every place where a kind could be put in."""

    def __init__(self, choice: Choice, uses: Uses | None = None) -> None:
        self.kinds, self.wanted, self.uses = choice.kinds, choice.inner, uses
        self.left: list[Tensor] = []
        self.inner: list[Tensor] = []

    def meets(self, kind: Kind, operation: str) -> bool:
        """Whether to put this kind in the place of an operation that has been met."""
        if self.uses is not None:
            self.uses.note(kind, operation)
        return kind in self.kinds


Rule = Callable[[Pass, str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""(pass, name, function, args, kwargs) to what is put in place of the call, or SAME."""


def argument(args: tuple[Any, ...], kwargs: dict[str, Any], at: int, name: str, default: Any = None) -> Any:
    """An argument given by position or by name."""
    return args[at] if len(args) > at else kwargs.get(name, default)

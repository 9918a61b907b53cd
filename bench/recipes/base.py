"""What recipes are made of: the frozen value with a key, exact fractions, bounded numbers."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from fractions import Fraction
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
)


def exact(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Fraction)):
        raise ValueError("write a number or a fraction such as '8/255'")
    try:
        text = str(value)
        top, stroke, bottom = (part.strip().lower() for part in text.partition("/"))
        if len(text) > 64 or "/" in bottom or max(len(part.partition("e")[2]) for part in (top, bottom)) > 3:
            raise ValueError  # 1e999999999 would fill the memory
        return Fraction(top) / Fraction(bottom) if stroke else Fraction(top)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError("write a number or a fraction such as '8/255'") from None


Exact = Annotated[Fraction, BeforeValidator(exact), PlainSerializer(str)]
"""A number kept as an exact fraction, so that 8/255 and "8/255" and 16/510 are one value."""

Precision = Literal["float32", "bfloat16"]
Arithmetic = Literal["float32", "bfloat16", "auto"]
"""What crafting and judging compute in. "auto" is bfloat16 where the device gains by it and the model answers alike
(62 of 64 images), else float32; the record's provenance says which it was."""
Unit = Literal["pixels", "normalised"]
Rule = Literal["vote", "soft"]
Natural = Annotated[int, Field(ge=1, lt=2**31)]
Whole = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _plain(value: Any, depth: int = 8) -> Any:
    """The value if JSON can say it; ValueError for dates, for what is not finite, and for endless nesting."""
    match value:
        case bool() | str() | None:
            return value
        case int() if abs(value) < 2**63:
            return value
        case float() if math.isfinite(value):
            return value
        case list() | tuple() if depth:
            return [_plain(item, depth - 1) for item in value]
        case dict() if depth:
            return {str(name): _plain(item, depth - 1) for name, item in value.items()}
    raise ValueError("arguments are text, numbers, true or false, lists and tables of these")


Arguments = Annotated[dict[str, Any], AfterValidator(_plain)]


class Recipe(BaseModel):
    """A frozen value with a key; unknown fields and wrong types are refused at construction.

    `late` names the fields that a type was given after records of it existed: each stays out of the key while it
    holds its default, so that what was made before keeps its name. `aside` names those that say where something is
    and not what it is, which no key and no manifest holds. All others are in the key always.
    """

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", ignored_types=(cached_property,), allow_inf_nan=False
    )
    rev: ClassVar[int] = 1
    late: ClassVar[frozenset[str]] = frozenset()
    aside: ClassVar[frozenset[str]] = frozenset()

    @cached_property
    def key(self) -> str:
        """SHA-256 (64 hex digits) of the canonical recipe; nested recipes enter by their own keys."""
        fields = {name: _canonical(getattr(self, name)) for name in self.told()}
        text = json.dumps([type(self).__name__, self.rev, fields], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def told(self) -> list[str]:
        """The names of the fields that are part of the key, in their order."""
        declared = type(self).model_fields
        return [
            name
            for name, about in declared.items()
            if name not in self.aside
            and (name not in self.late or getattr(self, name) != about.get_default(call_default_factory=True))
        ]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A changed copy, validated like any other recipe and with a key of its own.

        (pydantic's own would carry the cached key of the original along.)
        """
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | dict(update or {}))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and type(self) is type(other) and self.key == other.key


def _canonical(value: Any) -> Any:
    match value:
        case Recipe():
            return value.key
        case Fraction():
            return str(value)
        case tuple() | list():
            return [_canonical(item) for item in value]
        case dict():
            return {str(name): _canonical(item) for name, item in value.items()}
        case float():
            return value.hex()
        case _:
            return value


Tuple = Annotated[tuple[Whole, ...], Field(strict=False)]
Floats = Annotated[tuple[float, ...], Field(strict=False)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Files = Annotated[tuple[str, ...], Field(strict=False)]

"""Every key that a suite may have, read off the recipes: as a JSON schema for editors, and as a page for people."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Literal, Union, get_args, get_origin

from pydantic_core import PydanticUndefined

from bench.recipes import Recipe
from bench.suite.grid import SECTIONS
from bench.suite.parts import PARTS, REFERENCES, SPELLED
from bench.suite.schema import Certify, Claim, Column, Header, Protocol, Row, Scale, Table

ALONE: dict[str, type[Recipe]] = {"suite": Header, "protocol": Protocol}
INNER: dict[str, tuple[type[Recipe], str]] = {
    "row": (Row, 'An entry of rows. "model" is short for `{ target = "model" }`, and `["source", "target"]` for both.'),
    "column": (Column, 'An entry of columns. "attack" is short for `{ attack = "attack" }`.'),
    "certify": (Certify, ""),
}
PRIVATE = {"place", "build", "state", "redraw", "code", "fingerprint"}
"""Fields that the harness fills in itself; a suite that it wrote may have them."""
BY_NAME = {*SPELLED, Row, Column, Certify}
OWN_WORDS: dict[tuple[type[Recipe], str], str] = {
    (Table, "rows"): "a list of rows",
    (Table, "columns"): "a list of columns",
    (Table, "paper"): 'a list of rows, each a list of numbers or `""`',
}
NAME = {"type": "string", "description": "the name of an entry of this suite"}


def kinds() -> Iterator[tuple[str, str, type[Recipe]]]:
    """Every section's recipes: section, the word of `kind` (or ""), the recipe."""
    for section, several in PARTS.items():
        for kind in several:
            words = get_args(kind.model_fields["kind"].annotation) if "kind" in kind.model_fields else ()
            yield section, " ".join(words) if len(several) > 1 else "", kind


def keys(kind: type[Recipe]) -> Iterator[tuple[str, str, str]]:
    """A recipe's keys: name, what may be written, the default ("" where one must be given)."""
    for name, field in kind.model_fields.items():
        if name not in PRIVATE:
            what = _words(field.annotation)
            if name in REFERENCES:
                what = f"a name of [{REFERENCES[name]}]" + ("" if kind in BY_NAME else ", or a table")
                what = f"a list: {what}, each" if name == "attacks" else what
            yield name, OWN_WORDS.get((kind, name), what), _default(field)


HEAD = """\
# Every key of a suite

Written by `freshdraws schema --format md` from the recipes; a test keeps it so. `freshdraws schema` prints the same
as a JSON schema, by which editors complete and check suites.

A suite is a TOML file. Each entry of a section has a name: `[attacks.pgd20]`. Where a key takes a name, a table may
stand in its place if that is said. In `[models]` and `[attacks]` a list where one value is expected is a
[grid](ablations.md). Numbers such as eps may be written as `"8/255"`. A dash as a default: the key must be given.
What depends on `kind` has a table a kind. Two entries are there without being declared: `[attacks.clean]`, no attack,
and `[datasets.test]`, all of CIFAR-10's test set."""


# -- the page -----------------------------------------------------------------------------------


def page() -> str:
    """docs/suite.md."""
    lines = [*HEAD.splitlines(), ""]
    for section, kind in ALONE.items():
        lines += [f"## [{section}]", "", *_told(kind), *_table(kind)]
    lines += ["## [scales.NAME]", "", *_told(Scale), *_table(Scale)]
    last = ""
    for section, word, kind in kinds():
        if section != last:
            lines += [f"## [{section}.NAME]", ""]
            last = section
        if word:
            lines += [f"### kind = {' or '.join(f'`{one}`' for one in word.split())}", ""]
        lines += [*_told(kind), *_table(kind)]
        if section == "tables":
            for name, (inner, about) in INNER.items():
                if name != "certify":
                    lines += [f"### A {name}", "", *_told(inner), *([about, ""] if about else []), *_table(inner)]
        if section == "models":
            lines += ["### certify", "", *_told(Certify), *_table(Certify)]
    lines += ["## [[claims]]", "", *_told(Claim), *_table(Claim)]
    return "\n".join(lines).rstrip() + "\n"


def _told(kind: type[Recipe]) -> list[str]:
    text = "\n".join(line.strip() for line in (kind.__doc__ or "").strip().splitlines())
    return [text, ""] if text else []


def _table(kind: type[Recipe]) -> list[str]:
    rows = [f"| `{name}` | {what} | {default or '—'} |" for name, what, default in keys(kind)]
    return ["| key | value | default |", "| --- | --- | --- |", *rows, ""]


def _default(field: Any) -> str:
    if field.default is PydanticUndefined and field.default_factory is None:
        return ""
    value = field.get_default(call_default_factory=True)
    match value:
        case None:
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case Recipe():
            return "its defaults"
        case Fraction():
            return f'`"{value}"`' if value.denominator > 1 else f"`{value}`"
        case str():
            return f'`"{value}"`'
        case tuple() | list() | dict():
            return f"`{list(value) if not isinstance(value, dict) else '{}'}`"
    return f"`{value}`"


def _words(annotation: Any) -> str:
    """What a key's type is called."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _words(inner[0])
    if origin is Literal:
        return ", ".join(f'`"{one}"`' for one in inner)
    if origin in (Union, types.UnionType):
        named = [_words(one) for one in inner if one is not type(None)]
        return " or ".join(dict.fromkeys(named))
    if origin in (tuple, list):
        of = next((one for one in inner if one is not Ellipsis), Any)
        one = _words(of).removeprefix("a ").removesuffix("text")
        return f"a list of {one}s" if one else "a list of texts"
    names = {int: "a whole number", float: "a number", Fraction: "a number", str: "text", bool: "`true`, `false`"}
    return names.get(annotation, "a table" if origin is dict or isinstance(annotation, type) else "anything")


# -- the schema ---------------------------------------------------------------------------------


def schema() -> dict[str, Any]:
    """A JSON schema (draft 2020-12) of suite files."""
    sections = {section: _object(kind) for section, kind in ALONE.items()}
    for section in PARTS:
        several = [_object(kind, section) for name, _, kind in kinds() if name == section]
        entry = several[0] if len(several) == 1 else {"anyOf": several}
        sections[section] = {"type": "object", "additionalProperties": entry}
    scale = _object(Scale) | {"additionalProperties": True}
    sections["scales"] = {"type": "object", "additionalProperties": scale}
    sections["claims"] = {"type": "array", "items": _object(Claim)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A suite of freshdraws",
        "type": "object",
        "additionalProperties": False,
        "properties": sections,
    }


def _object(kind: type[Recipe], section: str = "") -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        if name in REFERENCES and kind not in SPELLED:
            properties[name] = {"anyOf": [NAME, {"type": "object"}, {"type": "array"}]}
            continue
        one = _typed(field.annotation)
        grid = section in SECTIONS and name != "kind" and one.get("type") != "array"
        properties[name] = {"anyOf": [one, {"type": "array", "items": one}]} if grid else one
    needed = [name for name, field in kind.model_fields.items() if field.is_required()]
    about = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    required = {"required": needed} if needed else {}
    return {"type": "object", "description": about, "properties": properties, "additionalProperties": False} | required


def _typed(annotation: Any) -> dict[str, Any]:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _typed(inner[0])
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (Union, types.UnionType):
        several = [_typed(one) for one in inner if one is not type(None)]
        return several[0] if len(several) == 1 else {"anyOf": several}
    if origin in (tuple, list):
        of = next((one for one in inner if one is not Ellipsis), Any)
        items = {"anyOf": [{"type": "string"}, {"type": "array"}, _object(of)]} if of in (Row, Column) else _typed(of)
        return {"type": "array", "items": items}
    if annotation is Fraction:
        return {"type": ["number", "string"]}
    names = {int: "integer", float: "number", str: "string", bool: "boolean"}
    if annotation in names:
        return {"type": names[annotation]}
    if origin is dict:
        return {"type": "object"}
    return _object(annotation) if isinstance(annotation, type) and issubclass(annotation, Recipe) else {}

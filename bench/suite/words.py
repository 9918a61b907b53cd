"""Where in a suite's text a mistake is, and what was written there."""

from __future__ import annotations

import re
from typing import Any

from bench import nearest
from bench.recipes import Recipe


def plain_name(name: str) -> bool:
    """Whether a name can stand in a claim and name a file: no separators, no brackets, nothing unseen."""
    return bool(re.fullmatch(r"\w[\w .\-+=@%()]{0,79}", name)) and not name.endswith((".", " "))


def words_of(item: Any, kind: type[Recipe]) -> str:
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"unknown key; {nearest(str(item['loc'][-1]), kind.model_fields)}"
    if item["type"] == "missing":
        return "is missing"
    got = item.get("input")
    return f"{message}, not {got!r}" if isinstance(got, str | int | float | bool) and "not" not in message else message


def locate(text: str, where: tuple[Any, ...], scale: str = "") -> int:
    """The line (from 1) of the deepest part of a key path that the file spells out; 0 if none.

    A grid's member (``m@sigma=0.1``) stands where the grid was written.
    """
    spelled = (part if i != 1 or part in text else part.partition("@")[0] for i, part in enumerate(map(str, where)))
    paths = [tuple(spelled)]
    if scale:
        paths.insert(0, ("scales", scale, *paths[0]))
    best, found = 0, (0, 0)
    header: tuple[str, ...] = ()
    counts: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if match := re.match(r"^(\[\[?)\s*([^\]]+?)\s*\]", stripped):
            header = tuple(part.strip().strip("\"'") for part in match[2].split("."))
            if match[1] == "[[":
                counts[header] = counts.get(header, -1) + 1
                header = (*header, str(counts[header]))
            path = header
        elif match := re.match(r"^([\w.\-\"']+)\s*=", stripped):
            path = (*header, *(part.strip("\"'") for part in match[1].split(".")))
        else:
            continue
        for rank, wanted in enumerate(paths):
            if wanted[: len(path)] == path and (len(path) - (2 if rank == 0 and scale else 0), -rank) > found:
                best, found = number, (len(path) - (2 if rank == 0 and scale else 0), -rank)
    return best


def merged(base: Any, patch: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(patch, dict):
        return patch
    return base | {name: merged(base[name], value) if name in base else value for name, value in patch.items()}

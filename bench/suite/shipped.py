"""The suites that travel with the package: beside it in a checkout, under share/ where a wheel was installed."""

from __future__ import annotations

import sys
from pathlib import Path

import bench

INSTALLED = Path("share") / "freshdraws" / "suites"


def at_hand(path: Path) -> Path:
    """The path itself if something is there; else the shipped suite of that name (``suites/paper.toml``, ``paper``)."""
    if path.exists() or path.parent.name not in ("", "suites") or len(path.parts) > 2:
        return path
    name = path.with_suffix(".toml").name
    there = (folder / name for folder in folders())
    return next((file for file in there if file.is_file()), path)


def folders() -> list[Path]:
    """Where shipped suites may be: beside a checkout's package, or where `pip install` puts them."""
    above = Path(bench.__file__).resolve().parents[1]
    return [above / "suites", above / INSTALLED, Path(sys.prefix) / INSTALLED]

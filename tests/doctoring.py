"""What a forger can do to a store: change votes or weights and make every checksum fit again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.recipes import Work
from bench.report.publication import NAME
from bench.store.records import Store
from bench.store.sealed import checked, seal_of
from bench.votes.votes import Votes, check, from_parquet, to_parquet


def reseal(path: Path, **changes: Any) -> str:
    """Make a record's manifest fit its files as they are now, with these changes of its own; its new seal."""
    body = json.loads((path / "manifest.json").read_bytes())
    del body["check"]
    for name, about in body["files"].items():
        data = (path / name).read_bytes()
        about |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    body |= changes
    body["seal"] = seal_of(body["files"], body["made_from"])
    (path / "manifest.json").write_bytes(checked(body))
    return str(body["seal"])


def doctor(root: Path, outcomes: Work, change: Callable[[Votes], Votes]) -> None:
    """Replace a record's votes by doctored ones that fit their manifest."""
    record = Store(root).find(outcomes)
    assert record is not None
    votes = retold(change(from_parquet(record.read("votes.parquet"))))
    (record.path / "votes.parquet").write_bytes(to_parquet(votes))
    reseal(record.path)


def retold(votes: Votes) -> Votes:
    """The votes with winners of their draws, and right answers of each, that fit the counts; at most 16 draws."""
    try:
        check(votes)
    except ValueError:
        classes = np.arange(votes.counts.shape[1])
        winners = np.array([np.repeat(classes, row) for row in votes.prefix], np.uint16)
        right = winners == votes.labels[:, None]
        sums = np.array([right[votes.shard == shard].sum(0) for shard in np.unique(votes.shard)], np.int32)
        votes = replace(votes, winners=winners, draw_right=sums)
        check(votes)
    return votes


def republish(folder: Path, **changes: Any) -> None:
    """Make the seal of what is published fit the files as they are now."""
    body = json.loads((folder / NAME).read_bytes())
    del body["check"]
    body["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in body["files"]}
    (folder / NAME).write_bytes(checked(body | changes))


def edit(path: Path, changes: Mapping[str, str]) -> None:
    """Replace texts in a file; each must be there."""
    text = path.read_text("utf-8")
    for before, after in changes.items():
        assert before in text, before
        text = text.replace(before, after, 1)
    path.write_text(text, "utf-8")

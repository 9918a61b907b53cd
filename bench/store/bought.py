"""What an adaptive attack bought, member by member: kept in each shard's examples, gathered for a record."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from bench.store.sealed import Record


class Bought(NamedTuple):
    """What one member bought: `gain` is the error it added, as a share of all images, on draws that select;
    `tried` the images it was tried on, `gradients` what it cost an image of all; `found` whose best images are its."""

    member: str
    tried: int
    gain: float
    gradients: float
    found: int = 0


class Account(NamedTuple):
    """An attack's account of some images: its members, which of them found each image's example (an index; -1: none
    did), what each image cost in gradients, why the search ended, and what views by interception say of the model."""

    members: tuple[Bought, ...]
    found: tuple[int, ...]
    spent: tuple[float, ...]
    end: str
    findings: tuple[str, ...] = ()

    def text(self) -> str:
        """One line of JSON."""
        return json.dumps(self._asdict(), separators=(",", ":"))


def account(text: str) -> Account:
    """The account that `Account.text` wrote."""
    said = json.loads(text)
    members = tuple(Bought(*one) for one in said["members"])
    return Account(members, tuple(said["found"]), tuple(said["spent"]), said["end"], tuple(said["findings"]))


def gathered(accounts: Iterable[Account]) -> dict[str, Any]:
    """Several shards' accounts as one, plain: gains and costs are means over all images."""
    members: dict[str, list[float]] = {}
    ends, findings, spent = Counter[str](), dict[str, None](), list[float]()
    for one in accounts:
        n = len(one.spent)
        for member in one.members:
            sums = members.setdefault(member.member, [0, 0.0, 0.0, 0])
            for place, value in enumerate((member.tried, member.gain * n, member.gradients * n, member.found)):
                sums[place] += value
        ends[one.end] += 1
        findings |= dict.fromkeys(one.findings)
        spent += one.spent
    total = max(1, len(spent))
    rows = [[name, int(s[0]), s[1] / total, s[2] / total, int(s[3])] for name, s in members.items()]
    said = {"images": len(spent), "gradients": sum(spent) / total, "most": max(spent, default=0.0), "members": rows}
    return said | {"ends": dict(ends), "findings": list(findings)}


def of_record(record: Record) -> dict[str, Any] | None:
    """The account that a record of examples holds; None if its attack kept none."""
    found = []
    for name in sorted(name for name in record.manifest["files"] if name.endswith(".safetensors")):
        with open(record.path / name, "rb") as file:  # the head alone: a shard's images are megabytes
            head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        text = head.get("__metadata__", {}).get("account")
        if text is not None:
            found.append(account(text))
    return gathered(found) if found else None

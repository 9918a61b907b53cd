"""What an audit sees, by size of the forgery, and how honest records fare: prints the tables of docs/audit.md.

python -m pytest tests/benchmarks/test_audit.py -s

A record of 1,000 images (AUDITED) in 20 shards is made with real models; a second one of the same under other vector
instructions (ONEDNN_MAX_CPU_ISA). All rows are made again once, in each way, and the audits sample from these.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pytest
import torch
from small import SUITE, go, session

from bench.lab.examine import again
from bench.lab.examine.again import Again
from bench.recipes import Outcomes
from bench.report import audit
from bench.report.audit import of, verify
from bench.report.sampling import sample
from bench.run.session import Session
from bench.store.machine import instructions, processor
from bench.votes.votes import Votes

ROOT = Path(__file__).parents[2]
IMAGES = int(os.environ.get("AUDITED", "1000"))
SHARD = IMAGES // 20
REPEATS, FORGED = int(os.environ.get("REPEATS", "100")), int(os.environ.get("FORGED", "40"))
TEXT = (
    SUITE.replace("shard = 20", f"shard = {SHARD}")
    .replace("stop = 60", f"stop = {IMAGES}")
    .replace("steps = 2", "steps = 10")
    .replace("stop = 5100", "stop = 8000")
    .replace('augment = "none"', 'augment = "flip"')
    .replace('rows = ["cni", "student", ["student", "cni"]]', 'rows = ["cni", "student"]')
)
LESS = {"avx512": "AVX2", "avx2": "SSE41"}
ELSEWHERE = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
sys.argv[1:] = sys.argv[2:]
from small import go
go(Path(sys.argv[1]), text=Path(sys.argv[2]).read_text(), microbatch=96)
"""
POINTS, SIZES = (1, 2, 5, 10), (64, 256, None)


class Kept:
    """What `Again` made of all rows, once for all modes; audits take their rows from it."""

    made: ClassVar[dict[tuple[Path, Outcomes, str], Votes]] = {}

    def __init__(self, opened: Session, mode: str) -> None:
        self.again, self.root, self.how = Again(opened.settings), opened.settings.root, mode

    def all(self, outcomes: Outcomes, record: Any, other: str) -> Votes:
        """All rows made again. Where the record's draws are unknown, even the first time with others than its own."""
        seed = again.OTHER_SEED
        if self.how == "other draws":
            other, seed = "draws", seed + (other == "draws")
        key = (self.root, outcomes, f"{other} {seed}")
        if key not in self.made:
            with mock.patch.object(again, "OTHER_SEED", seed):
                self.made[key] = self.again.votes(outcomes, np.arange(IMAGES), record, other)
        return self.made[key]

    def mode(self, outcomes: Outcomes, record: Any) -> str:
        return self.how

    def originals(self, outcomes: Outcomes) -> Any:
        return self.again.originals(outcomes)

    def votes(self, outcomes: Outcomes, chosen: Any, record: Any, other: str = "") -> Votes:
        votes = self.all(outcomes, record, other)
        return replace(of(votes, chosen), draw_right=self.right(votes, chosen))

    def right(self, votes: Votes, chosen: Any) -> Any:
        """Right answers of each draw on these rows, as drawing them alone would give in distribution."""
        few = of(votes, chosen)
        shares = few.prefix[np.arange(len(chosen)), few.labels] / votes.prefix_draws
        found = []
        for shard in np.unique(few.shard):
            whole = votes.draw_right[shard]
            part, size = shares[few.shard == shard], (votes.shard == shard).sum()
            scaled = part.sum() + (whole - whole.mean()) * np.sqrt(len(part) / size)
            found.append(np.clip(np.round(scaled), 0, len(part)))
        return np.array(found, np.int32)

    def whole(self, outcomes: Outcomes, numbers: Sequence[int], record: Any) -> Votes:
        votes = self.all(outcomes, record, "")
        rows = np.flatnonzero(np.isin(votes.shard, numbers))
        return replace(of(votes, rows), draw_right=votes.draw_right[list(numbers)])


class Records:
    """Two honest records of one suite, made with different instructions, over the same weights."""

    def __init__(self, root: Path) -> None:
        self.here, self.there = root / "here", root / "there"
        go(self.here, text=TEXT)

    @cached_property
    def elsewhere(self) -> Session:
        (self.there / ".bench").mkdir(parents=True)
        (self.there / ".bench" / "weights").symlink_to(self.here / ".bench" / "weights")
        (path := self.there / "suite").write_text(TEXT)
        isa = next(to for name, to in LESS.items() if any(name in flag for flag in instructions()))
        subprocess.run(
            [sys.executable, "-c", ELSEWHERE, str(ROOT), str(self.there), str(path)], check=True,
            env={**os.environ, "ONEDNN_MAX_CPU_ISA": isa, "ATEN_CPU_CAPABILITY": "default"},
        )  # fmt: skip
        return session(self.there, TEXT)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    print(f"\n{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    return Records(tmp_path_factory.mktemp("audit"))


def forged(votes: Votes, points: float, few: bool, rng: np.random.Generator) -> Votes:
    """So many points more right in every draw: in as few shards as hold them (`few`), or over all of them."""
    wrong = np.flatnonzero(votes.counts.argmax(1) != votes.labels)
    left = round(points / 100 * IMAGES)
    order = rng.permutation(wrong)
    if few:
        ranks = rng.permutation(len(votes.draw_right))
        order = order[np.argsort(ranks[votes.shard[order]], kind="stable")]
    fields = {name: getattr(votes, name).copy() for name in ("counts", "probs", "prefix")}
    at = order[:left]
    for array in fields.values():
        total = array[at].sum(1)
        array[at] = 0
        array[at, votes.labels[at]] = total
    soft = votes.soft.copy()
    soft[at] = votes.labels[at]
    assert votes.winners is not None and votes.winners.shape[1] == votes.prefix_draws, "at most 16 draws"
    winners = votes.winners.copy()
    winners[at] = votes.labels[at, None]
    right = winners == votes.labels[:, None]
    sums = [right[votes.shard == shard].sum(0) for shard in range(len(votes.draw_right))]
    return replace(votes, **fields, soft=soft, winners=winners, draw_right=np.array(sums, np.int32))


def found(opened: Session, machine: Kept, record: Any, images: int | None, seed: int) -> dict[Outcomes, audit.AuditRow]:
    by_key = {outcomes.key: outcomes for outcomes in record}
    rows = verify(opened.suite, record.get, opened.manifest, machine, images, seed=seed)
    return {by_key[row.key]: row for row in rows}


@pytest.mark.parametrize(
    ("name", "mode"),
    [("here", "as recorded"), ("here", "other arithmetic"), ("elsewhere", "other arithmetic"), ("here", "other draws")],
)
def test_honest_records_pass(records: Records, name: str, mode: str) -> None:
    opened = session(records.here, TEXT) if name == "here" else records.elsewhere
    machine = Kept(opened, mode)
    record = {cell.outcomes: opened.votes(cell.outcomes) for cell in opened.suite.cells()}
    for images in SIZES:
        repeats = REPEATS if images else 1
        passed = [
            all(row.verdict == "consistent" for row in found(opened, machine, record, images, seed).values())
            for seed in range(repeats)
        ]
        print(f"made {name}, {mode}, {images or 'all'} images: {sum(passed)} of {repeats} honest audits pass")
        assert all(passed)
    for outcomes, votes in record.items():
        here = machine.votes(outcomes, np.arange(IMAGES), about(opened, outcomes))
        differ = {k: int(v.sum()) for k, v in audit.compare.grossly(votes, here).items()}
        print(f"    {words(opened, outcomes)}: of {IMAGES} differ {differ}")


def about(opened: Session, outcomes: Outcomes) -> Any:
    manifest = opened.manifest(outcomes)
    assert manifest is not None
    return manifest["provenance"]


def words(opened: Session, outcomes: Outcomes) -> str:
    return f"{opened.names[outcomes.target.key]}, {opened.names.get(outcomes.examples.attack.key, 'clean')}"


@pytest.mark.parametrize("mode", ["as recorded", "other arithmetic", "other draws"])
def test_power_by_size_of_the_forgery(records: Records, mode: str) -> None:
    opened = session(records.here, TEXT)
    machine = Kept(opened, mode)
    record = {cell.outcomes: opened.votes(cell.outcomes) for cell in opened.suite.cells()}
    level = audit.ALPHA / len(record)
    for images in SIZES:
        repeats = FORGED if images else 5
        for outcomes, votes in record.items():
            seen: dict[float, dict[bool, int]] = defaultdict(lambda: {True: 0, False: 0})
            for points in POINTS:
                for few in (True, False):
                    for seed in range(repeats):
                        lie = forged(votes, points, few, np.random.default_rng(seed))
                        plan = sample(outcomes, IMAGES, images, 1000 + seed)
                        what = audit.examine(outcomes, lie, about(opened, outcomes), machine, plan, level)
                        seen[points][few] += bool(what.broken) or (what.p is not None and what.p < level)
            told = found(opened, machine, record, images, 0)[outcomes].power
            share = [f"{100 * min(one.values()) / repeats:.0f}" for one in seen.values()]
            print(
                f"{mode} | {words(opened, outcomes)} | {images or 'all'} | {' / '.join(share)} | "
                f"{' / '.join(f'{100 * p:.0f}' for p in told)}"
            )

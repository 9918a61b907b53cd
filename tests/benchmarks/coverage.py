"""Coverage of every interval whose images share draws: simulates it and writes docs/coverage.md.

    PYTHONPATH=. python tests/benchmarks/coverage.py [--repeats 2000] [--jobs 2] [--kept cells.jsonl]

About an hour on one core; --kept keeps finished cells, and a second run takes up what is missing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from copula import given, population, records, truth

from bench.votes import numbers, paired
from bench.votes.numbers import Number
from bench.votes.paired import Term, difference, interval, total
from bench.votes.votes import Votes

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"
POPULATIONS = {"mild": (8.0, 2.0), "broad": (1.5, 1.0)}
VALUES = numbers.values
LEVELS: tuple[tuple[Any, ...], ...] = ((0.0, 0.02, 0.05, 0.1), (1, 2, 20), (1, 8, 512))
IMAGES = (300, 1_000, 10_000)
APART = 0.25  # of the second model's thresholds from the first's; a clean model's are 1 higher
KINDS = {
    "vote": "vote",
    "soft": "soft",
    "again 2": "resubmission, 2 times",
    "again 8": "resubmission, 8 times",
    "given": "given clean, vote",
    "given exp.": "given clean, expected",
    "pair": "paired difference, vote",
    "pair exp.": "paired difference, expected",
    "claim": "claim: vote of one less half of the vote and half of the expected accuracy of the other",
    "expected": "expected",
}


class Cell(dict[str, Any]):
    """correlation, shards, draws, n, population: what one row of the page is of."""


def cells() -> list[Cell]:
    """Every correlation with every pair of shards and draws, images in a Latin square, populations in turn."""
    made = []
    for (i, correlation), (j, shards), (k, draws) in itertools.product(*map(enumerate, LEVELS)):
        n, of = IMAGES[(i + j + k) % 3], sorted(POPULATIONS)[(i + j + k // 2) % 2]
        made.append(Cell(correlation=correlation, shards=shards, draws=draws, n=n, population=of))
    return made


def simulate(cell: Cell, repeats: int) -> dict[str, list[float]]:
    """By kind: coverage of the 95 % interval and its mean width, both in percent."""
    rng = np.random.default_rng([round(100 * cell["correlation"]), cell["shards"], cell["draws"], cell["n"]])
    hits: dict[str, list[bool]] = {}
    widths: dict[str, list[float]] = {}
    first = population(*POPULATIONS[cell["population"]])
    models, wanted = [first, first + APART, first + 1], truths(first, cell)
    shape = {name: cell[name] for name in ("shards", "draws", "correlation")}
    once = cache(VALUES)  # the same values serve several numbers
    numbers.values = paired.values = once
    for _ in range(repeats):
        once.cache_clear()
        for kind, (low, high) in found(*records(rng, models, cell["n"], **shape)).items():
            hits.setdefault(kind, []).append(low <= wanted[kind] <= high)
            widths.setdefault(kind, []).append(high - low)
    return {kind: [100 * float(np.mean(hits[kind])), 100 * float(np.mean(widths[kind]))] for kind in hits}


def truths(first: np.ndarray, cell: Cell) -> dict[str, float]:
    draws = cell["draws"]
    one, other = truth(first, draws), truth(first + APART, draws)
    expected, vote = given(first, first + 1, draws, cell["correlation"])
    return {
        "expected": one.expected, "vote": one.vote, "soft": one.soft, "again 2": one.twice, "again 8": one.eight,
        "given": vote, "given exp.": expected, "pair": one.vote - other.vote,
        "pair exp.": one.expected - other.expected,
        "claim": one.vote - 0.5 * other.vote - 0.5 * other.expected,
    }  # fmt: skip


def found(one: Votes, other: Votes, clean: Votes) -> dict[str, tuple[float, float]]:
    """The intervals that the report would print."""
    many = one.prefix_draws > 1
    shares: dict[str, Any] = {kind: numbers.fold(one, kind) for kind in ("expected", "vote", "soft")}
    shares |= {f"again {times}": numbers.resubmission(one, times) for times in (2, 8)}
    shares |= {"given": numbers.given_clean(one, clean, "vote")}
    pairs: dict[str, Any] = {"pair": difference(one, other, "vote")}
    claim = total([Term(1.0, one, "vote"), Term(-0.5, other, "vote"), Term(-0.5, other, "expected")])
    if many:
        shares |= {"given exp.": numbers.given_clean(one, clean, "expected")}
        pairs |= {"pair exp.": difference(one, other, "expected")}
    pairs |= {"claim": interval(claim) if claim else None}
    shares = {kind: share for kind, share in shares.items() if isinstance(share, Number)}
    return {kind: (share.low, share.high) for kind, share in (shares | pairs).items() if share is not None}


# -- the page ----------------------------------------------------------------------------------


def page(results: list[tuple[Cell, dict[str, list[float]]]], repeats: int) -> str:
    """docs/coverage.md."""
    lowest = {kind: min((r[kind][0], i) for i, (_, r) in enumerate(results) if kind in r) for kind in KINDS}
    strict = [i for i, (c, _) in enumerate(results) if c["shards"] >= 2 and c["draws"] >= 8]
    error = 100 * np.sqrt(0.95 * 0.05 / repeats)
    lines = [HEAD.format(repeats=f"{repeats:,}", cells=len(results), error=error), ""]
    lines += ["| number | lowest | mean | highest, 2 shards and 8 draws or more | under 93 | over 97.5 of these |"]
    lines += ["| --- | --: | --: | --: | --: | --: |"]
    for kind, words in KINDS.items():
        every = [r[kind][0] for _, r in results if kind in r]
        held = [results[i][1][kind][0] for i in strict if kind in results[i][1]]
        under, over = sum(c < 93 for c in every), sum(c > 97.5 for c in held)
        row = (words, f"{lowest[kind][0]:.1f}", f"{np.mean(every):.1f}", f"{max(held):.1f}", f"{under} of {len(every)}")
        lines.append(f"| {' | '.join(row)} | {over} of {len(held)} |")
    lines += ["", "## Every cell", "", WORDS, ""]
    for draws in (1, 8, 512):
        lines += [f"### {draws} draw{'s' if draws > 1 else ''}", ""]
        names = [kind for kind in KINDS if any(kind in r for c, r in results if c["draws"] == draws)]
        lines += [f"| correlation | shards | images | population | {' | '.join(names)} |"]
        lines += ["| --: | --: | --: | --- |" + " --: |" * len(names)]
        for cell, result in results:
            if cell["draws"] == draws:
                shown = [f"{result[k][0]:.1f} ({result[k][1]:.1f})" if k in result else "" for k in names]
                left = f"{cell['correlation']:g} | {cell['shards']} | {cell['n']:,} | {cell['population']}"
                lines.append(f"| {left} | {' | '.join(shown)} |")
        lines.append("")
    return "\n".join(lines)


HEAD = """# Coverage of the intervals

One draw of noise serves all images of a shard, so their answers err together, and an interval that takes them for
independent is too narrow: Wilson's for a vote of 8 draws over 1,000 images in 2 shards with a correlation of 0.05
covered 71 to 75 % where 95 % was said. `bench/votes/sharing.py` says how intervals count what is shared, from the
winners of the first 16 draws that each record holds. This page is how often they are right.

    PYTHONPATH=. python tests/benchmarks/coverage.py

simulates {cells} cells, {repeats} benchmarks each (standard error {error:.1f} points), and writes it. Answers follow a
Gaussian copula (`tests/copula.py`): whatever the correlation, each image keeps its own probability of being right, from
a *mild* population (Beta(8, 2): 80 % on average) or a *broad* one (Beta(1.5, 1): 60 %). The intervals are for the
population's number, as the report prints them, and nominally cover 95 %. The second model of a pair and the
clean model meet the same noise, as records of one seed do."""

WORDS = """Coverage in percent, and in brackets the mean width in points. With one shard and one draw nothing tells what
is shared: the interval is everything there is, 0 to 100 (or -100 to 100 of a difference). With one draw and several
shards the spread between shards is all there is, and with 2 shards it is wide. Correlation 0 is what a deterministic
comparison would have: the difference in width is what not knowing it costs. A paired difference of votes that differ on
a handful of images counts two more images, half a one in each cell (Agresti & Min 2005)."""


def _one(job: tuple[Cell, int]) -> dict[str, list[float]]:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return simulate(*job)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--kept", type=Path, help="a file of finished cells")
    asked = parser.parse_args()
    done: dict[str, dict[str, list[float]]] = {}
    if asked.kept and asked.kept.exists():
        done = dict(json.loads(line) for line in asked.kept.read_text().splitlines())
    todo = [cell for cell in cells() if json.dumps(cell) not in done]
    todo.sort(key=lambda cell: (cell["n"], cell["draws"]))
    with ProcessPoolExecutor(asked.jobs) as pool:
        for cell, result in zip(todo, pool.map(_one, [(cell, asked.repeats) for cell in todo]), strict=True):
            done[json.dumps(cell)] = result
            if asked.kept:
                with asked.kept.open("a") as file:
                    file.write(json.dumps([json.dumps(cell), result]) + "\n")
            print(cell, {kind: [round(x, 1) for x in both] for kind, both in result.items()}, flush=True)
    PAGE.write_text(page([(cell, done[json.dumps(cell)]) for cell in cells()], asked.repeats) + "\n")


if __name__ == "__main__":
    main()

"""Cost and errors of stopping a 512-draw vote, in full: prints the tables; ten minutes, most for the bound at 512."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import binom
from stopped import realistic, run, soft_run, softmaxes, votes

from bench.votes.stopping_tables import boundaries, crossing, worst_case

CASES = [(1.0,), (0.99, 0.01), (0.95, 0.05), (0.9, 0.1), (0.8, 0.2), (0.7, 0.3), (0.6, 0.2, 0.2), (0.6, 0.4)]
CLOSE = [(0.55, 0.45), (0.52, 0.48), (0.4, 0.3, 0.3), (0.35, 0.33, 0.32)]
METHODS = ("curtailed", "e-process", "default")


def test_cost_of_known_votes() -> None:
    rng = np.random.default_rng(0)
    print("\nmean draws of 512, alpha 1e-3, 10 classes; looked at every draw, then every 8")
    print("shares".ljust(20) + "".join(m.rjust(12) for m in METHODS) + "every 8".rjust(12) + "differ".rjust(9))
    for shares in CASES + CLOSE:
        p = np.zeros((1000, 10))
        p[:, 3 : 3 + len(shares)] = shares
        labels = votes(p, 512, rng)
        runs = [run(labels, 10, 1e-3, method) for method in METHODS] + [run(labels, 10, 1e-3, every=8)]
        differ = int((runs[2][1] != runs[2][2]).sum())
        print(str(shares).ljust(20) + "".join(f"{r[0].mean():12.1f}" for r in runs) + f"{differ:9d}")
        assert differ <= binom.ppf(0.9999, 1000, 1e-3)
        assert runs[2][0].mean() <= runs[1][0].mean() <= runs[0][0].mean()


def test_cost_of_a_realistic_mix() -> None:
    rng = np.random.default_rng(1)
    labels = votes(realistic(10_000, rng), 512, rng)
    for every in (1, 4, 8, 16):
        used, winner, full = run(labels, 10, 1e-3, every=every)
        same = (winner == full).mean()
        print(f"\nevery {every}: {used.mean():.1f} draws, {512 / used.mean():.1f}x fewer, {100 * same:.3f} % the same")
        assert 512 / used.mean() >= 8
        assert same >= 0.999


@pytest.mark.parametrize("alpha", [1e-3, 0.05])
def test_wrong_decisions_at_the_least_favourable_populations(alpha: float) -> None:
    rng = np.random.default_rng(2)
    for population in [(256, 256), (255, 257), (171, 170, 171), (128, 128, 128, 128), (240, 250, 22), (52,) * 10]:
        one = np.repeat(np.arange(len(population)), population)
        wrong = 0
        for _ in range(5):
            labels = rng.permuted(np.tile(one, (2000, 1)), axis=1)
            _, winner, full = run(labels, 10, alpha, every=2)
            wrong += int((winner != full).sum())
        print(f"\n{population}: {wrong} of 10,000 wrong at alpha {alpha}")
        assert wrong <= binom.ppf(0.9999, 10_000, alpha)


def test_tables_of_512_are_quick_and_hold_for_every_size_of_pair() -> None:
    start = time.perf_counter()
    tables = boundaries.__wrapped__(512, 1e-3, 10)
    print(f"\ntables of 512 in {time.perf_counter() - start:.2f} s")
    sizes = np.arange(4, 513)
    rivals = np.minimum((512 - sizes / 2) / (sizes / 2), 9)
    parts = np.array_split(sizes, 16)
    alone = np.concatenate([crossing(tables.pairs[np.searchsorted(tables.sizes, s)], s, s // 2) for s in parts])
    assert (alone * rivals <= 1e-3).all()


@pytest.mark.parametrize(
    ("total", "alpha", "classes"), [(128, 1e-3, 10), (200, 1e-4, 10), (128, 0.05, 100), (512, 1e-3, 10)]
)
def test_bound_over_all_populations(total: int, alpha: float, classes: int) -> None:
    bound = worst_case(total, alpha, classes)
    print(f"\n{total} draws, {classes} classes: at most {bound:.3g} wrong at alpha {alpha}")
    assert bound <= alpha


def test_cost_of_the_soft_rule() -> None:
    rng = np.random.default_rng(3)
    rest = [0.001] * 7
    print("\nsoft rule, mean draws of 512 looked at every 8")
    for means in ([0.95, 0.04, 0.001], [0.8, 0.2, 0.001], [0.6, 0.4, 0.001], [0.55, 0.45, 0.001], [0.4, 0.3, 0.3]):
        for spread in (0.3, 1.0, 3.0):
            used, winner, full = soft_run(softmaxes(means + rest, spread, 300, 512, rng), 1e-3)
            wrong = int((winner != full).sum())
            print(f"{means} logit noise {spread}: {used.mean():.1f} draws, {wrong} of 300 differ")
            assert wrong <= binom.ppf(0.9999, 300, 1e-3)

"""Our speed beside other libraries' on this machine, as ratios taken round by round.

On a CPU the network is a WRN-28-4 and sizes are small enough for a quarter of an hour in all; REPEAT=3
in the environment takes more rounds. Timings mean something on an otherwise idle machine only.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from bench.lab.compute import laid_out
from bench.lab.growth import growth, slope
from bench.lab.race import Row, limit, race
from bench.lab.rivals import PRECISIONS, Way, judged, looped, pgd, rivals, suited
from bench.lab.speed import Subjects, images_of, subjects
from bench.recipes import PGD, Stopping
from models.classifier import Plain
from models.wide_resnet import WideResNet

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
IMAGES = 2048 if GPU else 48
ROUNDS = int(os.environ.get("REPEAT", "1")) * 3
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wrn() -> Subjects:
    return subjects("wrn-28-4", None, DEVICE)


@pytest.fixture(scope="module")
def resnet() -> Subjects:
    return subjects("resnet18", None, DEVICE)


def rows(benchmark, ways: list[Way], model, plain, images: int, passes: int, backward: bool) -> dict[str, Row]:
    """One race, timed by pytest-benchmark as a whole; its ratios are the benchmark's extra_info."""
    pixels, labels = images_of(images, DEVICE)
    limits = [limit(plain, DEVICE, precision, backward) for precision in PRECISIONS]

    def run() -> list[Row]:
        return race(ways, limits, pixels, labels, ROUNDS, passes, model, DEVICE)

    found = benchmark.pedantic(run, rounds=1, iterations=1)
    for row in found:
        print(f"{row.way}: {row.rate:.1f} images/s {row.faster} share {row.share} accuracy {row.accuracy} {row.note}")
        benchmark.extra_info[row.way] = row.faster | {"share": row.share, "of_best": row.share_of_best}
    return {row.way: row for row in found}


def test_pgd_of_a_wide_resnet(benchmark, wrn):
    ways = pgd(PGD(), wrn.plain, DEVICE) + rivals(PGD(), wrn.plain, DEVICE)
    found = rows(benchmark, ways, wrn.plain, wrn.plain, IMAGES, 10, True)
    for library in ("torchattacks", "foolbox"):
        assert found["bench float32"].faster[library] > 1.05
        assert found["bench bfloat16"].faster[library] > (4 if GPU else 1.5)
    assert found["bench float32"].share > 0.85


def test_early_stop_of_an_undefended_network(benchmark, resnet):
    early = PGD(early_stop=True)
    ways = pgd(PGD(), resnet.plain, DEVICE) + pgd(early, resnet.plain, DEVICE) + rivals(PGD(), resnet.plain, DEVICE)
    found = rows(benchmark, ways, resnet.plain, resnet.plain, 2 * IMAGES, 10, True)
    assert not any(row.differs for row in found.values())
    for library in ("torchattacks", "foolbox"):
        assert min(found[f"bench {precision}, early stop"].faster[library] for precision in PRECISIONS) > 5


def test_eot_pgd_of_colored_noise(benchmark, wrn):
    attack = PGD(eot=2, steps=5)
    ways = pgd(attack, wrn.noisy, DEVICE) + rivals(attack, wrn.noisy, DEVICE)
    found = rows(benchmark, ways, wrn.noisy, wrn.plain, IMAGES // 2, 10, True)
    assert found["bench bfloat16"].faster["torchattacks"] > 1.5


def test_adaptive_votes(benchmark, wrn):
    fixed, adaptive = Stopping(), Stopping(kind="adaptive")
    ways = [judged(wrn.noisy, DEVICE, 128, rule, "bfloat16", f"bench {rule.kind}") for rule in (fixed, adaptive)]
    ways.append(looped(wrn.noisy, DEVICE, 128))
    found = rows(benchmark, ways, wrn.noisy, wrn.plain, IMAGES // 2, 128, False)
    assert found["bench adaptive"].faster["eager PyTorch"] > found["bench fixed"].faster["eager PyTorch"] > 1


SUITE = """
[protocol]
shard = 256
[datasets.test]
stop = 256
[weights.wrn]
kind = "python"
name = "network.py:net"
[models.wrn]
weights = "wrn"
[attacks.pgd10]
kind = "pgd"
[tables.table]
rows = ["wrn"]
columns = ["clean", "pgd10"]
"""
NETWORK = """
import torch
from models.wide_resnet import WideResNet

def net():
    return WideResNet(28, 4, generator=torch.Generator().manual_seed(0))
"""


@pytest.mark.skipif(GPU, reason="a share of a CPU's hundred seconds")
def test_the_harness_costs_little_beside_the_passes(tmp_path):
    """`bench run` of clean and PGD-10 on 256 images, start-up and all, against the passes alone."""
    (tmp_path / "network.py").write_text(NETWORK)
    (tmp_path / "suite.toml").write_text(SUITE)
    model = Plain(WideResNet(28, 4, generator=torch.Generator().manual_seed(0)), 10).eval().requires_grad_(False)
    laid_out(model)
    pixels, labels = images_of(256, DEVICE)
    count = -(-256 // suited(model, DEVICE, "float32").microbatch)

    def passes() -> None:
        for image, label in zip(torch.tensor_split(pixels, count), torch.tensor_split(labels, count), strict=True):
            now = image + torch.empty_like(image).uniform_(-8 / 255, 8 / 255)
            for _ in range(10):
                leaf = now.clamp(0, 1).requires_grad_(True)
                (slope,) = torch.autograd.grad(functional.cross_entropy(model.net(leaf), label, reduction="sum"), leaf)
                now = image + (leaf.detach() + 2 / 255 * slope.sign() - image).clamp(-8 / 255, 8 / 255)
            with torch.no_grad():  # clean; what the attack believes; what it is judged by
                for seen in (image, now, now):
                    model.net(seen)

    spent = []
    for turn in range(int(os.environ.get("REPEAT", "1"))):
        command = [sys.executable, "-m", "bench", "run", str(tmp_path / "suite.toml"), "--root", str(tmp_path), "-q"]
        if turn:
            command.append("--fresh")
        begun = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True)
        middle = time.perf_counter()
        passes()
        spent.append((middle - begun, time.perf_counter() - middle))
    overhead = statistics.median(run / bare - 1 for run, bare in spent)
    print(f"bench run and the bare passes: {spent}; overhead {100 * overhead:.1f} %")
    assert overhead < 0.05


def test_growth_is_linear(wrn):
    for name, (x, seconds) in growth(DEVICE, wrn, (8, 16, 32), (1, 2, 4), (4, 8, 16), rounds=1).items():
        assert 0.7 < slope(x, seconds) < 1.3, name

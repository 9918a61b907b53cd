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
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from bench.lab.compute.memory import keep_memory
from bench.lab.compute.passes import laid_out
from bench.lab.craft import craft
from bench.lab.judge import Judged, judge
from bench.lab.speed.contestants import Way, judged, looped, pgd, precisions, rivals, suited
from bench.lab.speed.measure import images_of
from bench.lab.speed.race import Row, clock, limit, race
from bench.lab.speed.scaling import growth, slope
from bench.lab.speed.subjects import Subjects, subjects
from bench.lab.streams import Streams
from bench.models.classifier import Plain
from bench.models.smoothing import Smoothed
from bench.models.wide_resnet import WideResNet
from bench.recipes import PGD, Stopping
from bench.report.draw import files
from bench.report.speed import drawn

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
PRECISIONS = precisions(DEVICE)
FASTEST = PRECISIONS[-1]
IMAGES = 2048 if GPU else 48
ROUNDS = int(os.environ.get("REPEAT", "1")) * 3
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def memory() -> None:
    keep_memory(DEVICE)  # as a run does; the other libraries have it too


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
        return race(ways, limits, pixels, labels, ROUNDS, passes, model=model, device=DEVICE)

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
        assert FASTEST == "float32" or found["bench bfloat16"].faster[library] > (4 if GPU else 1.5)
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
    assert found[f"bench {FASTEST}"].faster["torchattacks"] > (1.5 if FASTEST == "bfloat16" else 0.9)


def test_adaptive_votes(benchmark, wrn):
    fixed, adaptive = Stopping(), Stopping(kind="adaptive")
    ways = [judged(wrn.noisy, DEVICE, 128, rule, FASTEST, f"bench {rule.kind}") for rule in (fixed, adaptive)]
    ways.append(looped(wrn.noisy, DEVICE, 128))
    found = rows(benchmark, ways, wrn.noisy, wrn.plain, IMAGES // 2, 128, False)
    assert found["bench adaptive"].faster["eager PyTorch"] > found["bench fixed"].faster["eager PyTorch"] > 1


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("images", [1, 4])
def test_draws_of_input_noise_share_passes(wrn, images, precision):
    """A fixed vote and PGD with EoT of few images, against the same with each draw in a pass of its own."""
    model = Smoothed(wrn.plain, 0.1)
    pixels, labels = images_of(images, DEVICE)
    nothing = np.zeros(images, np.float32), np.zeros(images, np.int8)
    shard = Judged(pixels, labels, np.arange(images), *nothing)
    works = {
        "vote of 128 draws": lambda compute: judge(model, shard, 128, Stopping(), Streams(0, 0, DEVICE), compute),
        "PGD-4, EoT 8": lambda compute: craft(
            PGD(steps=4, eot=8), model, pixels, labels, Streams(0, 0, DEVICE), compute
        ),
    }
    for name, work in works.items():
        ratios = []
        for _ in range(ROUNDS):
            joint, single = (suited(model, DEVICE, precision) for _ in range(2))
            single.joining = False
            ratios.append(clock(lambda: work(single), DEVICE) / clock(lambda: work(joint), DEVICE))  # noqa: B023
        print(f"{name}, {images} images, {precision}: {statistics.median(ratios):.2f} times as fast")
        assert statistics.median(ratios) > 1


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
from bench.models.wide_resnet import WideResNet

def net():
    return WideResNet(28, 4, generator=torch.Generator().manual_seed(0))
"""


DRIVER = """
import atexit, sys, time
import bench.run.engines.start as start
from bench.__main__ import enter

inside, begin = [], start.begin

def timed(*words):
    lab = begin(*words)
    atexit.register(lambda: print(sum(inside)))
    from bench.lab.compute.passes import Compute
    passes = Compute._parts

    def measure(*words):
        begun = time.perf_counter()
        try:
            return passes(*words)
        finally:
            inside.append(time.perf_counter() - begun)

    Compute._parts = measure
    return lab

start.begin = timed
enter()
"""


SCRIPT = """
import sys, time
import numpy as np
import torch
from network import net

model = net().eval().requires_grad_(False).to(memory_format=torch.channels_last)
images = torch.from_numpy(np.load(sys.argv[1]))
begun = time.perf_counter()
model(images[:29])
print(time.perf_counter() - begun)
"""


@pytest.mark.skipif(GPU, reason="a share of a CPU's minute")
def test_the_harness_costs_little_beside_the_passes(tmp_path):
    """`bench run` of clean and PGD-10 on 256 images, start-up and all, against the passes alone, and against a script
    that imports torch, builds the network, has the images, and does them.

    Whole runs of a minute and bare loops of a minute differ by more than is looked for. So the time
    outside the passes is taken within one run, and the passes' own is compared in short turns.
    """
    for folder in (tmp_path, tmp_path / "warm"):
        folder.mkdir(exist_ok=True)
        (folder / "network.py").write_text(NETWORK)
        (folder / "suite.toml").write_text(SUITE)
    np.save(tmp_path / "images.npy", images_of(256, DEVICE)[0].numpy())

    def timed(program: str, *words: str) -> tuple[float, float]:
        """Seconds of the whole process, and of what it says were its passes."""
        begun = time.perf_counter()
        path = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
        said = subprocess.run(
            [sys.executable, "-c", program, *words],
            check=True,
            env=os.environ | path,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        return time.perf_counter() - begun, float(said)

    def bench(folder: Path, *words: str) -> tuple[float, float]:
        return timed(DRIVER, "run", str(folder / "suite.toml"), "--root", str(folder), "-q", *words)

    slower = statistics.median(turns_against_a_bare_loop(25))  # of nine, the median is off by 1 % at times
    alone, beside = [], []
    for turn in range(max(3, int(os.environ.get("REPEAT", "1")))):  # a median needs three
        if not os.environ.get("COLD"):  # how long torch's gigabyte is read from a disk is the disk's affair
            bench(tmp_path / "warm", "--images", "4", "--fresh")
        script, few = timed(SCRIPT, str(tmp_path / "images.npy"))
        run, inside = bench(tmp_path, *(["--fresh"] if turn else []))
        passes = inside / slower
        print(f"bench run {run:.2f} s, its passes {inside:.2f} s, around a script's passes {script - few:.2f} s")
        alone.append(run / passes - 1)
        beside.append(run / (passes + script - few) - 1)
    print(f"passes against a bare loop: {slower:.3f}")
    over, more = statistics.median(alone), statistics.median(beside)
    print(f"overhead against the passes {100 * over:.1f} %, against a script {100 * more:.1f} %")
    assert more < 0.05
    assert over < 0.05


def turns_against_a_bare_loop(rounds: int) -> list[float]:
    """How many times as long as a bare PGD, with nothing around it, the passes of ours take, by round."""
    model = Plain(WideResNet(28, 4, generator=torch.Generator().manual_seed(0)), 10).eval().requires_grad_(False)
    laid_out(model)
    pixels, labels = images_of(60, DEVICE)
    compute = suited(model, DEVICE, "float32")
    count = -(-len(pixels) // compute.microbatch)
    attack = PGD(steps=4)

    def bare() -> None:
        for image, label in zip(torch.tensor_split(pixels, count), torch.tensor_split(labels, count), strict=True):
            now = image + torch.empty_like(image).uniform_(-8 / 255, 8 / 255)
            for _ in range(attack.steps):
                leaf = now.clamp(0, 1).requires_grad_(True)
                (slope,) = torch.autograd.grad(functional.cross_entropy(model.net(leaf), label, reduction="sum"), leaf)
                now = image + (leaf.detach() + 2 / 255 * slope.sign() - image).clamp(-8 / 255, 8 / 255)
            with torch.no_grad():
                model.net(now)  # what the attack believes

    inside, passes = [], compute._parts

    def timed(*words: Any) -> Any:
        begun = time.perf_counter()
        found = passes(*words)
        inside.append(time.perf_counter() - begun)
        return found

    compute._parts = timed  # type: ignore[method-assign]
    ratios = []
    for turn in range(rounds + 1):
        alone = clock(bare, DEVICE) if turn % 2 else 0.0
        inside.clear()
        craft(attack, model, pixels, labels, Streams(0, 0, DEVICE), compute)
        ratios.append(sum(inside) / (alone or clock(bare, DEVICE)))
    return ratios[1:]


def test_growth_is_linear(wrn):
    for name, (x, seconds) in growth(DEVICE, wrn, (8, 16, 32), (1, 2, 4), (4, 8, 16), rounds=1).items():
        assert 0.7 < slope(x, seconds) < 1.3, name


def test_growth_is_drawn(tmp_path):
    """What docs/speed.md shows: DRAWN=docs REPEAT=1 python -m pytest tests/benchmarks/test_speed.py -s -k drawn"""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = subjects("wrn-10-1", None, DEVICE)
        curves = growth(DEVICE, model, widths=(1, 2, 3, 4), rounds=2)
    finally:
        torch.set_num_threads(threads)
    for name, (x, seconds) in curves.items():
        took = dict(zip(x, [round(one, 2) for one in seconds], strict=True))
        print(f"{name}: {took}, exponent {slope(x, seconds):.2f}")
    folder = Path(os.environ.get("DRAWN", tmp_path))
    svg, _ = files(lambda: drawn(curves))
    (folder / "speed-growth.svg").write_bytes(svg)

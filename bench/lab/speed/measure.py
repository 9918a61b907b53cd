"""How fast this machine does the same work by our code, by other libraries, and at its own limit."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.lab.compute.compiling import gigaflops
from bench.lab.compute.device import arithmetic_of, pick_device
from bench.lab.compute.memory import keep_memory
from bench.lab.images import load as data
from bench.lab.speed.contestants import Way, judged, looped, pgd, precisions, rivals, suited
from bench.lab.speed.race import Row, clock, limit, race
from bench.lab.speed.subjects import Note, Subjects, subjects
from bench.models.classifier import Classifier
from bench.recipes import PGD, Stopping


class Sizes(NamedTuple):
    """Images of each case, draws of the vote and of EoT, and rounds (the vote is taken in `vote_rounds`)."""

    clean: int = 256
    images: int = 256
    eot_images: int = 32
    eot: int = 4
    vote_images: int = 128
    draws: int = 512
    rounds: int = 3
    vote_rounds: int = 1


class Work(NamedTuple):
    """Passes of an image through the network that a case takes, and whether each goes back to the input."""

    passes: int
    backward: bool


class Case(NamedTuple):
    title: str
    images: int
    rows: tuple[Row, ...]


def speed(
    device: str = "auto",
    model: str = "wrn-28-4",
    root: Path = Path(),
    sizes: Sizes | None = None,
    note: Note = lambda message: None,
) -> dict[str, Any]:
    """The whole comparison as plain values, for JSON and for `text`.

    `model` is "wrn-DEPTH-WIDTH" (untrained: speeds mean something, accuracies do not), "resnet18"
    (the undefended network that pyautoattack ships) or a folder of trained weights. Without
    `sizes`, they are chosen so that all of it takes under two minutes. UserError for an unknown model or device.
    """
    place = pick_device(device)
    keep_memory(place)  # as a run does; the other libraries have it too
    return measure(subjects(model, root, place), place, sizes, note)


def measure(
    models: Subjects, device: torch.device, sizes: Sizes | None = None, note: Note = lambda message: None
) -> dict[str, Any]:
    """As `speed`, of models that are at hand."""
    begun, load = time.perf_counter(), os.getloadavg()[0]
    images, labels = images_of(4096 if device.type == "cuda" else 1024, device)
    limits = _limits(models.plain, device, images)
    sizes = sizes or adapted(limits["float32"][1], device)
    table = [run() for run in _cases(models, device, sizes, images, labels, note)]
    work = gigaflops(models.plain)
    peaks = {precision: _peak(device, precision) for precision in precisions(device)}
    return {
        "model": models.name,
        "trained": models.trained,
        "machine": _machine(device),
        "load": [round(load, 2), round(os.getloadavg()[0], 2)],
        "seconds": round(time.perf_counter() - begun, 1),
        "sizes": sizes._asdict(),
        "gigaflop_forward": round(work, 3),
        "arithmetic": {one: arithmetic_of(one, device, exact=False) for one in precisions(device)},
        "limits": {
            precision: {
                "forwards": round(limits[precision][0], 1),
                "gradients": round(limits[precision][1], 1),
                # a gradient to the input alone costs a second forward pass
                "share_of_peak": round(2 * work * limits[precision][1] / peaks[precision], 3),
                "peak_gigaflops": round(peaks[precision], 1),
            }
            for precision in precisions(device)
        },
        "cases": [case._asdict() | {"rows": [row._asdict() for row in case.rows]} for case in table],
    }


def adapted(gradients: float, device: torch.device, budget: float = 60.0) -> Sizes:
    """Sizes for about `budget` seconds on a machine that does so many float32 gradients a second; start, warming up and
    scoring take up to half a minute more."""
    if device.type == "cuda":
        return Sizes(4096, 4096, 1024, 8, 1024, 512, 3)
    draws, eot, rounds = 64, 2, 2

    def fit(share: float, cost: float) -> int:
        return int(max(4, min(1024, share * budget * gradients / cost // 4 * 4)))

    # cost: gradients an image, over all ways and rounds; a forward pass is half a gradient
    clean, attack = fit(0.1, 2 * rounds), fit(0.45, 4.5 * 10 * rounds)
    return Sizes(clean, attack, fit(0.2, 3.5 * 10 * eot), eot, fit(0.25, 2.3 * draws / 2), draws, rounds)


def _cases(
    models: Subjects,
    device: torch.device,
    sizes: Sizes,
    images: Tensor,
    labels: Tensor,
    note: Note,
) -> list[Callable[[], Case]]:
    plain, noisy = models.plain, models.noisy
    attack, fixed, adaptive = PGD(), Stopping(), Stopping(kind="adaptive")
    early = attack.model_copy(update={"early_stop": True})

    def case(title: str, model: Classifier, ways: list[Way], n: int, rounds: int, work: Work) -> Callable[[], Case]:
        def run() -> Case:
            note(f"{title}: {n} images, {len(ways)} ways, {rounds} rounds")
            limits = [limit(plain, device, precision, work.backward) for precision in precisions(device)]
            return Case(
                title,
                n,
                tuple(race(ways, limits, images[:n], labels[:n], rounds, work.passes, model=model, device=device)),
            )

        return run

    clean = [judged(plain, device, 1, fixed, precision, f"bench {precision}") for precision in precisions(device)]
    attacks = pgd(attack, plain, device) + (pgd(early, plain, device) if models.trained else [])
    cases = [
        case("clean evaluation", plain, [*clean, looped(plain, device, 1)], sizes.clean, sizes.rounds, Work(1, False)),
        case("PGD-10", plain, attacks + rivals(attack, plain, device), sizes.images, sizes.rounds, Work(10, True)),
    ]
    if noisy is None:
        return cases
    eot = attack.model_copy(update={"eot": sizes.eot})
    ways = pgd(eot, noisy, device) + rivals(eot, noisy, device)
    title = f"PGD-10, EoT {sizes.eot}, on colored noise"
    cases.append(case(title, noisy, ways, sizes.eot_images, sizes.vote_rounds, Work(10 * sizes.eot, True)))
    ways = [
        judged(noisy, device, sizes.draws, rule, precision, f"bench {precision}, {rule.kind}")
        for precision in precisions(device)
        for rule in (fixed, adaptive)
    ]
    ways.append(looped(noisy, device, sizes.draws))
    title = f"smoothed prediction, M = {sizes.draws}"
    cases.append(case(title, noisy, ways, sizes.vote_images, sizes.vote_rounds, Work(sizes.draws, False)))
    return cases


def _limits(model: Classifier, device: torch.device, images: Tensor) -> dict[str, tuple[float, float]]:
    """Forward passes and input gradients a second, by precision, of the network and nothing around it."""
    found = {}
    for precision in precisions(device):
        size = suited(model, device, precision).microbatch
        some = images[: size if device.type == "cpu" else 4 * size]
        rates = []
        for backward in (False, True):
            way = limit(model, device, precision, backward)
            way.run(some, some)
            took = [clock(partial(way.run, some, some), device) for _ in range(3)]
            rates.append(len(some) / min(took))
        found[precision] = (rates[0], rates[1])
    return found


def _peak(device: torch.device, precision: str) -> float:
    """Billions of floating-point operations a second of a large matrix product."""
    n = 8192 if device.type == "cuda" else 1024
    a = torch.ones(n, n, device=device, dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32)
    before = torch.backends.cuda.matmul.allow_tf32
    try:  # float32 convolutions of a GPU compute in TF32, and so does what they are held against
        torch.backends.cuda.matmul.allow_tf32 = device.type == "cuda"
        took = [clock(lambda: a @ a, device) for _ in range(6)]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * n**3 / min(took) / 1e9


def images_of(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The first n test images (n, 3, 32, 32) of the fixed shuffle and their labels (n,), on the device."""
    test = data.load()
    chosen = test.take(data.shuffle(len(test.images), 0)[:n])
    return data.as_tensor(chosen.images).to(device), torch.from_numpy(chosen.labels).to(device)


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file() and (match := re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.M)):
        name = match[1]
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"

"""One adversarial training step of ours against the textbook's, and a training killed ten times."""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.lab.compute.compiling import compiler
from bench.lab.train import Options
from bench.lab.train.compiled import compile_passes
from bench.lab.train.step import Stepper
from bench.lab.weights import build
from bench.models.classifier import Classifier
from bench.recipes import PGD, Network, Noise, Optimiser, Trained, Training

sys.path.insert(0, str(Path(__file__).parents[1]))
from trainings import EVERYTHING, SMALL, centres, kill_at, run, same_weights

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
# On a GPU the network, batch and attack of the paper; on a CPU those of the quick suite.
NETWORK, BATCH, STEPS, NEEDED = (Network(), 512, 10, 4.0) if GPU else (Network(depth=10, width=1), 128, 2, 1.3)
ROUNDS = 9


def textbook(model: Classifier, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Madry et al.'s step as it is usually written: eager, float32, one mode switch an attack."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    generator = torch.Generator(DEVICE).manual_seed(0)
    eps, size = 8 / 255, 2 / 255

    def step() -> None:
        model.eval()
        x = (images + torch.empty_like(images).uniform_(-eps, eps)).clamp(0, 1)
        for _ in range(STEPS):
            x = x.detach().requires_grad_(True)
            F.cross_entropy(model(x, generator), labels).backward()
            assert x.grad is not None
            x = images + (x + size * x.grad.sign() - images).clamp(-eps, eps)
            x = x.clamp(0, 1)
        model.train()
        optimiser.zero_grad()
        clean = F.cross_entropy(model(images, generator), labels)
        loss = 0.5 * clean + 0.5 * F.cross_entropy(model(x.detach(), generator), labels)
        loss.backward()
        optimiser.step()

    return step


@pytest.fixture
def threads() -> Iterator[int]:
    """As many threads as PyTorch would take; one where other work keeps the processors busy.

    Threads that wait for each other while others hold the processors measure the others.
    """
    before = torch.get_num_threads()
    busy = not GPU and os.getloadavg()[0] > before and os.getpriority(os.PRIO_PROCESS, 0) >= 0
    torch.set_num_threads(1 if busy else before)
    yield torch.get_num_threads()
    torch.set_num_threads(before)


def test_an_adversarial_training_step_is_faster_than_the_textbooks(threads: int) -> None:
    recipe = Trained(
        network=NETWORK,
        noise=Noise(),
        training=Training(
            batch=BATCH, optimiser=Optimiser(lr=0.01), attack=PGD(steps=STEPS), augment="flip", precision="bfloat16"
        ),
    )
    generator = torch.Generator(DEVICE).manual_seed(0)
    images = torch.rand(BATCH, 3, 32, 32, generator=generator, device=DEVICE)
    labels = torch.randint(10, (BATCH,), generator=generator, device=DEVICE)
    theirs = textbook(build.build(recipe).to(DEVICE).requires_grad_(True), images, labels)
    stepper = Stepper(recipe, build.build(recipe), None, 1000, DEVICE, "bfloat16", note=print)
    if GPU and compiler("cuda"):
        compile_passes(stepper, (3, 32, 32))
    ours_images = images.contiguous(memory_format=torch.channels_last)
    times: dict[str, list[float]] = {"ours": [], "textbook": []}
    steps: dict[str, Callable[[], object]] = {
        "ours": lambda: stepper(ours_images, labels, None, len(times["ours"])),
        "textbook": theirs,
    }
    for turn in range(ROUNDS + 3):
        for name, step in steps.items():
            begun = time.perf_counter()
            for _ in range(5 if GPU else 1):
                step()
            if GPU:
                torch.cuda.synchronize()
            if turn >= 3:
                times[name].append((time.perf_counter() - begun) / (5 if GPU else 1))
    ours, textbook_s = (BATCH / statistics.median(times[name]) for name in ("ours", "textbook"))
    where = torch.cuda.get_device_name() if GPU else f"{threads} CPU threads"
    print(f"\nPGD-{STEPS} training of a WRN-{NETWORK.depth}-{NETWORK.width} with CNI, batch {BATCH}, {where}:")
    print(f"ours {ours:.0f} images/s, textbook eager float32 {textbook_s:.0f} images/s: {ours / textbook_s:.2f} times")
    assert ours / textbook_s >= NEEDED


def test_ten_kills_leave_the_same_weights(tmp_path: Path) -> None:
    photos = centres()
    recipe = Trained(network=SMALL, noise=Noise(), training=EVERYTHING.model_copy(update={"epochs": 10}))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run(recipe, photos, tmp_path / "whole")
        dice = random.Random(11)
        kills = 0
        while kills < 10:
            assert kill_at(recipe, photos, tmp_path / "cut", 1, dice.uniform(0, 0.25)), "it ended before ten kills"
            kills += 1
        run(recipe, photos, tmp_path / "cut")
    finally:
        torch.set_num_threads(threads)
    assert same_weights(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.skipif(not compiler(DEVICE.type), reason="needs a C compiler")
def test_a_compiled_training_is_two_graphs_and_the_same_losses(tmp_path: Path) -> None:
    """One graph for the model that learns, one for the one attacked: fresh noise compiles nothing anew."""
    from torch._dynamo.utils import counters

    training = EVERYTHING.model_copy(update={"ema": None, "sigma": Fraction(0)})
    recipe = Trained(network=SMALL, noise=Noise(), training=training)
    counters.clear()
    compiled = run(recipe, centres(), tmp_path / "compiled", options=Options(compile="always"))
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]
    eager = run(recipe, centres(), tmp_path / "eager", options=Options(compile="never"))
    assert compiled["loss"] == pytest.approx(eager["loss"], rel=0.02) and compiled["compiled"]

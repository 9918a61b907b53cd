"""Trainings of seconds on real photographs, killed where a test wants, and their weights compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.lab.images.load import Images, load
from bench.lab.train import train
from bench.lab.weights import files
from bench.recipes import PGD, Distilled, Network, Optimiser, Schedule, Trained, Training, summary

CPU = torch.device("cpu")


SMALL = Network(depth=10, width=1)


TRAINING = Training(
    epochs=2, batch=16, optimiser=Optimiser(kind="adamw", lr=2e-3, clip=1.0), schedule=Schedule(kind="onecycle"),
    attack=PGD(steps=1, step="8/255"), validation=16, validation_attack=PGD(steps=1), seed=5,
)  # fmt: skip


def centres(n: int = 96) -> Images:
    """The middle 16 x 16 pixels of the first test images: photographs still, at a quarter of the work."""
    found = load("cifar10", "test").take(slice(0, n))
    return found._replace(images=np.ascontiguousarray(found.images[:, 8:24, 8:24]))


def run(recipe: Trained | Distilled, photos: Images, where: Path, **others: Any) -> dict[str, Any]:
    (where / "out").mkdir(parents=True, exist_ok=True)
    return train(
        recipe, photos.images, photos.labels, device=CPU, state_dir=where / "state", out=where / "out", **others
    )  # fmt: skip


def same_weights(one: Path, other: Path) -> bool:
    a, b = files.load(one / "out"), files.load(other / "out")
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


EVERYTHING = Training(
    epochs=2, batch=16, optimiser=Optimiser(kind="sgd", lr=0.05, clip=1.0), schedule=Schedule(kind="cosine", warmup=1),
    attack=PGD(steps=1, step="8/255"), validation=16, validation_attack=PGD(steps=1), ema=0.9, sigma="1/20", seed=5,
)  # fmt: skip


CHILD = """
import json, sys, numpy, torch
from pathlib import Path
from bench.lab.train import Options, train
from bench.recipes import parse
torch.set_num_threads(1)
where = Path(sys.argv[1])
photos = numpy.load(where / "photos.npz")
tell = lambda done, total, text: print(done, flush=True)
train(parse(json.loads(sys.argv[2])), photos["images"], photos["labels"], device=torch.device("cpu"),
      state_dir=where / "state", out=where / "out", options=Options(save_every_seconds=0.0, progress=tell))
"""


def kill_at(recipe: Trained, photos: Images, where: Path, lines: int, delay: float) -> bool:
    """Train in a process of its own, SIGKILL it `delay` seconds after its n-th report; whether it was still alive."""
    where.joinpath("out").mkdir(parents=True, exist_ok=True)
    np.savez(where / "photos.npz", images=photos.images, labels=photos.labels)
    command = [sys.executable, "-c", CHILD, str(where), json.dumps(summary(recipe))]
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as child:
        assert child.stdout is not None
        for _ in range(lines):
            if not child.stdout.readline():
                break
        try:
            child.wait(delay)
        except subprocess.TimeoutExpired:
            child.kill()
        return child.wait() != 0

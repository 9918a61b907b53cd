"""What a finished training leaves: weights, card and curves, and how they came about."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from bench.lab.compute.device import arithmetic_of
from bench.lab.train import curves
from bench.lab.train.step import Stepper
from bench.lab.weights import files
from bench.recipes import summary


def write(
    out: Path, stepper: Stepper, rows: list[dict[str, Any]], seconds: float, inputs: str, *, compiled: bool, exact: bool
) -> dict[str, Any]:
    """Fill `out` with safetensors shards, `model.toml` and `curves.parquet`; returns the provenance.

    Passes count one image once, in training, under its attack and by the teacher; validation is left out.
    """
    recipe, compute = stepper.recipe, stepper.compute
    training = recipe.training
    steps = training.epochs * stepper.steps
    device = compute.device
    provenance: dict[str, Any] = {
        "seconds": round(seconds, 3),
        "images_per_second": round(steps * training.batch / max(seconds, 1e-9), 2),
        "forward_passes": compute.forwards + stepper.taught.forwards,
        "backward_passes": compute.backwards,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "precision": arithmetic_of(compute.precision, device, exact),
        "compiled": compiled,
        "microbatch": compute.microbatch,
        "epochs": training.epochs,
        "steps": steps,
        **{name: rows[-1][name] for name in ("loss", "clean", "attacked")},
    }
    card = {
        "key": recipe.key,
        "seed": training.seed,
        "inputs": inputs,
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "training": provenance,
        "recipe": summary(recipe),
    }
    kept = stepper.core if stepper.averaged is None else stepper.averaged
    # Input noise has no weights of its own: what it wraps is what is kept.
    state = {name.removeprefix("base."): tensor for name, tensor in kept.state_dict().items()}
    files.save(out, state, training.storage, training.noise_storage, card)
    curves.write(out / curves.FILE, rows)
    return provenance

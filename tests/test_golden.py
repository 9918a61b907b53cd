"""Keys that never change: published weights and records hang on them.

`golden/keys.json` holds the key of every recipe of the shipped suites at every scale, `golden/logits.npz` what the
published weights answer to 16 images. Run as a script, this file writes what is missing in both; a key that is there
is only replaced for the types in `MOVING`, whose `rev` may be raised on purpose.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.lab.images.load import as_tensor, shuffle
from bench.lab.images.load import load as images_of
from bench.lab.weights.build import build
from bench.lab.weights.files import load as state_of
from bench.recipes import Distilled, Examples, Outcomes, Recipe, Trained, inputs
from bench.store.records import Store
from bench.suite.reader import load, scales

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
SUITES = ("paper", "stress", "peers")
MOVING = {Examples, Outcomes}


def recipes(suite: str, scale: str) -> dict[str, Recipe]:
    """Every recipe of a suite at a scale, named by where it stands."""
    read = load(ROOT / "suites" / f"{suite}.toml", scale)
    found: dict[str, Recipe] = {}
    found |= {f"datasets.{name}": data for name, data in read.datasets.items()}
    found |= {f"attacks.{name}": attack for name, attack in read.attacks.items()}
    found |= {f"weights.{name}": weights for name, weights in read.weights.items()}
    found |= {f"models.{name}": entry.model for name, entry in read.models.items()}
    for cell in read.cells():
        name = f"tables.{cell.table}.{cell.row}.{cell.column}"
        found |= {name: cell.outcomes, f"{name}.examples": cell.outcomes.examples}
    for name, weights in read.weights.items():
        if isinstance(weights, Distilled):
            found |= {f"weights.{name}.targets": work for work in inputs(weights) if isinstance(work, Outcomes)}
    return found


def everything() -> dict[str, Recipe]:
    """Every recipe of the shipped suites, named "suite scale place"."""
    at = [(suite, scale) for suite in SUITES for scale in scales(ROOT / "suites" / f"{suite}.toml")]
    return {f"{suite} {scale or '-'} {name}": it for suite, scale in at for name, it in recipes(suite, scale).items()}


def keys() -> dict[str, str]:
    return {name: recipe.key for name, recipe in everything().items()}


def test_no_key_changed():
    kept = json.loads((GOLDEN / "keys.json").read_text())
    now = keys()
    assert {name: now.get(name) for name in kept} == kept, "a key that changes orphans what was recorded under it"
    assert now.keys() == kept.keys(), "new recipes: run this file as a script, look at the change, commit it"


PUBLISHED = sorted(path.parent for path in (ROOT / "models" / "weights").glob("*/manifest.json"))


def logits(folder: Path) -> np.ndarray:
    """Logits (16, classes) float32 of published weights, under the first draw of a fixed generator."""
    key = json.loads((folder / "manifest.json").read_text())["key"]
    weights = next(it for it in everything().values() if it.key == key)
    assert isinstance(weights, Trained | Distilled)
    record = Store(ROOT).find(weights, thorough=True)
    assert record is not None
    model = build(weights, state_of(record.path)).eval()
    images = images_of(split="test").images[shuffle(10_000, 0)[:16]]
    with torch.no_grad():
        return model(as_tensor(images), torch.Generator().manual_seed(0)).float().numpy()


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_published_weights_answer_as_they_did(folder):
    with np.load(GOLDEN / "logits.npz") as kept:
        assert np.abs(kept[folder.name] - logits(folder)).max() < 1e-3


if __name__ == "__main__":
    place = GOLDEN / "keys.json"
    kept = json.loads(place.read_text()) if place.exists() else {}
    known = everything()
    changed = [name for name, key in kept.items() if name in known and known[name].key != key]
    moved = [name for name in changed if type(known[name]) not in MOVING]
    assert not moved, f"frozen keys would change: {moved}"
    gone = sorted(kept.keys() - known.keys())
    assert not gone, f"the suites no longer ask for {gone}: take these lines out of {place.name} by hand, on purpose"
    place.write_text(json.dumps({name: recipe.key for name, recipe in known.items()}, indent=0) + "\n")
    with np.load(GOLDEN / "logits.npz") as file:
        answers = dict(file)  # what is recorded stays: only weights that are new are asked
    new = {folder.name: logits(folder) for folder in PUBLISHED if folder.name not in answers}
    np.savez(GOLDEN / "logits.npz", **answers | new)

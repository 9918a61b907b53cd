"""One place says which device a run uses."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.store import machine

ROOT = Path(__file__).parents[2]
DOOR = "import bench.__main__ as door; door.main = lambda: __import__('torch'); door.enter()"
WORKER = "from bench.run.engines.start import *; begin(Settings(Store('.').root), Hooks())"


@pytest.mark.parametrize(
    ("device", "gpus", "kind"),
    [("auto", 1, "cuda"), ("auto", 0, "cpu"), ("cpu", 1, "cpu"), ("cuda", 1, "cuda"), ("cuda:1", 2, "cuda")],
)
def test_the_device_that_was_asked_for_is_the_one_that_is_booked(device, gpus, kind, monkeypatch):
    """With --device cpu on a machine with a GPU, rates were booked, and learnt, as the GPU's."""
    monkeypatch.setattr(machine, "gpus", lambda: gpus)
    assert machine.kind(device) == kind


def test_a_cpu_run_names_the_processor(monkeypatch):
    monkeypatch.setattr(machine, "gpus", lambda: 1)
    assert machine.here("cpu") == machine.processor()


@pytest.mark.parametrize(
    ("set_already", "loaded", "spins"),
    [
        ({}, (), str(machine.SPINS)),
        ({"OMP_WAIT_POLICY": "active"}, (), None),
        ({"GOMP_SPINCOUNT": "7"}, (), "7"),
        ({}, ("torch",), None),
    ],
)
def test_threads_wait_briefly_unless_the_user_has_said_otherwise(set_already, loaded, spins, monkeypatch):
    environment = dict(set_already)
    monkeypatch.setattr(machine, "os", SimpleNamespace(environ=environment))
    monkeypatch.setattr(machine, "sys", SimpleNamespace(modules=dict.fromkeys(loaded)))
    machine.share_cores()
    assert environment == set_already | ({} if spins is None else {"GOMP_SPINCOUNT": spins})


@pytest.mark.skipif(sys.platform != "linux", reason="another OpenMP than GNU's")
@pytest.mark.parametrize(
    ("code", "set_already", "spins"),
    [
        (DOOR, {}, machine.SPINS),
        (WORKER, {}, machine.SPINS),
        (DOOR, {"GOMP_SPINCOUNT": "7"}, 7),
    ],
    ids=["the command line", "a worker", "as the user says"],
)
def test_openmp_hears_it(code, set_already, spins, tmp_path):
    """What torch's OpenMP says of itself when the command line loads it; two side by side held each other up."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    environment |= {"OMP_DISPLAY_ENV": "verbose", "PYTHONPATH": str(ROOT)} | set_already
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stderr
    assert f"GOMP_SPINCOUNT = '{spins}'" in said

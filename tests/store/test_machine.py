"""One place says which device a run uses."""

import pytest

from bench.store import machine


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

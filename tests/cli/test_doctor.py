"""The doctor on this machine, and on machines that lack something."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli import doctor
from bench.cli.doctor import Finding, healthy, report, words


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    return report(tmp_path_factory.mktemp("root"))


def test_what_the_tests_need_is_there(here: list[Finding]) -> None:
    """These tests run on torch, the shipped data and the libraries, so the doctor must find them."""
    found = {finding.what: finding for finding in here}
    assert importlib.metadata.version("torch") in found["torch"].found
    assert found["CIFAR-10 test"].verdict == "ok" and "10,000 images" in found["CIFAR-10 test"].found
    for name in ("torchattacks", "pyautoattack", "timm"):
        assert importlib.metadata.version(name) in found[name].found
    assert not any("could not be looked at" in finding.found for finding in here)
    assert all(finding.fix for finding in here if finding.verdict == "broken")


def test_it_is_said_in_lines(here: list[Finding]) -> None:
    text = words([Finding("GPU", "none", "note"), Finding("torch", "missing", "broken", "pip install torch")])
    assert text.splitlines() == [
        "note    GPU    none",
        "BROKEN  torch  missing",
        "               fix: pip install torch",
    ]
    assert len(words(here).splitlines()) >= len(here)
    assert healthy([Finding("a", "b", "note")]) and not healthy([Finding("a", "b", "broken")])


def test_a_missing_library_is_broken_and_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "torchattacks" else real(name))
    found = {finding.what: finding for finding in report(tmp_path)}
    assert found["torchattacks"].verdict == "note" and found["torchattacks"].fix == "pip install 'freshdraws[peers]'"


def test_no_compiler_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = {finding.what: finding for finding in report(tmp_path)}
    assert found["torch.compile"].verdict == "note" and "C++ compiler" in found["torch.compile"].found


def test_training_data_that_is_not_cifar_is_broken(tmp_path: Path) -> None:
    (tmp_path / "data" / "cifar-10-batches-py").mkdir(parents=True)
    (tmp_path / "data" / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"nothing")
    found = {finding.what: finding for finding in report(tmp_path, tmp_path / "data")}
    assert found["CIFAR-10 train"].verdict == "broken" and str(tmp_path / "data") in found["CIFAR-10 train"].found


def test_a_check_that_fails_is_a_finding_and_not_the_end(tmp_path: Path) -> None:
    found = report(tmp_path / "no-such-folder")
    broken = [finding for finding in found if finding.what == "root"]
    assert broken and broken[0].verdict == "broken" and len(found) > 10


def test_a_fetched_model_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "models" / "cifar10" / "Linf"
    place.mkdir(parents=True)
    (place / "Carmon2019Unlabeled.pt").write_bytes(b"")
    monkeypatch.setenv("BENCH_MODELS", str(tmp_path / "models"))
    assert "Carmon2019Unlabeled" in next(doctor._models(tmp_path)).found


def test_it_loads_without_torch() -> None:
    code = "import sys, bench.cli.doctor; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])

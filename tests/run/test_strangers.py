"""A user's own code through whole runs: what changes is noticed, what is refused stops nothing else."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from foreign import nets

from bench.cli import app
from bench.lab.examine.of_suite import bench_of
from bench.run.session import open_suite
from bench.store.tasks import Settings
from bench.suite.reader import load
from bench.votes.votes import from_parquet

SUITE = """
[datasets.test]
split = "excerpt"
stop = 12
[attacks.pgd]
kind = "pgd"
steps = 1
[attacks.square]
kind = "square"
queries = 2
draws = 1
[attacks.own]
kind = "python"
name = "attack.py:Own"
[weights.w]
kind = "python"
name = "nets.py:{name}"
{more}
[models.mine]
weights = "w"
draws = 4
[tables.t]
rows = ["mine"]
columns = {columns}
"""
ATTACK = """
class Own:
    def __call__(self, model, images, labels, eps):
        return (images + eps).clamp(0, 1)
"""

Bench = Callable[..., tuple[int, str]]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    """Runs a verb on the suite in this process; its exit code, and what it said."""

    def run(*words: str) -> tuple[int, str]:
        verb, *rest = words
        command = ["bench", verb, str(tmp_path / "suites" / "s.toml"), *rest, "--root", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", command)
        monkeypatch.setenv("COLUMNS", "400")
        monkeypatch.delenv("BENCH_DATA", raising=False)
        with pytest.raises(SystemExit) as stopped:
            app.main()
        said = "\n".join(capsys.readouterr())
        assert "Traceback" not in said
        return int(stopped.value.code or 0), said

    return run


def suite(root: Path, name: str, columns: str = '["clean"]', more: str = "", code: str = "") -> Path:
    """The suite, the networks and the attack beside it, in a folder below the run's."""
    nets(root / "suites", code)
    (root / "suites" / "attack.py").write_text(ATTACK)
    path = root / "suites" / "s.toml"
    path.write_text(SUITE.format(name=name, columns=columns, more=more))
    return path


def answers(root: Path) -> list[list[int]]:
    """The class that each recorded cell gives each image, in the suite's order."""
    found = []
    for cell in load(root / "suites" / "s.toml", root=root).cells():
        key = cell.outcomes.key
        votes = from_parquet((root / "results" / "records" / key[:2] / key / "votes.parquet").read_bytes())
        found.append([int(one) for one in votes.counts.argmax(1)])
    return found


def test_a_gradient_attack_is_refused_and_the_other_columns_are_judged(tmp_path: Path, bench: Bench) -> None:
    suite(tmp_path, "cut", '["pgd", "clean", "square", "own"]')
    code, said = bench("run")
    assert code == 2 and "does not depend differentiably" in said and "Square" in said
    table = (tmp_path / "results" / "s" / "tables.md").read_text()
    (row,) = [line for line in table.splitlines() if line.startswith("| mine")]
    assert len(re.findall(r"\d+\.\d+ \[", row)) == 3 and "—" in row
    assert not list((tmp_path / ".bench" / "parts").glob("*")), "nothing half-written"


def test_what_is_refused_stops_no_other_model(tmp_path: Path, bench: Bench) -> None:
    path = suite(tmp_path, "leaves")
    more = '[weights.v]\nkind = "python"\nname = "nets.py:plain"\n[models.other]\nweights = "v"\n'
    path.write_text(path.read_text().replace('rows = ["mine"]', 'rows = ["mine", "other"]') + more)
    code, said = bench("run")
    assert code == 2 and "your code called sys.exit(3)" in said
    assert "| other" in (tmp_path / "results" / "s" / "tables.md").read_text()
    assert len(list((tmp_path / "results" / "records").glob("*/*/votes.parquet"))) == 1


def test_another_checkpoint_under_the_same_code_makes_the_record_stale_by_name(tmp_path: Path, bench: Bench) -> None:
    code = "\ndef loads():\n    net = Small()\n    net.last.bias.data = torch.load('BIAS')\n    return net\n"
    path = suite(tmp_path, "loads", code=code.replace("BIAS", str(tmp_path / "suites" / "bias.pt")))
    more = '[weights.v]\nkind = "python"\nname = "nets.py:plain"\n[models.other]\nweights = "v"\n'
    more += '[tables.transfer]\nrows = [["mine", "other"]]\ncolumns = ["pgd"]\n'
    path.write_text(path.read_text() + more)
    torch.save(1e4 * torch.eye(10)[0], tmp_path / "suites" / "bias.pt")
    assert bench("run")[0] == 0
    assert "nothing was missing" in bench("run")[1]
    before = answers(tmp_path)
    torch.save(1e4 * torch.eye(10)[1], tmp_path / "suites" / "bias.pt")
    assert "bias.pt, which w reads, has changed since" in bench("plan")[1]
    status, said = bench("run")
    assert status == 2 and "is stale: it was made from w (" in said and "--fresh" in said
    assert bench("verify", "--sample", "0")[0] != 0, "nor does the audit call it consistent"
    assert bench("plan")[1].count("stale: ") == 2, "also the examples that were crafted on it"
    assert bench("run", "--fresh")[0] == 0
    assert answers(tmp_path) != before
    torch.save(1e4 * torch.eye(10)[0], tmp_path / "suites" / "bias.pt")
    assert bench("run")[0] == 2, "the former one is as foreign to the new record"


def test_a_number_from_the_environment_makes_the_record_stale(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in no file and in no tensor: an attribute of the network, or what a function of the user's closes over."""
    code = """
import os
def loads():
    net, heat = Small(), float(os.environ["HEAT"])
    net.heat = heat
    return net
def closes():
    net, heat = Small().eval(), float(os.environ["HEAT"])
    return lambda x: net(x) * heat
"""
    for name in ("loads", "closes"):
        suite(tmp_path, name, code=code)
        monkeypatch.setenv("HEAT", "1")
        assert bench("run")[0] == 0 and "nothing was missing" in bench("run")[1]
        monkeypatch.setenv("HEAT", "2")
        status, said = bench("run")
        assert status == 2 and "stale" in said


def test_code_that_is_loaded_past_sys_modules_makes_the_record_stale_by_name(tmp_path: Path, bench: Bench) -> None:
    """Only that its file is read tells of it, and Python reads modules by a call of its own."""
    code = """
import importlib.util, os
def loads():
    spec = importlib.util.spec_from_file_location("apart", os.path.join(os.path.dirname(__file__), "apart.py"))
    apart = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(apart)
    net = Small()
    net.register_forward_hook(lambda net, inputs, out: apart.change(out))
    return net
"""
    suite(tmp_path, "loads", code=code)
    apart = tmp_path / "suites" / "apart.py"
    apart.write_text("def change(out): return out\n")
    assert bench("run")[0] == 0 and "nothing was missing" in bench("run")[1]
    apart.write_text("def change(out): return -out\n")
    assert "apart.py, which w reads, has changed since" in bench("plan")[1]
    status, said = bench("run")
    assert status == 2 and "stale" in said


def test_an_attack_declares_the_files_that_it_reads(tmp_path: Path, bench: Bench) -> None:
    path = suite(tmp_path, "plain", '["clean", "own"]')
    attack, place = path.parent / "attack.py", path.parent / "share.txt"
    place.write_text("0.5")
    early = f"share = float(open({str(place)!r}).read())\n{ATTACK}"
    late = ATTACK.replace("        return", f"        float(open({str(place)!r}).read())\n        return")
    for text in (early, late):
        attack.write_text(text)
        status, said = bench("run")
        assert status == 2 and 'files = ["share.txt"]' in said
    path.write_text(path.read_text().replace('name = "attack.py:Own"', 'name = "attack.py:Own"\nfiles = ["share.txt"]'))
    assert bench("run")[0] == 0


def test_declared_files_are_part_of_the_key(tmp_path: Path, bench: Bench) -> None:
    code = "\ndef loads():\n    net = Small()\n    net.last.bias.data = torch.load('BIAS')\n    return net\n"
    place = tmp_path / "suites" / "bias.pt"
    suite(tmp_path, "loads", more='files = ["bias.pt"]', code=code.replace("BIAS", str(place)))
    assert "there is no" in bench("run")[1]
    found = []
    for right in (0, 1):
        torch.save(1e4 * torch.eye(10)[right], place)
        assert bench("run")[0] == 0
        found.append(answers(tmp_path))
    assert found[0] != found[1]
    torch.save(1e4 * torch.eye(10)[0], place)
    assert bench("run")[0] == 0 and answers(tmp_path) == found[0], "the first record is there still"


def test_an_edited_file_is_another_record_and_that_is_said(tmp_path: Path, bench: Bench) -> None:
    path = suite(tmp_path, "plain", '["clean", "own"]')
    assert bench("run")[0] == 0
    first = answers(tmp_path)
    attack = path.parent / "attack.py"
    attack.write_text(ATTACK.replace("(images + eps).clamp(0, 1)", "images"))
    said = bench("plan")[1]
    assert "attack.py:Own has been edited" in said and "nets.py:plain has" not in said
    assert "runs your code: attack.py:Own\nruns your code: nets.py:plain" in said
    code, said = bench("run")
    assert code == 0 and "attack.py:Own has been edited" in said
    second = answers(tmp_path)
    assert second[1] == second[0] == first[0], "an attack that does nothing leaves the clean accuracy"
    nets(path.parent, "# a comment\n")
    assert "nets.py:plain has been edited" in bench("plan")[1]
    assert "2 records made" not in bench("run")[1] and answers(tmp_path) == second


def test_undeclared_noise_is_refused_before_anything_is_judged(tmp_path: Path, bench: Bench) -> None:
    suite(tmp_path, "torch_noise", '["pgd", "clean"]')
    code, said = bench("run")
    assert code == 2 and "stochastic = true" in said and "nets.py:torch_noise" in said
    assert not (tmp_path / "results" / "records").exists()
    suite(tmp_path, "torch_noise", '["pgd", "clean"]', more="stochastic = true")
    assert bench("run")[0] == 0


def test_noise_that_only_attacked_images_meet_is_refused_too(tmp_path: Path, bench: Bench) -> None:
    code = """
def picky():
    def noise(x):
        odd = ((x * 255 - (x * 255).round()).abs().amax((1, 2, 3), keepdim=True) > 1e-2).float()
        return x + odd * torch.randn_like(x)
    return Before(noise)
"""
    suite(tmp_path, "picky", '["clean", "pgd"]', code=code)
    code, said = bench("run")
    assert code == 2 and "asked once more" in said and "stochastic = true" in said
    assert len(list((tmp_path / "results" / "records").glob("*/*/votes.parquet"))) == 1, "clean images alone"


def test_precision_and_probabilities_are_said_beside_the_number(tmp_path: Path, bench: Bench) -> None:
    suite(tmp_path, "sixteen", '["clean", "pgd"]')
    assert bench("run")[0] == 0
    assert "Computed in float16, not float32" in (tmp_path / "results" / "s" / "tables.md").read_text()
    suite(tmp_path, "chances")
    assert "hides gradients" in bench("run")[1]
    assert "outputs are probabilities" in (tmp_path / "results" / "s" / "tables.md").read_text()


def test_an_estimate_is_a_measurement_or_a_question_mark(tmp_path: Path, bench: Bench) -> None:
    suite(tmp_path, "plain")
    assert re.search(r"judge mine on the images of excerpt +\?", bench("plan")[1])
    said = bench("run")[1]
    assert re.search(r"to make: 2 records, about \d s", said)
    suite(tmp_path, "plain", '["clean", "pgd"]')
    assert re.search(r"judge mine on pgd of mine +0 s", bench("plan")[1])


def test_a_model_is_examined_on_the_first_images_even_once_their_key_is_known(tmp_path: Path) -> None:
    session = open_suite(suite(tmp_path, "plain"), "auto", None, Settings(tmp_path))
    assert session.suite.images("test").key, "as every plan asks for it"
    assert len(bench_of(session, "mine", 8)[2]) == 8

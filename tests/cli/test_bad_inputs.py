"""The corpus of bad inputs (bad_inputs/cases.toml): each gets the message it must give, its exit code, no traceback."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.cli import app
from bench.lab.images.load import SHIPPED
from bench.recipes import Network, Trained
from bench.store import records
from bench.store.records import Store
from bench.store.sealed import checked
from bench.suite.reader import load
from bench.votes.votes import to_parquet

from made_votes import honest  # isort: skip

HERE = Path(__file__).parent / "bad_inputs"
GOOD = (HERE / "good.toml").read_text()
CASES: list[dict[str, Any]] = tomllib.loads((HERE / "cases.toml").read_text())["case"]


# -- builders: each puts something bad into the run's folder ---------------------------------------


def latin_suite(root: Path) -> None:
    (root / "bad.toml").write_bytes('title = "Größe"'.encode("latin-1"))


def zero_suite(root: Path) -> None:
    (root / "bad.toml").write_bytes(bytes(1000))


def huge_suite(root: Path) -> None:
    (root / "bad.toml").write_text("# " + "x" * (5 << 20))


def nested_suite(root: Path) -> None:
    (root / "bad.toml").write_text("a = " + "[" * 5000)


def digits_suite(root: Path) -> None:
    (root / "bad.toml").write_text("a = " + "9" * 5000)


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def given(content: bytes, name: str = "given.safetensors") -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / name).write_bytes(content)

    return write


def tensor(shape: list[int], start: int, stop: int) -> dict[str, Any]:
    return {"net.stem.weight": {"dtype": "F32", "shape": shape, "data_offsets": [start, stop]}}


empty_checkpoint = given(b"")
lying_length = given(safetensors({}, length=1 << 60))
lying_shape = given(safetensors(tensor([1 << 25, 1 << 25], 0, 1 << 52), bytes(64)))
lying_offsets = given(safetensors(tensor([16], 1 << 40, (1 << 40) + 64), bytes(64)))
web_page = given(b"<!DOCTYPE html><title>Sign in</title>", "given.pt")


def good_checkpoint(root: Path, network: Network | None = None) -> None:
    from safetensors.torch import save_file

    from bench.lab.weights.build import build

    state = build(Trained(network=network or Network(depth=10, width=1))).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, root / "given.safetensors")


def other_network(root: Path) -> None:
    good_checkpoint(root, Network(depth=10, width=2))


def half_checkpoint(root: Path) -> None:
    good_checkpoint(root)
    path = root / "given.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class Trap:
    """A pickle that leaves a mark if anybody executes it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, int]]:
        return os.mkdir, (str(self.mark), 0o777)


def trap(root: Path) -> None:
    given(pickle.dumps(Trap(root / "executed")), "given.pt")(root)


def disguised_trap(root: Path) -> None:
    given(pickle.dumps(Trap(root / "executed")))(root)


def wandering_index(root: Path) -> None:
    (root / "given").mkdir()
    good_checkpoint(root)
    index = {"weight_map": {"net.stem.weight": "../given.safetensors"}}
    (root / "given" / "model.safetensors.index.json").write_text(json.dumps(index))


def empty_data(root: Path) -> None:
    (root / "data").mkdir()


def trap_data(root: Path) -> None:
    folder = root / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in ("test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (folder / name).write_bytes(pickle.dumps(Trap(root / "executed")))


def mosaic(root: Path, content: bytes, labels: bytes | None = None) -> None:
    (root / "data").mkdir()
    (root / "data" / "test.webp").write_bytes(content)
    (root / "data" / "test-labels.npy").write_bytes(labels or (SHIPPED / "test-labels.npy").read_bytes())


def small_mosaic(root: Path) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (64, 64)).save(sink, "WEBP", lossless=True)
    mosaic(root, sink.getvalue())


def short_mosaic(root: Path) -> None:
    mosaic(root, (SHIPPED / "test.webp").read_bytes()[:100_000])


def other_mosaic(root: Path) -> None:
    mosaic(root, (SHIPPED / "train-excerpt.webp").read_bytes())


def npy(array: Any) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=True)
    return sink.getvalue()


def other_labels(root: Path) -> None:
    labels = np.load(SHIPPED / "test-labels.npy")
    mosaic(root, (SHIPPED / "test.webp").read_bytes(), npy(np.roll(labels, 1)))


def lying_labels(root: Path) -> None:
    header = npy(np.zeros(10_000, np.uint8)).replace(b"(10000,), ", b"(9" + b"0" * 11 + b",), ")
    mosaic(root, (SHIPPED / "test.webp").read_bytes(), header)


def trap_labels(root: Path) -> None:
    mosaic(root, (SHIPPED / "test.webp").read_bytes(), npy(np.array([Trap(root / "executed")], object)))


def nine_classes(root: Path) -> None:
    for name in ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship"):
        (root / "data" / "test" / name).mkdir(parents=True)


def sealed(root: Path, weights: str = "0" * 64) -> Path:
    """The folder of a whole record of the first cell."""
    (root / "bad.toml").write_text(GOOD)
    cell = next(load(root / "bad.toml", "full").cells())
    votes = to_parquet(honest(cell.outcomes, 0.7))
    made_from = {cell.outcomes.target.weights.key: weights}
    return (
        Store(root)
        .seal(cell.outcomes, lambda at: records.write(at / "votes.parquet", votes) and None, made_from, {})
        .path
    )


def flipped_record(root: Path) -> None:
    path = sealed(root) / "votes.parquet"
    data = bytearray(path.read_bytes())
    data[99] ^= 1
    path.write_bytes(data)


def changed(path: Path, **changes: Any) -> None:
    body = {**json.loads(path.read_text()), **changes}
    del body["check"]
    path.write_bytes(checked(body))


def later_record(root: Path) -> None:
    changed(sealed(root) / "manifest.json", format=99)


def wandering_record(root: Path) -> None:
    changed(sealed(root) / "manifest.json", files={"../../../../good.toml": {"sha256": "0" * 64, "bytes": 1}})


def stale_record(root: Path) -> None:
    """An outcome of weights other than those that are here."""
    sealed(root)
    recipe = load(root / "bad.toml", "full").weights["own"]
    Store(root).seal(recipe, lambda at: records.write(at / "model.safetensors", b"others") and None, {}, {})


def results_file(root: Path) -> None:
    good_checkpoint(root)
    (root / "results").write_text("mine")


def scratch_file(root: Path) -> None:
    (root / ".bench").write_text("mine")


# -- the corpus -----------------------------------------------------------------------------------------


def prepare(case: dict[str, Any], root: Path) -> list[str]:
    """The files of a case, and its command line."""
    text = case.get("suite", GOOD)
    if "change" in case:
        old, new = (words.replace("\\n", "\n") for words in case["change"])
        assert old in text
        text = text.replace(old, new, 1)
    (root / "good.toml").write_text(GOOD)
    if "make" in case:
        globals()[case["make"]](root)
    if not (root / "bad.toml").exists():
        (root / "bad.toml").write_text(text)
    elif "change" in case:
        raise AssertionError("the builder wrote the suite already")
    words = [word.format(suite=root / "bad.toml", root=root) for word in case.get("args", ["plan", "{suite}"])]
    at_root = [] if {"--root", "rum"} & {*words} or words == ["run"] else ["--root", str(root)]
    full = ["--scale", "full"] if "--scale" not in words and words[0] in ("run", "plan", "tables") and at_root else []
    return words + at_root + full


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_bad_input_gets_its_message(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    words = prepare(case, tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    monkeypatch.setenv("COLUMNS", "400")  # so that no message is folded
    monkeypatch.delenv("BENCH_DATA", raising=False)
    with pytest.raises(SystemExit) as stopped:
        app.main()
    said = " ".join(re.sub(r"[│╭╮╰╯─]+", " ", "\n".join(capsys.readouterr())).split())
    assert " ".join(case["says"].split()) in said
    assert stopped.value.code == case.get("code", 2), said
    assert not (tmp_path / "executed").exists(), "no pickle is executed"


def test_the_corpus_is_large_and_its_cases_differ():
    assert len(CASES) >= 60
    assert len({case["name"] for case in CASES}) == len(CASES)
    kinds = [case.get("make", "") for case in CASES]
    assert sum(kind.endswith(("checkpoint", "_length", "_shape", "_offsets", "trap")) for kind in kinds) >= 6


def test_the_suite_that_the_cases_break_is_good(tmp_path: Path):
    (tmp_path / "good.toml").write_text(GOOD)
    for scale in ("full", "quick"):
        assert len(list(load(tmp_path / "good.toml", scale).cells())) == 5


@pytest.mark.parametrize(
    ("change", "words", "code"),
    [
        (["eps = ", "epz = "], ["plan", "{suite}"], 2),
        (["seed = 0", "seed = 0"], ["plan", "{suite}"], 0),
        (["seed = 0", "seed = 0"], ["plan"], 2),
    ],
)
def test_a_process_exits_as_it_should(change: list[str], words: list[str], code: int, tmp_path: Path):
    (tmp_path / "bad.toml").write_text(GOOD.replace(*change))
    words = [word.format(suite=tmp_path / "bad.toml") for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words], cwd=HERE.parents[2], capture_output=True, text=True,
        env={**os.environ, "BENCH_ROOT": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert bool(done.stdout) == (code == 0), "mistakes go to the error stream"


def test_a_mistake_of_ours_exits_with_1_and_its_traceback(tmp_path: Path):
    """An engine that breaks is no fault of the user's, so what broke is shown whole."""
    code = (
        "import sys; from bench.run import session\nfrom bench.cli import app\n"
        "def broken(*words): raise ZeroDivisionError('ours')\n"
        "session.open_suite = broken\nsys.argv = ['bench', 'plan', 'x.toml']\napp.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE.parents[2], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ZeroDivisionError: ours" in done.stderr

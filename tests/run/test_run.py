"""A real run from end to end: nothing is done twice, nothing is lost, and no order, engine or interrupt shows."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import shutil
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import command, part_of_a_run, until
from torch import Tensor

from bench import Paused, UserError
from bench.lab.compute.passes import Compute
from bench.recipes import Data, Examples, Fetched, Outcomes, Trained
from bench.report.publish import publish
from bench.run.engines import start
from bench.run.engines.local import Workers
from bench.run.runner import Runner
from bench.run.session import FINDING, planned
from bench.store.cost import Rates
from bench.store.plan import describe, refuse_stale
from bench.store.records import Store
from bench.store.tasks import Done, Hooks, images_in, rows, shards

from small import RECORDS, SUITE, TASKS, Kept, Shuffled, go, result, session  # isort: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store and the tables of one uninterrupted run."""
    root = tmp_path_factory.mktemp("whole")
    counts = go(root)
    assert (counts.records, counts.tasks, counts.reused) == (RECORDS, TASKS, 0)
    return root


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def did(root: Path, **changes: object) -> Counter[str]:
    """What a run had to do."""
    engine = Kept(session(root).settings)
    go(root, engine, **changes)  # type: ignore[arg-type]
    return Counter(kind for kind, _ in engine.did)


def records(root: Path) -> list[Path]:
    return sorted(root.glob("results/records/*/*"))


# -- resume ----------------------------------------------------------------------------------------


def test_a_run_leaves_numbers_and_what_made_them(whole: Path):
    text = (whole / "results" / "small" / "tables.md").read_text()
    assert re.search(r"\d\d?\.\d\d \[\d", text)
    cells = json.loads((whole / "results" / "small" / "tables.json").read_text())["cells"]
    assert len(cells) == 6
    assert all(0 <= cell["low"] <= cell["value"] <= cell["high"] <= 1 and cell["images"] == 60 for cell in cells)
    for record in records(whole):
        about = json.loads((record / "manifest.json").read_text())["provenance"]
        assert about["forward_passes"] > 0
        assert about["device_type"] == "cpu"
        assert "torch" in about["versions"]
    assert not list((whole / ".bench" / "parts").iterdir()), "parts are tidied up"


def test_a_second_run_makes_nothing(copy: Path):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file() and "records" in str(path)}
    assert not did(copy)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_deleted_outcome_is_made_again_alone(copy: Path, whole: Path):
    store = Store(copy)
    for cell in session(copy).suite.cells():
        if cell.target == "student" and cell.attack == "pgd":
            shutil.rmtree(store.place(cell.outcomes))
    assert did(copy) == {"Outcomes": 3}
    assert result(copy) == result(whole)


def test_a_clone_with_records_alone_makes_nothing(copy: Path, whole: Path):
    shutil.rmtree(copy / ".bench")
    assert not did(copy), "weights and examples are not made for what is recorded already"
    assert result(copy) == result(whole)


@pytest.mark.parametrize(("shelf", "made"), [
    ("results/records/*/*/votes.parquet", {"Outcomes": 3}),
    ("results/records/*/*/manifest.json", {"Outcomes": 3}),
])  # fmt: skip
def test_a_spoilt_outcome_is_made_again_alone(shelf: str, made: dict[str, int], copy: Path, whole: Path):
    wanted = {
        copy / "results" / "records" / cell.outcomes.key[:2] / cell.outcomes.key for cell in session(copy).suite.cells()
    }
    path = next(path for path in sorted(copy.glob(shelf)) if path.parent in wanted)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert did(copy) == made
    assert result(copy) == result(whole)


def test_spoilt_inputs_are_made_again_before_they_are_used(copy: Path, whole: Path):
    """Weights and examples with a flipped byte, found when outcomes that need them are to be made."""
    for path in [*copy.glob(".bench/examples/*/*/00001.safetensors"), *copy.glob(".bench/weights/*/*/*.safetensors")]:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    shutil.rmtree(copy / "results")
    done = did(copy)
    assert done["Trained"] == 1
    assert done["Distilled"] == 1
    assert done["Examples"] == 6
    assert result(copy) == result(whole), "a CPU trains the same weights again"


def test_a_spoilt_part_is_done_again_alone(whole: Path, tmp_path: Path):
    part_of_a_run(tmp_path, 13)
    parts = sorted(tmp_path.glob(".bench/parts/*/0*"))
    assert parts
    parts[0].write_bytes(parts[0].read_bytes()[:-1])
    left = len(parts) - 1
    counts = go(tmp_path)
    assert counts.reused == left
    assert result(tmp_path) == result(whole)


@pytest.mark.parametrize("tasks", [1, 4, 13, TASKS - 1])
def test_no_task_that_was_finished_is_done_again(tasks: int, whole: Path, tmp_path: Path):
    assert part_of_a_run(tmp_path, tasks) == tasks
    engine = Kept(session(tmp_path).settings)
    go(tmp_path, engine)
    assert len(engine.did) == TASKS - tasks
    assert result(tmp_path) == result(whole)


def test_what_was_published_stays_until_something_it_is_made_from_changes(copy: Path):
    def published() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in sorted((copy / "results" / "small").glob("*.*"))}

    def again(text: str = SUITE) -> bool:
        opened = session(copy, text)
        planned(opened, opened.wanted(), False)
        before = published()
        publish(opened, made=False)
        return published() != before

    again()
    assert published().keys() >= {"tables.md", "tables.json", "index.html"}
    assert not again()
    (copy / "results" / "small" / "tables.md").write_text("7 of 7")
    assert again() and not again()
    assert "7 of 7" not in (copy / "results" / "small" / "tables.md").read_text()
    (copy / "results" / "small" / "index.html").write_text("nothing")
    assert again() and not again()
    assert "<table" in (copy / "results" / "small" / "index.html").read_text()
    assert again(SUITE.replace('rule = "vote"', 'rule = "vote"\nlabel = "Another"'))
    assert "Another" in (copy / "results" / "small" / "tables.md").read_text()
    session(copy).diagnosed("student", [{"check": "c", "figure": "f", "verdict": "suspicious", "advice": "a"}])
    assert again() and not again()
    (records(copy)[0] / "votes.parquet").unlink()
    assert again(), "a number that is gone is not shown"
    assert "no record" in (copy / "results" / "small" / "tables.md").read_text()


def test_fresh_crafts_and_judges_again_and_keeps_weights(copy: Path, whole: Path):
    done = did(copy, fresh=True)
    assert done == {"Outcomes": 5 * 3, "Examples": 2 * 3}, "the teacher's votes belong to the weights"
    assert result(copy) == result(whole)


def test_stale_records_are_refused_and_nothing_is_changed(copy: Path):
    """Other weights in the place of those that the outcomes were made from."""
    opened = session(copy)
    store, recipe = opened.store, opened.suite.weights["cni"]
    from bench.lab.weights import build, files

    store.discard(store.place(recipe))
    state = build.build(recipe).state_dict()
    store.seal(recipe, lambda folder: files.save(folder, state), {}, {})
    before = {path: path.read_bytes() for path in copy.glob("results/records/*/*/*")}
    with pytest.raises(UserError, match=r"made from .* sealed .* but the one here is sealed"):
        refuse_stale(planned(opened, opened.wanted(), False).stale)
    assert before == {path: path.read_bytes() for path in copy.glob("results/records/*/*/*")}


def test_what_another_run_sealed_meanwhile_is_used(copy: Path, whole: Path, tmp_path: Path):
    """A plan from before another run was at work finds everything made."""
    empty = session(tmp_path / "empty")
    plan = planned(empty, empty.wanted(), False)
    opened = session(copy)
    engine = Kept(opened.settings)
    from rich.console import Console

    from bench.cli.progress import Display

    rates = Rates(opened.store.scratch, "cpu")
    display = Display(plan, opened.names, rates, Console(quiet=True), True)
    Runner(opened.settings, opened.store, engine, display, rates).go(plan)
    assert not engine.did
    assert result(copy) == result(whole)


def test_the_next_shard_is_read_while_one_is_judged(whole: Path):
    from bench.lab.worker import Lab

    opened = session(whole)
    examples = next(c.outcomes.examples for c in opened.suite.cells() if c.source)
    lab, plain = Lab(opened.settings), Lab(opened.settings)
    for shard in shards(examples):
        assert ((examples.key, shard) in lab._ahead) == (shard > 0)
        assert torch.equal(lab.crafted(examples, shard).images, plain._read(examples, shard).images)
    assert not lab._ahead
    assert torch.equal(lab.crafted(examples, 2).images, plain._read(examples, 2).images), "in any order"


# -- order, workers, batches ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_the_order_of_tasks_does_not_show(seed: int, whole: Path, tmp_path: Path):
    go(tmp_path, Shuffled(session(tmp_path).settings, seed))
    assert result(tmp_path) == result(whole)


def test_two_workers_make_what_one_makes(whole: Path, tmp_path: Path):
    engine = Workers(session(tmp_path).settings, 2, Hooks())
    try:
        counts = go(tmp_path, engine)
    finally:
        engine.close()
    assert counts.tasks == TASKS
    assert result(tmp_path) == result(whole)


def test_another_batch_size_does_not_show_beyond_the_last_bits(whole: Path, copy: Path):
    """Votes of the same weights on the same examples, 7 images at a time instead of 512."""
    from bench.votes.votes import from_parquet

    shutil.rmtree(copy / "results" / "records")
    go(copy, microbatch=7)
    for path in copy.glob("results/records/*/*/votes.parquet"):
        one, other = (from_parquet((root / path.relative_to(copy)).read_bytes()) for root in (whole, copy))
        assert (one.index == other.index).all()
        assert abs(one.probs.astype(float) - other.probs.astype(float)).max() < 2e-3
        assert (one.counts != other.counts).any(1).mean() < 0.02, "only a tie within rounding may fall otherwise"


def test_shards_cover_every_image_once():
    recipe = Examples(data=Data(start=30, stop=1057), shard=100)
    covered = [i for shard in shards(recipe) for i in range(*rows(recipe, shard).indices(10_000))]
    assert covered == list(range(30, 1057))
    assert images_in(recipe) == 1027
    assert shards(Trained()) == []
    assert images_in(Outcomes(examples=Examples(data=Data(stop=20_000)), target=session_model())) == 10_000


def session_model() -> object:
    from bench.recipes import Model

    return Model(weights=Trained())


# -- memory ----------------------------------------------------------------------------------------


def test_out_of_memory_halves_the_batch_and_says_so_once_each_time():
    """An allocator that has room for ten images."""
    notes: list[str] = []

    def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
        if len(images) > 10:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return images.flatten(1)[:, :4] * 2

    images = torch.rand(50, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    compute = Compute(torch.device("cpu"), microbatch=64, note=notes.append)
    assert torch.equal(compute.logits(realisation, images), images.flatten(1)[:, :4] * 2)
    assert compute.forwards == 50, "an image counts once, however often its batch was tried"
    assert notes == [f"out of memory: going on with {size} images at a time" for size in (25, 12)]
    assert compute.microbatch == 12, "in fifty images' parts of one size, ten"
    compute.logits(realisation, images)
    assert len(notes) == 2, "the smaller batch stays"


def test_other_errors_of_a_network_are_not_taken_for_memory():
    def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        Compute(torch.device("cpu")).logits(realisation, torch.rand(4, 3, 4, 4))


# -- the start -------------------------------------------------------------------------------------


def test_an_import_is_not_searched_for_garbage_and_what_follows_is():
    try:
        with pytest.raises(ImportError), start.uncollected():
            assert not gc.isenabled()
            import bench.nothing  # noqa: F401
        assert gc.isenabled()
        assert gc.get_freeze_count() > 100_000, "torch and all that is with it"
    finally:
        gc.unfreeze()


def test_a_worker_begins_with_the_images_of_its_first_work(whole: Path):
    opened = session(whole)
    plan = planned(opened, opened.wanted(), True)
    fetched = Fetched(kind="python", name="a.py:b", sha256="0" * 64)
    data = start.first_images([fetched, *plan.order])
    assert data is not None
    assert start.first_images([fetched]) is None
    lab = start.begin(opened.settings, Hooks(), data)
    assert list(lab._data) == [data.source]
    nowhere = replace(opened.settings, data_root=whole / "nowhere")
    assert not start.begin(nowhere, Hooks(), Data(split="train"))._data, "which is told when they are asked for"


# -- interrupts --------------------------------------------------------------------------------------


def test_ctrl_c_finishes_the_shard_and_says_how_to_go_on_and_sigkill_is_survived(whole: Path, tmp_path: Path):
    """One store through it all: SIGTERM, then SIGKILL, then Ctrl-C, and a last run to the end."""

    def done() -> int:
        """Grows whenever a task is finished: the parts there are, and three for each record made of parts."""
        sealed = [*tmp_path.glob(".bench/*/*/*/manifest.json"), *records(tmp_path)]
        return len(list(tmp_path.glob(".bench/parts/*/0*"))) + 3 * len(sealed)

    for number, stop in enumerate([signal.SIGTERM, signal.SIGKILL, signal.SIGINT]):
        before, process = done(), command(tmp_path)
        until(lambda before=before: done() > before, process)  # type: ignore[misc]
        process.send_signal(stop)
        _, said = process.communicate(timeout=60)
        if stop == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
            continue
        assert process.returncode == 130, (number, said)
        assert "stopping after this shard" in said
        assert "resume with: python -m bench run" in said
        assert "Traceback" not in said
    counts = go(tmp_path)
    assert counts.tasks < TASKS
    assert result(tmp_path) == result(whole)


@pytest.mark.parametrize("later", [0.0, 2.0])
def test_ctrl_c_in_a_terminal_pauses_workers_that_start_or_train(later: float, tmp_path: Path):
    """A terminal's Ctrl-C reaches the workers too."""
    process = command(tmp_path, "--workers", "2", start_new_session=True)
    until(lambda: bool(list(tmp_path.glob(".bench/parts/*"))), process)
    time.sleep(later)
    os.killpg(process.pid, signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "resume with: python -m bench run" in said
    assert not out, "no tables of a run that was stopped"


@pytest.mark.parametrize("later", [0.0, 1.0])
def test_a_second_ctrl_c_stops_now_and_takes_the_workers_along(later: float, tmp_path: Path):
    process = command(tmp_path, "--workers", "2", start_new_session=True)
    until(lambda: bool(list(tmp_path.glob(".bench/parts/*"))), process)
    time.sleep(later)
    started = time.monotonic()
    for _ in range(3):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert time.monotonic() - started < 20
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        while time.monotonic() - started < 30:
            os.killpg(process.pid, 0)  # the group lives as long as any of its processes
            time.sleep(0.1)


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path):
    process = command(tmp_path, "--workers", "2", start_new_session=True)
    until(lambda: bool(list(tmp_path.glob(".bench/parts/*"))), process)
    process.kill()
    process.communicate()
    with pytest.raises(ProcessLookupError):
        for _ in range(300):
            os.killpg(process.pid, 0)
            time.sleep(0.1)


def test_a_killed_worker_is_told_and_its_run_goes_on_later(whole: Path, tmp_path: Path):
    engine = Workers(session(tmp_path).settings, 1, Hooks())
    done = 0

    class Murdered(Kept):
        slots = 1

        def __init__(self) -> None:
            pass

        def submit(self, task: object) -> None:
            engine.submit(task)  # type: ignore[arg-type]

        def wait(self) -> Done:
            nonlocal done
            done += 1
            if done == 5:
                for process in engine.pool._processes.values():
                    process.kill()
            return engine.wait()

    try:
        with pytest.raises(UserError, match="a worker process died"):
            go(tmp_path, Murdered())
    finally:
        engine.close()
    counts = go(tmp_path)
    assert counts.tasks == TASKS - 4
    assert result(tmp_path) == result(whole)


def test_time_that_is_up_pauses_between_shards(whole: Path, tmp_path: Path):
    from rich.console import Console

    from bench.cli.progress import Display

    opened = session(tmp_path)
    plan, rates = planned(opened, opened.wanted(), False), Rates(opened.store.scratch, "cpu")
    display = Display(plan, opened.names, rates, Console(quiet=True), True, time.time() + 3600)

    class Watch(Kept):
        def wait(self) -> Done:
            done = super().wait()
            if len(self.did) == 6:
                display.stop_at = time.time()  # an hour later
            return done

    engine = Watch(opened.settings, display.hooks())
    with pytest.raises(Paused):
        Runner(opened.settings, opened.store, engine, display, rates).go(plan)
    assert len(engine.did) == 6
    assert go(tmp_path).tasks == TASKS - 6
    assert result(tmp_path) == result(whole)


def test_a_training_that_pauses_with_nothing_else_to_do_pauses_the_run(whole: Path, tmp_path: Path):
    with pytest.raises(Paused, match="training"):
        go(tmp_path, stop_at=time.time())
    assert go(tmp_path).tasks == TASKS
    assert result(tmp_path) == result(whole)


def test_a_damaged_diagnosis_is_a_mark_and_never_silence(copy: Path):
    """A diagnosis that could not be read was skipped, and its "suspicious" with it."""
    opened = session(copy)
    good = dict(zip(FINDING, ("c", "f", "suspicious", "a"), strict=True))
    opened.diagnosed("cni", [good])
    assert opened.findings() == {"cni": [good]}
    (opened.folder / "diagnosis" / "cni.json").write_text("{")
    (found,) = opened.findings()["cni"]
    assert (
        found["verdict"] == "suspicious" and "cannot be read" in found["figure"] and "bench diagnose" in found["advice"]
    )


def test_trained_weights_say_what_they_cost(whole: Path):
    """Training counted its passes under other names than the manifest's, which said 0."""
    manifests = list((whole / ".bench" / "weights").glob("*/*/manifest.json"))
    assert len(manifests) == 2
    for manifest in manifests:
        about = json.loads(manifest.read_text())["provenance"]
        assert about["forward_passes"] > 0 and about["backward_passes"] > 0


EQUAL = SUITE.replace("[trainings.short]", """[attacks.same]
kind = "pgd"
steps = 2

[trainings.short]""").replace("[models.student]", """[models.again]
weights = "cni"
draws = 3

[models.student]""").replace('rows = ["cni",', 'rows = ["again", "cni",')


def test_equal_recipes_are_called_as_the_cell_that_asks_calls_them(tmp_path: Path):
    """The last of two equal attacks, and one of two models of the same weights, lent its name to all."""
    opened = session(tmp_path, EQUAL)
    said = [describe(recipe, opened.names) for recipe in planned(opened, opened.wanted(), False).order]
    assert "judge again on pgd of again" in said and "judge cni on pgd of cni" in said
    assert "judge again on clean images" in said or "judge again on the images of excerpt" in said
    assert not any("same" in one for one in said)

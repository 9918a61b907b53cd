"""The store: what is sealed is there whole or not at all, and whatever is not whole is named and made again.

`python tests/test_store.py` prints the corruption table: every fault on every kind of artefact.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_votes import honest

from bench import UserError
from bench.recipes import PGD, Data, Examples, Model, Network, Outcomes, Trained, Training, Work
from bench.store import records as stores
from bench.store.disk import claim, read_part, write, write_part
from bench.store.records import Store
from bench.store.sealed import Damaged, load
from bench.votes.votes import check, concatenate, from_parquet, to_parquet

ROOT = Path(__file__).parents[2]
WEIGHTS = Trained(network=Network(depth=10, width=1), training=Training(epochs=1))
EXAMPLES = Examples(data=Data(stop=8), source=Model(weights=WEIGHTS), attack=PGD(steps=1), shard=8)
OUTCOMES = Outcomes(examples=EXAMPLES, target=Model(weights=WEIGHTS))
RECIPES: dict[str, Work] = {"weights": WEIGHTS, "examples": EXAMPLES, "outcomes": OUTCOMES}
FILES = {"weights": "model.safetensors", "examples": "00000.safetensors", "outcomes": "votes.parquet"}


def fill(kind: str) -> Callable[[Path], None]:
    """Writes what a record of the kind holds: a real network, real tensors, votes with known chances."""

    def write_weights(folder: Path) -> None:
        from bench.lab.weights import build, files

        files.save(folder, build.build(WEIGHTS).state_dict(), card={"name": "untrained"})

    def write_examples(folder: Path) -> None:
        from safetensors.numpy import save

        images = np.random.default_rng(0).random((8, 3, 32, 32), np.float32)
        write(folder / "00000.safetensors", save({"images": images, "claimed": np.zeros(8, np.float32)}))

    def write_votes(folder: Path) -> None:
        write(folder / "votes.parquet", to_parquet(honest(OUTCOMES, 0.7)))

    return {"weights": write_weights, "examples": write_examples, "outcomes": write_votes}[kind]


def seal(store: Store, kind: str) -> stores.Record:
    made_from = {WEIGHTS.key: "0" * 64} if kind != "weights" else {}
    return store.seal(RECIPES[kind], fill(kind), made_from, {"made": "2024-01-01T00:00:00Z"})


# -- faults: each takes the file it spoils ---------------------------------------------------------


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def missing(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link(path: Path) -> None:
    aside = path.parent.parent / f"aside-{path.name}"
    path.rename(aside)
    path.symlink_to(aside)


FAULTS: list[Callable[[Path], None]] = [flipped, truncated, longer, empty, missing, a_folder, a_link]


def resealed(record: Path, **changes: object) -> None:
    """Change a manifest as somebody would who also knows how to make its checksum fit."""
    body = json.loads((record / "manifest.json").read_text()) | changes
    del body["check"]
    (record / "manifest.json").write_bytes(stores.checked(body))


def hostile(name: str) -> Callable[[Path], None]:
    def change(record: Path) -> None:
        (record.parent / "outside").write_bytes(b"12345")
        digest = hashlib.sha256(b"12345").hexdigest()
        resealed(record, files={name: {"sha256": digest, "bytes": 5}})

    return change


FORGED: dict[str, Callable[[Path], None]] = {
    "another format": lambda path: resealed(path, format=stores.FORMAT + 1),
    "the wrong key": lambda path: resealed(path, key="f" * 64),
    "no key": lambda path: resealed(path, key=None),
    "files that are a list": lambda path: resealed(path, files=["votes.parquet"]),
    "files without digests": lambda path: resealed(path, files={"votes.parquet": 5}),
    "a made-up seal": lambda path: resealed(path, seal="0" * 64),
    "made_from that is text": lambda path: resealed(path, made_from="everything"),
    "a size that lies": lambda path: resealed(path, files={"votes.parquet": {"sha256": "0" * 64, "bytes": 1 << 60}}),
    "a file above the folder": hostile("../outside"),
    "an absolute path": hostile(str(Path(tempfile.gettempdir()) / "outside")),
    "a name with a null byte": hostile("votes\0"),
    "a name on another drive": hostile("c:\\votes"),
    "a name that is a folder": hostile("."),
    "JSON nested without end": lambda path: (path / "manifest.json").write_text("[" * 200_000) and None,
    "JSON that is a number": lambda path: (path / "manifest.json").write_text("7") and None,
    "5 MB of manifest": lambda path: (path / "manifest.json").write_text(" " * (5 << 20)) and None,
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("which", ["file", "manifest"])
@pytest.mark.parametrize("kind", RECIPES)
def test_a_spoilt_record_is_named_and_made_again(kind: str, which: str, fault: Callable[[Path], None], tmp_path: Path):
    says, repaired = spoil(tmp_path, kind, which, fault)
    assert (FILES[kind] if which == "file" else "manifest.json") in says
    assert repaired


def spoil(root: Path, kind: str, which: str, fault: Callable[[Path], None]) -> tuple[str, bool]:
    """What the store says of a record with this fault, and whether sealing again gave the same record."""
    store = Store(root)
    whole = seal(store, kind)
    fault(whole.path / (FILES[kind] if which == "file" else "manifest.json"))
    assert store.find(RECIPES[kind], thorough=True) is None
    says = " ".join(store.faults)
    store.faults.clear()
    again = seal(store, kind)
    return says, again.seal == whole.seal and store.find(RECIPES[kind], thorough=True) == again and not store.faults


@pytest.mark.parametrize("forgery", FORGED)
def test_a_forged_manifest_is_named_and_its_record_made_again(forgery: str, tmp_path: Path):
    store = Store(tmp_path)
    whole = seal(store, "outcomes")
    FORGED[forgery](whole.path)
    with pytest.raises(Damaged, match=r"manifest|record|file|seal|bytes|digest"):
        load(whole.path, OUTCOMES.key)
    assert store.find(OUTCOMES) is None
    assert str(whole.path) in store.faults[0]
    assert seal(store, "outcomes").seal == whole.seal


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_no_flipped_byte_of_a_votes_record_goes_unseen(tmp_path: Path, where: float, mask: int):
    store = Store(tmp_path)
    record = store.find(OUTCOMES) or seal(store, "outcomes")
    for name in ("votes.parquet", "manifest.json"):
        path = record.path / name
        data = bytearray(whole := path.read_bytes())
        data[int(where * len(data))] ^= mask
        path.write_bytes(data)
        found = store.find(OUTCOMES)
        # JSON has a few bytes that mean the same in either case (a space, an escape): then nothing is lost.
        assert found is None or found.manifest == record.manifest
        path.write_bytes(whole)
    assert store.find(OUTCOMES) == record


@pytest.mark.parametrize("fault", [flipped, truncated, longer, empty, missing, a_folder], ids=lambda f: f.__name__)
def test_a_spoilt_part_is_not_there(fault: Callable[[Path], None], tmp_path: Path):
    path = tmp_path / "00000"
    write_part(path, b"votes of a shard", {"precision": "bfloat16"})
    assert read_part(path) == (b"votes of a shard", {"precision": "bfloat16"})
    fault(path)
    assert read_part(path) is None


def test_a_link_out_of_a_record_is_not_followed(tmp_path: Path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_bytes(b"12345")
    store = Store(tmp_path / "root")
    record = seal(store, "outcomes")
    (record.path / "below").symlink_to(secret)
    hostile("below/key")(record.path)
    assert store.find(OUTCOMES) is None
    assert "outside its folder" in store.faults[0]
    store.discard(record.path)
    assert (secret / "key").read_bytes() == b"12345"


# -- two processes, a full disk, no permission --------------------------------------------------------


def child(code: str, *words: str) -> subprocess.Popen[str]:
    """A process that runs `code` with this module's names at hand."""
    start = "import sys; top = sys.argv[1]; sys.path[:0] = [top, top + '/tests', top + '/tests/store']\n"
    start += "from test_store import *\n"
    command = [sys.executable, "-c", start + code, str(ROOT), *words]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_two_processes_may_seal_one_key(tmp_path: Path):
    """Each seals the same key many times over; at every moment a reader sees a whole record or none."""
    code = "store = Store(Path(sys.argv[2]))\nfor _ in range(12):\n    print(seal(store, 'outcomes').seal)\n"
    writers = [child(code, str(tmp_path)) for _ in range(2)]
    reader, seen = Store(tmp_path), 0
    while any(writer.poll() is None for writer in writers):
        seen += reader.find(OUTCOMES) is not None
        time.sleep(0.01)
    said = [writer.communicate() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], said
    assert len({line for out, _ in said for line in out.split()}) == 1
    assert not reader.faults
    assert seen
    assert [path.name for path in reader.place(OUTCOMES).parent.iterdir()] == [OUTCOMES.key]


def test_many_threads_may_seal_and_read(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        seals = set(pool.map(lambda _: seal(Store(tmp_path), "outcomes").seal, range(64)))
    assert len(seals) == 1


def test_a_process_killed_while_sealing_leaves_nothing_that_counts(tmp_path: Path):
    code = (
        "def slow(folder):\n    fill('outcomes')(folder)\n    print('written', flush=True)\n    time.sleep(60)\n"
        "Store(Path(sys.argv[2])).seal(OUTCOMES, slow, {}, {})\n"
    )
    process = child(code, str(tmp_path))
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    store = Store(tmp_path)
    assert store.find(OUTCOMES) is None
    assert not store.faults
    shelf = store.place(OUTCOMES).parent
    (left,) = shelf.iterdir()
    os.utime(left, (0, 0))  # an hour later
    seal(store, "outcomes")
    assert [path.name for path in shelf.iterdir()] == [OUTCOMES.key]


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A disk of 96 KiB, which root may mount; skipped for others (the limit on file sizes is tested for all)."""
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_named_and_spoils_nothing(tmp_path: Path):
    with small_disk(tmp_path / "small") as root:
        store = Store(root)
        whole = seal(store, "outcomes")
        with pytest.raises(UserError, match="the disk is full") as told:
            seal(store, "examples")
        assert "free some room" in told.value.fix
        with pytest.raises(UserError, match="the disk is full"):
            write_part(root / ".bench" / "parts" / "00000", bytes(200_000))
        assert store.find(EXAMPLES) is None
        assert store.find(OUTCOMES) == whole
        assert not store.faults
        left = [path for path in root.rglob("*") if path.is_file() and path.parent != whole.path]
        assert not left, "half-written files are cleared away"


def test_a_limit_on_file_sizes_is_named(tmp_path: Path):
    code = (
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n    seal(Store(Path(sys.argv[2])), 'examples')\n"
        "except UserError as error:\n    print(error)\n"
    )
    said, errors = child(code, str(tmp_path)).communicate()
    assert "larger than a file may be" in said, errors
    assert Store(tmp_path).find(EXAMPLES) is None


@pytest.mark.parametrize("kind", RECIPES)
def test_a_read_only_folder_is_named(kind: str, tmp_path: Path):
    folder = tmp_path / "root"
    folder.mkdir()
    code = (
        "seal(Store(Path(tempfile.mkdtemp(dir=sys.argv[2]))), sys.argv[3])  # loads what it takes\n"
        "Path(sys.argv[2]).chmod(0o555)\n"
        "if os.getuid() == 0:\n    os.setgid(65534)\n    os.setuid(65534)  # root may write anywhere\n"
        "try:\n    seal(Store(Path(sys.argv[2])), sys.argv[3])\n"
        "except UserError as error:\n    print(error)\n"
    )
    for above in [tmp_path, *tmp_path.parents]:
        if os.getuid() == 0 and not above.stat().st_mode & 1:
            above.chmod(above.stat().st_mode | 0o011)
    said, errors = child(code, str(folder), kind).communicate()
    assert "no permission to write here" in said, errors
    assert str(folder) in said


def test_a_file_where_a_folder_belongs_is_named(tmp_path: Path):
    (tmp_path / "results").write_text("mine")
    with pytest.raises(UserError, match="a file stands where a folder belongs"):
        seal(Store(tmp_path), "outcomes")
    assert (tmp_path / "results").read_text() == "mine"


def test_a_lock_is_held_until_its_process_dies(tmp_path: Path):
    code = "claim(Path(sys.argv[2]) / 'lock')\nprint('held', flush=True)\ntime.sleep(60)\n"
    process = child(code, str(tmp_path))
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert claim(tmp_path / "lock") is None
    process.kill()
    process.communicate()
    handle = claim(tmp_path / "lock")
    assert handle is not None
    os.close(handle)


# -- what a record says -----------------------------------------------------------------------------


def test_a_seal_follows_from_bytes_and_inputs_alone(tmp_path: Path):
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    first = seal(one, "outcomes")
    later = two.seal(OUTCOMES, fill("outcomes"), {WEIGHTS.key: "0" * 64}, {"made": "another day", "device": "another"})
    assert first.seal == later.seal
    other = Store(tmp_path / "three").seal(OUTCOMES, fill("outcomes"), {WEIGHTS.key: "1" * 64}, {})
    assert other.seal != first.seal


def test_a_record_of_former_weights_is_stale(tmp_path: Path):
    store = Store(tmp_path)
    made = seal(store, "weights")
    record = store.seal(OUTCOMES, fill("outcomes"), {WEIGHTS.key: made.seal}, {})
    assert store.stale(OUTCOMES, record) is None
    store.discard(made.path)
    from bench.lab.weights import build, files

    other = build.build(WEIGHTS.model_copy(update={"training": Training(epochs=1, seed=1)})).state_dict()
    now = store.seal(WEIGHTS, lambda folder: files.save(folder, other), {}, {})
    old = store.stale(OUTCOMES, record)
    assert old is not None
    assert (old.key, old.then, old.now) == (WEIGHTS.key, made.seal, now.seal)
    assert store.find(OUTCOMES) == record, "nothing is changed"


def test_a_users_mistake_survives_the_way_from_a_worker():
    error = pickle.loads(pickle.dumps(UserError("here", "is wrong", "mend it")))
    assert (error.where, error.what, error.fix) == ("here", "is wrong", "mend it")


# -- votes from strangers ------------------------------------------------------------------------------


def hostile_votes(**changes: object) -> bytes:
    """A votes file of three images with some columns, or its metadata, replaced."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(to_parquet(honest(OUTCOMES, 0.5))))
    for name, column in changes.items():
        if name == "metadata":
            table = table.replace_schema_metadata({"bench.draw_right": column, "bench.rule": ""})
        else:
            table = table.set_column(table.schema.get_field_index(name), name, column)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def lists(rows: list[list[int]]) -> object:
    """A column of lists of one length."""
    import pyarrow as pa

    return pa.array(rows, pa.list_(pa.uint16(), len(rows[0])))


def bomb(rows: int, width: int) -> bytes:
    """A few kilobytes that ask for rows * width values."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = pa.array([0] * width, pa.uint16())
    table = pa.table({"counts": pa.FixedSizeListArray.from_arrays(flat, width)})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        for _ in range(rows):
            writer.write_table(table)
    return bytes(sink.getvalue())


def test_votes_of_strangers_are_refused_in_words():
    import pyarrow as pa

    rows = list(range(8))
    good = to_parquet(honest(OUTCOMES, 0.5))
    assert len(from_parquet(good).index) == 8
    cases = {
        "not a votes file": b"PAR1 but no more PAR1",
        "column index is of string": hostile_votes(index=pa.array(list("abcdefgh"))),
        "column label is of int64": hostile_votes(label=pa.array([70_000] * 8)),
        "column counts is not a list": hostile_votes(counts=pa.array(rows)),
        "column index has gaps": hostile_votes(index=pa.array([None, *rows[1:]], pa.int64())),
        "an image stands twice": hostile_votes(index=pa.array([0] * 8, pa.int64())),
        "label 65535 of 10 classes": hostile_votes(label=pa.array([65535] * 8, pa.uint16())),
        "not finite": hostile_votes(linf=pa.array([float("nan")] * 8, pa.float32())),
        "no matrix": hostile_votes(metadata="[" * 100_000),
        "no matrix of whole numbers": hostile_votes(metadata="[[1.5]]"),
        "are no matrix": hostile_votes(metadata="7"),
        "are not counts": hostile_votes(metadata="[[-1]]"),
        "differ from the images'": hostile_votes(metadata="[[8, 8, 8]]"),
        "columns": bomb(3, 200_000),
        "winners are not those": hostile_votes(winners=lists([[60_000]] * 8)),
        "winners and the counts": hostile_votes(winners=lists([[9]] * 8)),
        "soft winner": hostile_votes(soft=pa.array([65535] * 8, pa.uint16())),
        "before its first draw or after its last": hostile_votes(settled=pa.array([65535] * 8, pa.uint16())),
    }
    for words, data in cases.items():
        with pytest.raises(ValueError, match=words):
            from_parquet(data)


def test_absurd_sizes_are_refused_before_they_are_allocated():
    import pyarrow as pa

    wide = pa.FixedSizeListArray.from_arrays(pa.array([0] * 8 * 50_000, pa.uint16()), 50_000)
    data = hostile_votes(counts=wide)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="8 rows of 50000 are more than a record can hold"):
        from_parquet(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_votes_survive_the_way_through_a_file():
    votes = honest(OUTCOMES, 0.5)
    again = from_parquet(to_parquet(votes))
    assert again.rule == votes.rule
    for name, value in vars(votes).items():
        if name != "rule":
            assert (getattr(again, name) == value).all()
            assert getattr(again, name).dtype == value.dtype
    whole = {"draw_right", "rule"}
    halves = [replace(votes, **{k: v[part] for k, v in vars(votes).items() if k not in whole})
              for part in (slice(0, 4), slice(4, 8))]  # fmt: skip
    joined = concatenate(halves)
    assert (joined.counts == votes.counts).all() and (joined.winners == votes.winners).all()
    old = from_parquet(to_parquet(replace(votes, winners=None)))
    assert old.winners is None and concatenate([old, old]).winners is None


def test_winners_whose_draws_changed_places_are_refused():
    noisy = Model(weights=WEIGHTS, sigma=Fraction(1, 4))
    votes = honest(OUTCOMES.model_copy(update={"draws": 5, "target": noisy}), 0.6)
    check(votes)
    swapped = votes.winners[:, ::-1]
    assert (votes.draw_right[:, :16] != votes.draw_right[:, :16][:, ::-1]).any()
    with pytest.raises(ValueError, match="right answers by shard"):
        check(replace(votes, winners=swapped))


class Trap:
    """A pickle that leaves a mark if anybody executes it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, int]]:
        return os.mkdir, (str(self.mark), 0o777)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.pt", "manifest.json"])
def test_no_pickle_in_a_record_is_executed(name: str, tmp_path: Path):
    from bench.lab.weights import files

    store, mark = Store(tmp_path / "root"), tmp_path / "executed"
    record = seal(store, "weights")
    (record.path / name).write_bytes(pickle.dumps(Trap(mark)))
    store.find(WEIGHTS, thorough=True)
    with contextlib.suppress(UserError):
        files.load(record.path)
    if name != "model.safetensors":
        (record.path / "model.safetensors").unlink()
        with pytest.raises(UserError, match=r"only safetensors are read|no such file"):
            files.load(record.path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Trap(mark)))
    assert mark.exists(), "the trap works"


# -- the table ------------------------------------------------------------------------------------------


def corruption_table() -> str:
    """Every fault on every kind of artefact, and what happened, as markdown."""
    lines = ["| artefact | fault | what the store says | made again |", "| --- | --- | --- | --- |"]

    def row(kind: str, fault: str, says: str, again: str) -> None:
        for path in (root, str(Path(root).resolve())):
            says = says.replace(path + "/", "")
        lines.append(f"| {kind} | {fault} | {says.replace('|', '/')} | {again} |")

    for kind in RECIPES:
        for which in ("file", "manifest"):
            for fault in FAULTS:
                with tempfile.TemporaryDirectory() as root:
                    says, same = spoil(Path(root), kind, which, fault)
                    label = kind if which == "file" else f"{kind}: manifest"
                    row(label, fault.__name__.replace("_", " "), says, "the same seal" if same else "NO")
    for forgery, change in FORGED.items():
        with tempfile.TemporaryDirectory() as root:
            store = Store(Path(root))
            whole = seal(store, "outcomes")
            change(whole.path)
            store.find(OUTCOMES)
            says = " ".join(store.faults)[:160]
            same = seal(store, "outcomes").seal == whole.seal
            row("manifest, forged", forgery, says, "the same seal" if same else "NO")
    for fault in FAULTS[:-1]:
        with tempfile.TemporaryDirectory() as root:
            write_part(Path(root) / "00000", b"votes")
            fault(Path(root) / "00000")
            says = "nothing: the shard counts as not done" if read_part(Path(root) / "00000") is None else "UNSEEN"
            row("part of a record", fault.__name__.replace("_", " "), says, "by the next run")
            shutil.rmtree(root, ignore_errors=True)
            Path(root).mkdir()
    return "\n".join(lines)


if __name__ == "__main__":
    print(corruption_table())

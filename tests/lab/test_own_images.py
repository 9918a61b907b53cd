"""Data sets of the user's own: what each kind reads, what its key holds, and what is wrong, told in words."""

from __future__ import annotations

import functools
import hashlib
import http.server
import pickle
import threading
import urllib.error

import api_models
import numpy as np
import own_data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bench
from bench import UserError
from bench.lab.images import cifar10, cifar100, own
from bench.lab.images.load import as_tensor, load, rows_of, shuffle
from bench.recipes import Data, Examples, parse, summary
from bench.recipes.datasets import CIFAR100, NAMED
from bench.store.tasks import images_in, shards


def surveyed(path, **about):
    about.setdefault("kind", "npz")
    return own.survey(Data(path=path.name, **about), [path.parent])


@pytest.mark.parametrize("classes", [2, 8, 10])
def test_an_npz_reads_as_it_was_written(tmp_path, classes):
    images, labels = own_data.excerpt(30, classes)
    data = surveyed(own_data.npz(tmp_path / "some.npz", images, labels))
    found = own.read(data)
    assert np.array_equal(found.images, images) and np.array_equal(found.labels, labels)
    assert (data.size, data.shape, data.classes) == (30, (3, 32, 32), tuple(map(str, range(labels.max() + 1))))
    assert images_in(Examples(data=data)) == 30 and shards(Examples(data=data, shard=20)) == [0, 1]


def test_a_folder_of_a_class_each_is_the_same_images(tmp_path):
    images, labels = own_data.excerpt(24, 8)
    order = np.argsort(labels, kind="stable")
    names = tuple("abcdefgh")
    found = own.read(surveyed(own_data.folder(tmp_path / "own", images, labels, names), kind="folder"))
    assert np.array_equal(found.images, images[order]) and np.array_equal(found.labels, labels[order])
    assert found.classes == tuple(sorted({names[label] for label in labels}))


def test_grey_and_larger_images(tmp_path):
    images, labels = own_data.excerpt(6)
    for name, changed in (("grey", own_data.grey(images)), ("large", own_data.large(images))):
        data = surveyed(own_data.npz(tmp_path / f"{name}.npz", changed, labels))
        assert data.shape == (changed.shape[3], *changed.shape[1:3])
        assert as_tensor(own.read(data).images).shape == (6, *data.shape)
    flat = own_data.grey(images)
    own_data.folder(tmp_path / "files", flat, labels, NAMED["cifar10"].classes)
    assert surveyed(tmp_path / "files", kind="folder").shape == (1, 32, 32)


def test_the_key_is_the_images_and_not_the_place(tmp_path):
    images, labels = own_data.excerpt(10)
    (tmp_path / "b").mkdir()
    first = surveyed(own_data.npz(tmp_path / "a.npz", images, labels))
    moved = surveyed(own_data.npz(tmp_path / "b" / "c.npz", images.transpose(0, 3, 1, 2), labels))
    other = surveyed(own_data.npz(tmp_path / "d.npz", images, labels[::-1].copy()))
    assert first.key == moved.key != other.key
    assert parse(summary(first)).key == first.key


def test_images_that_changed_since_are_refused(tmp_path):
    images, labels = own_data.excerpt(10)
    data = surveyed(own_data.npz(tmp_path / "a.npz", images, labels))
    own_data.npz(tmp_path / "a.npz", 255 - images, labels)
    with pytest.raises(UserError, match="other images than declared"):
        own.read(data)


def test_floats_that_bytes_can_say_are_those_bytes():
    images, labels = own_data.excerpt(5)
    floats = as_tensor(images).numpy()
    assert np.array_equal(own.pack("x", floats, labels).images, images)
    assert own.pack("x", floats, labels).fingerprint == own.pack("x", images, labels).fingerprint
    between = own.pack("x", floats * 0.999, labels)
    assert between.images.dtype == np.float32 and np.array_equal(as_tensor(between.images).numpy(), floats * 0.999)


@given(n=st.integers(2, 5), c=st.sampled_from([1, 3]), h=st.integers(4, 9), w=st.integers(4, 9), seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_channels_first_and_last_are_one(n, c, h, w, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, h, w, c), np.uint8)
    labels = np.arange(n) % 2
    first, last = own.pack("x", pixels.transpose(0, 3, 1, 2), labels), own.pack("x", pixels, labels)
    assert np.array_equal(first.images, pixels) and first.fingerprint == last.fingerprint


WRONG = {
    "normalised": (lambda x, y: (as_tensor(x).numpy() * 2 - 1, y), "images reach from -1"),
    "bytes as floats": (lambda x, y: (x.astype(np.float32), y), "images reach from 0 to 2"),
    "flattened": (lambda x, y: (x.reshape(len(x), -1), y), "images are uint8"),
    "whole numbers": (lambda x, y: (x.astype(np.int64), y), "images are int64"),
    "not a number": (lambda x, y: (np.full(x.shape, np.nan, np.float32), y), "images reach from nan"),
    "one-hot labels": (lambda x, y: (x, np.eye(10)[y]), "labels are float64"),
    "float labels": (lambda x, y: (x, y.astype(float)), "labels are float64"),
    "a label too few": (lambda x, y: (x, y[:-1]), "images and"),
    "negative labels": (lambda x, y: (x, y - 5), "labels run from"),
    "nothing": (lambda x, y: (x[:0], y[:0]), "0 images and 0 labels"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_are_no_images_is_told_in_words(name):
    change, says = WRONG[name]
    with pytest.raises(UserError, match=says) as caught:
        own.pack("x", *change(*own_data.excerpt(6)))
    assert caught.value.fix


def test_files_that_are_not_there_or_not_that(tmp_path):
    with pytest.raises(UserError, match="there is no gone"):
        surveyed(tmp_path / "gone.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(UserError, match="cannot be read"):
        surveyed(tmp_path / "text.npz")
    np.savez(tmp_path / "names.npz", pictures=np.zeros(3))
    with pytest.raises(UserError, match="its arrays are pictures"):
        surveyed(tmp_path / "names.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        surveyed(tmp_path / "empty", kind="folder")
    images, labels = own_data.excerpt(4)
    own_data.folder(tmp_path / "sizes", images, labels, NAMED["cifar10"].classes)
    own_data.folder(tmp_path / "sizes", own_data.large(images[:1]), labels[:1], ("zebra",) * 10)
    with pytest.raises(UserError, match="never resizes"):
        surveyed(tmp_path / "sizes", kind="folder")


def test_a_function_of_the_users(tmp_path):
    images, labels = own_data.excerpt(12, 8)
    own_data.npz(tmp_path / "some.npz", images, labels)
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nfrom pathlib import Path\n"
        "def data(n=12):\n    f = np.load(Path(__file__).parent / 'some.npz')\n"
        "    return f['images'][:n], f['labels'][:n]\n"
        "def broken():\n    return 1 / 0\n"
    )
    with pytest.raises(UserError, match="declare their fingerprint") as caught:
        own.survey(Data(kind="python", path="mine.py:data"), [tmp_path])
    assert "toml()" in caught.value.fix
    asked = Data(kind="python", path="mine.py:data", place=str(tmp_path), arguments={"n": 7})
    known = own.described(asked, own.look(asked))
    assert known.size == 7 and np.array_equal(own.read(known).images, images[:7])
    assert own.survey(known, [tmp_path]).key == known.key
    with pytest.raises(UserError, match=r"your function broken failed: ZeroDivisionError"):
        own.look(asked.model_copy(update={"path": "mine.py:broken", "arguments": {}}))


def test_indices_and_the_original_order(tmp_path):
    data = surveyed(own_data.npz(tmp_path / "a.npz", *own_data.excerpt(20)))
    assert np.array_equal(rows_of(data, 20), shuffle(20, 0))
    assert np.array_equal(rows_of(data.model_copy(update={"order": "original"}), 20), np.arange(20))
    some = data.model_copy(update={"indices": (7, 3, 19)})
    assert rows_of(some, 20).tolist() == [7, 3, 19] and images_in(Examples(data=some)) == 3
    assert len({data.key, some.key, data.model_copy(update={"order": "original"}).key}) == 3
    for wrong in ((20,), (1, 1), ()):
        with pytest.raises(ValueError, match="ind"):
            data.model_copy(update={"indices": wrong})
    assert Data(indices=(5, 2)).whole == 2


def test_named_data_sets_keep_their_keys_and_refuse_what_is_not_theirs():
    assert Data().key == "087e493c8d1f5e66a0258a67ec56119725427068952b948b8e892914c68a0ef1"
    for wrong, says in (
        ({"kind": "cifar11"}, "did you mean 'cifar10'"),
        ({"split": "validation"}, "has no split"),
        ({"path": "x"}, "known by name"),
        ({"kind": "npz"}, "needs a path"),
        ({"mean": (0.5,)}, "go together"),
    ):
        with pytest.raises(ValueError, match=says):
            Data(**wrong)


def test_cifar100_as_torchvision_has_it(tmp_path, monkeypatch):
    """The archive's format, on images that ship here: its own MD5 is what no other file has."""
    images, labels = own_data.excerpt(50)
    content = {
        "data": np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(-1, 3072)),
        "fine_labels": (labels * 7).tolist(), "coarse_labels": labels.tolist(),
    }  # fmt: skip
    (tmp_path / cifar100.FOLDER).mkdir()
    raw = pickle.dumps(content, protocol=4)
    (tmp_path / cifar100.FOLDER / "test").write_bytes(raw)
    with pytest.raises(UserError, match="is not CIFAR-100's test"):
        load("cifar100", "test", tmp_path)
    monkeypatch.setitem(cifar100.MD5, "test", hashlib.md5(raw).hexdigest())
    found = load("cifar100", "test", tmp_path)
    assert np.array_equal(found.images, images) and np.array_equal(found.labels, labels * 7)
    assert len(CIFAR100.classes) == 100 and list(CIFAR100.classes) == sorted(set(CIFAR100.classes))


@pytest.fixture
def served():
    """Has a file handed out by a web server of this machine; gives its address."""
    servers = []

    def serve(path):
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(path.parent))
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/{path.name}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_cifar100_from_its_archive(tmp_path, monkeypatch, served):
    """torchvision's own download, of an archive of the real layout made from images that ship here: all 10,000 test
    images, pickled as Python 2 did; then judged by its name. Another file under the right name is refused."""
    from torchvision import datasets

    shipped = load("cifar10", "test")
    fine = ((shipped.labels * 10 + np.arange(10_000) % 10) % 100).tolist()
    files = {
        "test": own_data.python2_cifar100(shipped.images, fine, [label // 5 for label in fine], "test"),
        "train": own_data.python2_cifar100(shipped.images[:20], fine[:20], fine[:20], "train"),
    }
    names = pickle.dumps({"fine_label_names": list(CIFAR100.classes), "coarse_label_names": ["all"]}, protocol=2)
    archive = own_data.cifar100_archive(tmp_path / "cifar-100-python.tar.gz", files | {"meta": names})
    about = {"filename": "meta", "key": "fine_label_names", "md5": hashlib.md5(names).hexdigest()}
    monkeypatch.setattr(datasets.CIFAR100, "meta", about)
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(datasets.CIFAR100, "url", served(archive))
    monkeypatch.setattr(datasets.CIFAR100, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    for split in ("train", "test"):
        monkeypatch.setattr(datasets.CIFAR100, f"{split}_list", [[split, md5[split]]])
    with pytest.raises(UserError, match="is not CIFAR-100's test"):
        load("cifar100", "test", tmp_path / "data", download=True)
    for split in md5:
        monkeypatch.setitem(cifar100.MD5, split, md5[split])
    found = load("cifar100", "test", tmp_path / "data", download=True)
    assert np.array_equal(found.images, shipped.images) and found.labels.tolist() == fine
    theirs = datasets.CIFAR100(str(tmp_path / "data"), train=False)
    assert np.array_equal(theirs.data, found.images) and theirs.targets == found.labels.tolist()
    assert tuple(theirs.classes) == found.classes == CIFAR100.classes
    for place in (tmp_path / "data", tmp_path / "data" / cifar100.FOLDER):
        assert load("cifar100", "train", place).images.shape == (20, 32, 32, 3)
    net = api_models.Small(100)
    report = bench.evaluate(
        net, "cifar100", data_root=tmp_path / "data", n=8, attacks="pgd1", device="cpu", progress=False
    )
    assert report.votes["clean"].counts.shape == (8, 100) and report.names == CIFAR100.classes
    (tmp_path / "data" / cifar100.FOLDER / "test").write_bytes(files["train"])
    with pytest.raises(UserError, match="is not CIFAR-100's test"):
        load("cifar100", "test", tmp_path / "data")


def test_torchvision_expects_the_files_that_we_do():
    from torchvision import datasets

    assert {split: getattr(datasets.CIFAR100, f"{split}_list")[0][1] for split in ("train", "test")} == cifar100.MD5


def test_a_failed_download_is_told_in_words(tmp_path, monkeypatch):
    from torchvision import datasets

    def offline(*_, **__):
        raise urllib.error.URLError("[Errno -2] Name or service not known")

    for name, kind, split in (("CIFAR10", "cifar10", "train"), ("CIFAR100", "cifar100", "test")):
        monkeypatch.setattr(datasets, name, offline)
        with pytest.raises(UserError, match="no connection to its server") as caught:
            load(kind, split, tmp_path / "data", download=True)
        assert "cifar-10" in caught.value.fix and caught.value.where == str(tmp_path / "data")
    assert cifar10.FETCH != cifar100.FETCH

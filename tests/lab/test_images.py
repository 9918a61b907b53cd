import hashlib
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench import UserError
from bench.lab.images.load import CLASSES, SHIPPED, Images, as_tensor, fingerprint, load, shuffle
from bench.recipes.datasets import CIFAR10


@pytest.fixture(scope="module")
def test_set() -> Images:
    return load()


def python2_batch(pixels: Any, labels: list[int]) -> bytes:
    """A batch byte for byte as Python 2 pickled the original distribution (protocol 2)."""
    raw = pixels.transpose(0, 3, 1, 2).tobytes()
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
    array += b"M" + struct.pack("<H", len(labels)) + b"M\x00\x0c\x86" + dtype
    array += b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    name = b"U\x0bbatch_labelU\x15testing batch 1 of 1s"
    return b"\x80\x02}(" + name + b"U\x04data" + array + b"U\x06labels" + numbers + b"u."


@pytest.fixture(scope="module")
def roots(test_set: Images, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The test set in each layout."""
    root = tmp_path_factory.mktemp("data")
    layouts = {name: root / name for name in ("batches", "resaved", "mosaic", "folders")}
    labels = test_set.labels.tolist()
    for name in ("batches", "resaved"):
        (layouts[name] / "cifar-10-batches-py").mkdir(parents=True)
    (layouts["batches"] / "cifar-10-batches-py" / "test_batch").write_bytes(python2_batch(test_set.images, labels))
    flat = test_set.images.transpose(0, 3, 1, 2).reshape(-1, 3072)
    content = {"data": np.ascontiguousarray(flat), "labels": labels}
    (layouts["resaved"] / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(content, protocol=4))
    layouts["mosaic"].mkdir()
    for name in ("test.webp", "test-labels.npy"):
        shutil.copy(SHIPPED / name, layouts["mosaic"] / name)
    for name in CLASSES:
        (layouts["folders"] / "test" / name).mkdir(parents=True)
    for row, (image, label) in enumerate(zip(test_set.images, labels, strict=True)):
        path = layouts["folders"] / "test" / CLASSES[label] / f"{(row * 7919) % 10_000:05d}.png"
        Image.fromarray(image).save(path, compress_level=0)
    return layouts


def test_shipped_test_set(test_set: Images) -> None:
    assert test_set.images.shape == (10_000, 32, 32, 3) and test_set.images.dtype == np.uint8
    assert test_set.labels.dtype == np.int64 and test_set.labels[:2].tolist() == [3, 8]
    assert np.bincount(test_set.labels).tolist() == [1000] * 10
    assert test_set.index.tolist() == list(range(10_000))
    assert test_set.classes[3] == "cat" and test_set.fingerprint == CIFAR10.fingerprints["test"].images


def test_excerpt_is_in_the_order_of_its_digests() -> None:
    excerpt = load(split="excerpt", root=Path("nowhere"))
    digests = [hashlib.sha256(image.tobytes()).digest() for image in excerpt.images]
    assert digests == sorted(digests) and len(set(digests)) == 10_000
    known = CIFAR10.fingerprints["excerpt"].images
    assert hashlib.sha256(b"".join(digests)).hexdigest() == excerpt.fingerprint == known
    stored = np.load(SHIPPED / "train-excerpt-labels.npy")
    assert np.bincount(stored).tolist() == np.bincount(excerpt.labels).tolist()


@pytest.mark.parametrize("layout", ["batches", "resaved", "mosaic", "folders"])
def test_every_layout_gives_the_same_arrays(layout: str, roots: dict[str, Path], test_set: Images) -> None:
    images = load(root=roots[layout])
    assert np.array_equal(images.images, test_set.images) and np.array_equal(images.labels, test_set.labels)
    assert np.array_equal(images.index, test_set.index) and images.fingerprint == test_set.fingerprint
    assert images.images.flags.c_contiguous


def test_a_directory_without_the_test_set_leaves_the_shipped_one(tmp_path: Path, test_set: Images) -> None:
    assert np.array_equal(load(root=tmp_path).images, test_set.images)


def test_take_keeps_places(test_set: Images) -> None:
    rows = shuffle(10_000, 1)[:100]
    part = test_set.take(rows)
    assert np.array_equal(part.index, rows) and part.fingerprint == test_set.fingerprint
    assert np.array_equal(part.images[7], test_set.images[rows[7]]) and part.labels[7] == test_set.labels[rows[7]]


def refused(match: str, **arguments: Any) -> str:
    with pytest.raises(UserError, match=match) as caught:
        load(**arguments)
    return str(caught.value)


def test_missing_data_says_what_to_fetch(tmp_path: Path) -> None:
    for root in (None, tmp_path, tmp_path / "typo"):
        message = refused("directory", split="train", root=root)
        for word in ("torchvision", "cifar-10-batches-py", "train-0.webp", "train/airplane"):
            assert word in message
    assert "typo" in refused("no such directory", root=tmp_path / "typo")


def test_a_download_that_fails_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port: refused at once
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("no_proxy", raising=False), monkeypatch.delenv("NO_PROXY", raising=False)
    assert str(tmp_path / "new") in refused(
        "could not be downloaded", split="train", root=tmp_path / "new", download=True
    )


def test_unknown_names_are_corrected() -> None:
    refused("did you mean 'cifar10'", dataset="cifar-10")
    refused("did you mean 'test'", split="tests")


def damaged(source: Path, target: Path, name: str, change: Any) -> Path:
    """A copy of a layout with one file's bytes changed (None: the file removed)."""
    shutil.copytree(source, target)
    content = change((target / name).read_bytes())
    if content is None:
        (target / name).unlink()
    else:
        (target / name).write_bytes(content)
    return target


CUT = {"cut": lambda raw: raw[: len(raw) // 2], "empty": lambda raw: b"", "missing": lambda raw: None}


@pytest.mark.parametrize("damage", CUT)
@pytest.mark.parametrize(
    "layout, name",
    [("mosaic", "test.webp"), ("mosaic", "test-labels.npy"), ("batches", "cifar-10-batches-py/test_batch")],
)
def test_damaged_files_are_named(damage: str, layout: str, name: str, roots: dict[str, Path], tmp_path: Path) -> None:
    root = damaged(roots[layout], tmp_path / "copy", name, CUT[damage])
    match = "is missing" if damage == "missing" else "cannot be read"
    assert str(root / name) in refused(match, root=root)


def test_one_wrong_pixel_is_found(roots: dict[str, Path], tmp_path: Path) -> None:
    name = "cifar-10-batches-py/test_batch"
    root = damaged(roots["batches"], tmp_path / "copy", name, lambda raw: raw[:5000] + b"\x00\xff" + raw[5002:])
    assert "fingerprint" in refused("not the images of CIFAR-10", root=root)


def test_one_wrong_label_is_found(roots: dict[str, Path], tmp_path: Path) -> None:
    def relabel(raw: bytes) -> bytes:
        return raw[:-1] + bytes([(raw[-1] + 1) % 10])

    root = damaged(roots["mosaic"], tmp_path / "copy", "test-labels.npy", relabel)
    assert "test-labels.npy" in refused("not their labels", root=root)


def test_excerpt_is_not_taken_for_the_test_set(tmp_path: Path) -> None:
    for name in (".webp", "-labels.npy"):
        shutil.copy(SHIPPED / f"train-excerpt{name}", tmp_path / f"test{name}")
    refused("not the images", root=tmp_path)


def test_a_class_folder_must_be_whole(roots: dict[str, Path], tmp_path: Path, test_set: Images) -> None:
    folder = tmp_path / "test"
    (folder / "airplane").mkdir(parents=True)
    refused("no folder for automobile", root=tmp_path)
    for name in CLASSES:
        (folder / name).mkdir(exist_ok=True)
    Image.fromarray(test_set.images[0]).save(folder / "cat" / "0.png")
    refused("holds 1 PNG", root=tmp_path)


def test_absurd_images_are_not_decoded(tmp_path: Path) -> None:
    """The header is enough to refuse: a 16000 x 5000 mosaic, a label file of 2^60 entries, a sparse giant."""
    shutil.copy(SHIPPED / "test-labels.npy", tmp_path / "test-labels.npy")
    Image.new("RGB", (16_000, 5_000)).save(tmp_path / "test.webp", lossless=True, method=0, quality=0)
    refused(r"16000.*not RGB \(3200, 3200\)", root=tmp_path)
    Image.new("RGB", (3_200, 3_200)).save(tmp_path / "test.webp", "PNG")
    refused("cannot be read", root=tmp_path)
    with (tmp_path / "test.webp").open("wb") as file:
        file.truncate(2**40)
    refused("no file of CIFAR is that large", root=tmp_path)
    shutil.copy(SHIPPED / "test.webp", tmp_path / "test.webp")
    with (tmp_path / "test-labels.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (2**60,)})
    refused("test-labels.npy", root=tmp_path)
    np.save(tmp_path / "test-labels.npy", np.array([print] * 10_000, dtype=object), allow_pickle=True)
    refused("test-labels.npy", root=tmp_path)


class Touch:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_code_is_refused(protocol: int, tmp_path: Path) -> None:
    trace, batches = tmp_path / "trace", tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    payload = pickle.dumps({"data": Touch(trace), "labels": []}, protocol=protocol)
    pickle.loads(payload)
    assert trace.exists()  # the payload works
    trace.unlink()
    (batches / "test_batch").write_bytes(payload)
    assert "test_batch" in refused("it was not run", root=tmp_path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02cnumpy\nload\nU\x01x\x85R.",
        b"\x80\x02cbuiltins\neval\nU\x031+1\x85R.",
        b"\x80\x02]q\x00.",
        b"\x80\x02}(U\x04dataU\x03abcU\x06labels]u.",
        b"\x80\x02]r\xff\xff\xff\x7f.",
        b"\x80\x05\x96" + b"\xff" * 7 + b"\x0f.",
        b"not a pickle",
    ],
)
def test_hostile_or_foreign_pickles_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    assert "test_batch" in refused("cannot be read", root=tmp_path)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_fingerprint_is_that_of_the_set(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    digests = sorted(hashlib.sha256(image.tobytes()).digest() for image in images)
    assert fingerprint(images) == hashlib.sha256(b"".join(digests)).hexdigest()
    assert fingerprint(rng.permutation(images)) == fingerprint(images)
    if n:
        images[n // 2, 3, 4, 1] ^= 1
        assert fingerprint(images) != hashlib.sha256(b"".join(digests)).hexdigest()


@given(st.integers(1, 300), st.integers(0, 2**70))
def test_shuffle_is_a_permutation_of_its_seed(n: int, seed: int) -> None:
    assert sorted(shuffle(n, seed).tolist()) == list(range(n))
    assert np.array_equal(shuffle(n, seed), shuffle(n, seed))


def same(one: Images, other: Images) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_decoded_images_are_kept_and_never_believed(test_set: Images, tmp_path: Path) -> None:
    kept, file = tmp_path / "images", tmp_path / "images" / "cifar10-test.bin"
    assert same(load(kept=kept), test_set)
    whole = file.read_bytes()
    Image.fromarray(np.zeros((3200, 3200, 3), np.uint8)).save(tmp_path / "test.webp", lossless=True, method=0)
    shutil.copy(SHIPPED / "test-labels.npy", tmp_path)
    assert same(load(root=tmp_path, kept=kept), test_set), "from the file: these are not decoded"
    for spoilt in (whole[:-1], b"", whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:], whole + whole[:3073]):
        file.write_bytes(spoilt)
        with pytest.raises(UserError, match="not the images of CIFAR-10"):
            load(root=tmp_path, kept=kept)
        assert same(load(kept=kept), test_set)
        assert file.read_bytes() == whole


def test_shuffle_never_changes() -> None:
    assert shuffle(10, 0).tolist() == [8, 3, 0, 5, 7, 4, 2, 6, 9, 1]
    assert not np.array_equal(shuffle(1000, 1), shuffle(1000, 2))


def test_tensor_is_pixels_over_255(test_set: Images) -> None:
    tensor = as_tensor(test_set.images[:50])
    assert tensor.shape == (50, 3, 32, 32) and tensor.dtype == torch.float32 and tensor.is_contiguous()
    assert tensor.min() >= 0 and tensor.max() <= 1
    expected = test_set.images[:50].astype(np.float32) / np.float32(255)
    assert np.array_equal(tensor.numpy(), expected.transpose(0, 3, 1, 2))

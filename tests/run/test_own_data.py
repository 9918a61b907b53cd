"""Suites on a user's own data, end to end: trained, attacked and judged, whatever the size, channels and classes."""

from __future__ import annotations

import numpy as np
import own_data
import pytest
import small

from bench import UserError
from bench.recipes import Data
from bench.votes.numbers import fold

SUITE = """
[protocol]
shard = 20

[datasets.test]
{data}
stop = 30

[datasets.train]
{data}
start = 30
stop = 130

[trainings.short]
epochs = 1
batch = 50
augment = "flip"

[attacks.pgd]
kind = "pgd"
steps = 2
norm = "L2"
eps = "0.5"
step = "0.2"

[weights.net]
kind = "trained"
network = {{ depth = 10, width = 1, classes = {classes} }}
noise = {{ rank = 1 }}
data = "train"
training = "short"

[models.net]
weights = "net"
draws = 3

[tables.t]
rows = ["net"]
columns = ["clean", "pgd"]
"""
CHANGES = {"2 classes": (2, None), "8 classes, 64 x 64": (8, own_data.large), "10 classes, grey": (10, own_data.grey)}


@pytest.mark.parametrize("name", CHANGES)
def test_trained_and_judged(tmp_path, name):
    classes, change = CHANGES[name]
    images, labels = own_data.excerpt(140, classes)
    own_data.npz(tmp_path / "mine.npz", images if change is None else change(images), labels)
    text = SUITE.format(data='kind = "npz"\npath = "mine.npz"', classes=classes)
    counts = small.go(tmp_path, text=text)
    assert counts.records == 4
    opened = small.session(tmp_path, text)
    votes = [opened.votes(cell.outcomes) for cell in opened.suite.cells()]
    assert all(found.counts.shape == (30, classes) and set(found.drawn) == {3} for found in votes)
    assert len({tuple(found.index) for found in votes}) == 1 and max(votes[0].index) < 140
    assert 0 <= fold(votes[1], "expected").value <= fold(votes[0], "expected").high
    assert small.go(tmp_path, text=text).records == 0
    assert "A subset: 30 of the 140 test images" in (tmp_path / "results" / "small" / "tables.md").read_text()


def test_a_folder_and_a_function_give_the_same_votes(tmp_path):
    """Three ways to the same pixels: the weights and every vote are equal; only where they lie differs."""
    images, labels = own_data.excerpt(140, 2)
    order = np.argsort(labels, kind="stable")
    own_data.npz(tmp_path / "mine.npz", images[order], labels[order], classes=np.array(["a", "b"]))
    own_data.folder(tmp_path / "mine", images, labels, ("a", "b"))
    texts = [
        SUITE.format(data=f'kind = "{kind}"\npath = "{path}"', classes=2)
        for kind, path in (("npz", "mine.npz"), ("folder", "mine"))
    ]
    found = []
    for text in texts:
        assert small.go(tmp_path, text=text).records == 4
        opened = small.session(tmp_path, text)
        found.append([opened.votes(cell.outcomes) for cell in opened.suite.cells()])
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one.counts, other.counts) and np.array_equal(one.index, other.index)


def test_mistakes_name_the_place(tmp_path):
    text = SUITE.format(data='kind = "npz"\npath = "mine.npz"', classes=2)
    with pytest.raises(UserError, match=r"datasets.test.path: data set npz mine.npz: there is no mine"):
        small.session(tmp_path, text)
    with pytest.raises(UserError, match="leads outside"):
        small.session(tmp_path, text.replace("mine.npz", "../mine.npz"))
    own_data.npz(tmp_path / "mine.npz", *own_data.excerpt(140, 8))
    with pytest.raises(UserError, match="label 7 in the data, but the network has 2 classes"):
        small.go(tmp_path, text=text)


def test_a_suite_takes_rows_by_number(tmp_path):
    images, labels = own_data.excerpt(140, 2)
    own_data.npz(tmp_path / "mine.npz", images, labels)
    text = SUITE.format(data='kind = "npz"\npath = "mine.npz"', classes=2).replace(
        "stop = 30", "indices = [5, 3, 99]", 1
    )
    small.go(tmp_path, text=text)
    opened = small.session(tmp_path, text)
    votes = opened.votes(next(opened.suite.cells()).outcomes)
    assert votes.index.tolist() == [5, 3, 99] and votes.labels.tolist() == labels[[5, 3, 99]].tolist()
    assert isinstance(opened.suite.datasets["test"], Data)

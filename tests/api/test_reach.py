"""How far the Python interface reaches: few and many classes, half precision, recipes, files, results of suites."""

from __future__ import annotations

import api_models
import numpy as np
import own_data
import pytest
import small
import torch
from torch.utils.data import DataLoader, TensorDataset

import bench
from bench.lab.images.load import as_tensor
from bench.recipes import Fetched

CPU = {"device": "cpu", "progress": False}


@pytest.mark.parametrize("classes", [2, 1000])
def test_any_number_of_classes_from_a_loader(classes):
    images, _ = own_data.excerpt(12)
    net = api_models.Small(classes)
    with torch.no_grad():
        labels = net(as_tensor(images)).argmax(1)
    loader = DataLoader(TensorDataset(as_tensor(images), labels), batch_size=5, shuffle=True)
    report = bench.evaluate(net, loader, attacks=["pgd2", "pgd2-margin"], **CPU)
    assert report.clean.value == 1 and report.votes["clean"].counts.shape == (12, classes)
    if classes == 2:
        with pytest.raises(bench.UserError, match="three classes"):
            bench.evaluate(net, loader, attacks=["pgd2-dlr"], **CPU)


def test_grey_images_and_half_precision():
    images, labels = own_data.excerpt(8, 8)
    net = api_models.Small(channels=1).double()
    report = bench.evaluate(net, (own_data.grey(images), labels), attacks=["pgd1"], **CPU)
    assert any("float64" in flag for flag in report.flags) and next(net.parameters()).dtype == torch.float64


def test_a_recipe_as_model():
    report = bench.evaluate(Fetched(kind="autoattack-example"), "cifar10", attacks=(), n=4, **CPU)
    assert report.clean.n == 4 and 'kind = "autoattack-example"' in report.suite()


def test_a_function_of_the_users_in_a_suite(tmp_path, monkeypatch):
    """What `bench.dataset` prints is what a suite needs to run a function's images; other images are refused."""
    monkeypatch.chdir(tmp_path)
    own_data.npz(tmp_path / "some.npz", *own_data.excerpt(140, 2))
    code = (
        "import numpy as np\nfrom pathlib import Path\nHERE = Path(__file__).parent\n"
        "def data():\n    f = np.load(HERE / 'some.npz')\n    return f['images'], f['labels'], ['a', 'b']\n"
    )
    (tmp_path / "mine.py").write_text(code)
    lines = bench.dataset("python", "mine.py:data").toml()
    text = f"""
{lines}stop = 20
[networks.small]
depth = 10
width = 1
classes = 2
[weights.net]
kind = "trained"
network = "small"
data = {{ {", ".join(lines.splitlines()[1:])}, start = 40 }}
training = {{ epochs = 1, batch = 50, augment = "none" }}
[models.net]
weights = "net"
[tables.t]
rows = ["net"]
columns = ["clean"]
"""
    assert small.go(tmp_path, text=text).records == 2
    rows = bench.results(tmp_path)
    assert len(rows) == 1 and rows["attack"][0] == "clean" and rows["images"][0] == 20
    np.savez(tmp_path / "some.npz", images=np.zeros((140, 4, 4, 3), np.uint8), labels=np.zeros(140, int))
    small._images.clear()  # as another process has it
    with pytest.raises(bench.UserError, match="other images than declared"):
        small.go(tmp_path, text=text.replace("stop = 20", "stop = 10"))
    with pytest.raises(bench.UserError, match=r"holds no results"):
        bench.results(tmp_path / "nowhere")

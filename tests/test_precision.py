"""`precision = "auto"`: one key everywhere, the faster arithmetic where it answers alike, and records that say so."""

import numpy as np
import pytest
import torch
from oracles import CPU
from small import SUITE, go, session
from torch import nn

from bench.lab.compute import Compute
from bench.lab.precision import IMAGES, WORTHWHILE, answers_alike, gains, supported
from bench.lab.work import Lab
from bench.recipes import Examples, Model, Outcomes, Trained
from models.classifier import Plain
from models.noise import ColoredNoise, Noisy
from models.wide_resnet import WideResNet

AUTO = SUITE.replace("[protocol]", '[protocol]\nprecision = "auto"').replace("width = 1", "width = 2")
FAST = "bfloat16" if supported(CPU) else "float32"


def both(microbatch=512):
    return Compute(CPU, "float32", microbatch), Compute(CPU, "bfloat16", microbatch)


def test_a_network_that_answers_the_same_is_trusted():
    net = WideResNet(10, 1, generator=torch.Generator().manual_seed(0)).eval()
    images = torch.rand(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert answers_alike(Plain(net, 10), images, *both())
    assert answers_alike(Noisy(net, ColoredNoise(net), 10), images, *both()), "both see one draw"


def test_a_network_that_lives_by_the_last_bits_is_not():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2, bias=False))
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].weight[0, 0] = net[1].weight[1, 1] = 1000
    images = 0.7 + 1e-4 * torch.rand(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert not answers_alike(Plain(net, 2), images, *both())


def test_where_it_gains():
    assert gains(CPU, WORTHWHILE) == supported(CPU)
    assert not gains(CPU, WORTHWHILE - 1) and not gains(torch.device("meta"), WORTHWHILE)


def records_of(root):
    """The outcomes of every cell, with the provenance of their records."""
    opened = session(root, AUTO)
    return [(cell.outcomes, opened.manifest(cell.outcomes)["provenance"]) for cell in opened.suite.cells()]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("auto")
    go(root, text=AUTO)
    return root


def test_the_record_says_what_auto_was(root):
    for outcomes, about in records_of(root):
        assert outcomes.precision == "auto" and about["precision"] == FAST
        if outcomes.examples.source is not None:
            assert about["crafting_precision"] == FAST
    text = (root / "results" / "small" / "tables.md").read_text()
    assert ("omputed in bfloat16, not float32" in text) == (FAST == "bfloat16")


def test_exact_is_float32_under_the_same_keys(tmp_path):
    go(tmp_path, text=AUTO, exact=True)
    found = records_of(tmp_path)
    assert found and all(about["precision"] == "float32" for _, about in found)
    assert "not float32" not in (tmp_path / "results" / "small" / "tables.md").read_text()


def test_the_precision_is_part_of_the_key_and_no_device_is():
    model = Model(weights=Trained())
    keys = {Outcomes(examples=Examples(), target=model, precision=word).key for word in ("float32", "bfloat16", "auto")}
    assert len(keys) == 3


def test_a_doubtful_model_is_computed_in_float32_and_that_is_said(root, monkeypatch):
    import bench.lab.work as work

    monkeypatch.setattr(work, "answers_alike", lambda *args: False)
    opened = session(root, AUTO)
    lab = Lab(opened.settings)
    cell = next(iter(opened.suite.cells())).outcomes
    assert lab.precision("auto", cell.target, cell.examples.data) == "float32"
    assert any("otherwise in bfloat16" in note for note in lab.notes) == supported(CPU)
    assert lab.precision("bfloat16", cell.target, cell.examples.data) == "bfloat16", "what is declared is done"


def test_an_audit_of_auto_agrees(root):
    from bench.lab.inspect import recomputer

    opened = session(root, AUTO)
    recompute = recomputer(opened)
    cell = next(c for c in opened.suite.cells() if c.source and not c.outcomes.target.stochastic)
    votes = opened.votes(cell.outcomes)
    rows = np.arange(5)
    assert recompute(cell.outcomes, rows).counts.tolist() == votes.counts[rows].tolist()

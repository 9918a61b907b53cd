"""What a call is known by: whatever changes its numbers changes its key, so that no folder answers for another call."""

from __future__ import annotations

import api_models
import numpy as np
import own_data
import pytest
import torch
from torch import nn

import bench
from bench.lab.images.load import as_tensor
from bench.recipes import PGD, Worst

CPU = {"device": "cpu", "progress": False}
STEP = 0.0
SHIFT = 0.0


def some(n=12, classes=8):
    images, labels = own_data.excerpt(n, classes)
    return as_tensor(images), torch.from_numpy(labels)


def moves(model, images, labels, eps):
    return (images + further()).clamp(0, 1)


def further():
    return STEP


class Scaled(nn.Module):
    """A few images are answered by a number that is in no state dict, and that the probes do not show."""

    def __init__(self):
        super().__init__()
        self.net, self.scale, self.passes = api_models.Small(), 0.0, 0

    def forward(self, images):
        self.passes += 1
        bright = (images.flatten(1).amax(1) < 0.9)[:, None].float()
        return self.net(images) + bright * (self.scale + SHIFT) * torch.eye(8)[1]


def test_a_number_that_an_attack_reads_elsewhere_is_part_of_its_key(tmp_path, monkeypatch):
    """In one folder: a global of a function that the attack calls was not, and the former record answered."""
    found = []
    for step in (0.0, 0.02):
        monkeypatch.setitem(globals(), "STEP", step)
        report = bench.evaluate(api_models.Small(), some(), attacks=moves, out=tmp_path, **CPU)
        found.append(float(report.votes["moves"].linf.max()))
    assert found[0] == 0 and found[1] == pytest.approx(0.02, abs=1e-6)


@pytest.mark.parametrize("where", ["attribute", "global"])
def test_a_number_that_a_model_reads_elsewhere_is_part_of_its_key(where, tmp_path, monkeypatch):
    images, labels = some(12)
    images = images * 0.5  # all below 0.9
    net, counts = Scaled(), []
    for value in (0.0, 50.0):
        if where == "attribute":
            net.scale = value
        else:
            monkeypatch.setitem(globals(), "SHIFT", value)
        report = bench.evaluate(net, (images, labels), attacks=(), out=tmp_path, **CPU)
        counts.append(report.votes["clean"].counts.argmax(1))
    assert (counts[1] == 1).all() and not (counts[0] == 1).any()


def test_what_each_pass_changes_is_no_part_of_a_key(tmp_path):
    """A counter of passes, say: the same call finds its record."""
    net = Scaled()
    for _ in range(2):
        bench.evaluate(net, some(), attacks=(), out=tmp_path, **CPU)
    assert len(list(tmp_path.glob("results/records/*/*/votes.parquet"))) == 1 and net.passes > 20


def test_an_eps_an_image_goes_with_the_images_that_were_named():
    """Rows of a data set by number, each with its eps (verification instances): these rows, in that order."""
    data = bench.dataset("cifar10", indices=[9, 7, 5])
    report = bench.evaluate(api_models.Small(10), data, eps=np.array([0.0, 0.1, 0.2]), attacks="pgd1", **CPU)
    far = dict(zip(report.votes["pgd1"].index.tolist(), report.votes["pgd1"].linf.tolist(), strict=True))
    assert far.keys() == {9, 7, 5} and far[9] == 0
    assert far[7] == pytest.approx(0.1, abs=1e-6) and far[5] == pytest.approx(0.2, abs=1e-6)
    assert sorted(report.votes["clean"].index) == [5, 7, 9]


def test_a_declared_order_is_kept():
    net = api_models.Small(10)
    one, other, mine = (
        bench.evaluate(net, data, attacks=(), n=3, seed=seed, **CPU).votes["clean"].index.tolist()
        for data, seed in (("cifar10", 7), (bench.dataset("cifar10", shuffle=7), 0), (bench.dataset("cifar10"), 0))
    )
    assert one == other != mine


def test_an_attack_of_its_own_eps_is_named_by_it():
    """In a curve it was labelled by the others' eps; the strongest is looked for among all that reach as far."""
    four = PGD(steps=2, eps="4/255", step="1/255")
    report = bench.evaluate(api_models.Small(), some(), eps=["1/255", "8/255"], attacks=["fgsm", four], **CPU)
    assert set(report.attacks) == {"fgsm@1/255", "fgsm@8/255", "pgd2@4/255"}
    assert [eps for eps, _ in report.curve("pgd2")] == [0.0, 4 / 255]
    worst = Worst(attacks=(PGD(steps=3, eps="8/255"), PGD(steps=2, eps="8/255")))
    report = bench.evaluate(api_models.Small(), some(), attacks=[worst, PGD(steps=0, random_start=False)], **CPU)
    assert report.strongest == "worst"


def test_noise_is_found_where_it_is_faint_or_rare():
    """Such were refused, in words for suites; and a model with a generator of its own, which suites take."""
    images, labels = some(20)
    torch.manual_seed(0)

    class Faint(api_models.Small):
        def forward(self, x):
            return super().forward(x + 1e-6 * torch.randn_like(x))

    class Rare(api_models.Small):
        def forward(self, x):
            return super().forward(x + 0.3 * (torch.rand(1) < 0.08) * torch.randn_like(x))

    class Own(api_models.Small):
        def __init__(self, dice):
            super().__init__()
            self.dice = dice

        def forward(self, x):
            if isinstance(self.dice, torch.Generator):
                return super().forward(x + 0.2 * torch.randn(x.shape, generator=self.dice))
            return super().forward(x + torch.from_numpy(0.2 * self.dice.standard_normal(tuple(x.shape))).float())

    for net in (Faint(), Rare(), Own(torch.Generator().manual_seed(1)), Own(np.random.default_rng(1))):
        dice = getattr(net, "dice", None)
        before = None if dice is None else next_of(dice)
        report = bench.evaluate(net, (images, labels), attacks=(), draws=4, **CPU)
        assert report.stochastic and report.clean.draws == 4
        if dice is not None:
            assert next_of(dice) == before, "it is given back as it was"
    assert not bench.evaluate(api_models.Small(), (images, labels), attacks=(), draws=4, **CPU).stochastic


def next_of(dice):
    import copy

    if isinstance(dice, torch.Generator):
        return dice.get_state().tolist()
    return copy.deepcopy(dice).random()


def test_images_that_differ_at_each_reading_are_named():
    from torch.utils.data import TensorDataset

    images, labels = some(12)

    class Moving(TensorDataset):
        def __getitem__(self, row):
            image, label = super().__getitem__(row)
            return (image + 0.1 * torch.rand_like(image)).clamp(0, 1), label

    report = bench.evaluate(api_models.Small(), Moving(images, labels), attacks=(), **CPU)
    assert any("differ each time they are read" in flag for flag in report.flags)
    still = bench.evaluate(api_models.Small(), TensorDataset(images, labels), attacks=(), **CPU)
    assert not still.flags


def test_whole_numbers_of_any_library():
    images, labels = some(12)
    report = bench.evaluate(
        api_models.Noisy(), (images, labels), attacks="pgd1", n=np.int64(6), draws=torch.tensor(3), eot=np.int32(1),
        seed=np.uint8(3), batch=np.int16(4), device=torch.device("cpu"), progress=False,
    )  # fmt: skip
    assert (report.clean.n, report.clean.draws, report.protocol["seed"]) == (6, 3, 3)
    assert report.attacks["pgd1"] is not None
    for ways in ({"pgd1", "fgsm"}, (name for name in ("pgd1", "fgsm"))):
        found = bench.evaluate(api_models.Small(), some(6), attacks=ways, **CPU)
        assert found.attacks.keys() == {"pgd1", "fgsm"}


def test_inside_no_grad_and_inference_mode():
    net, data = api_models.Small(), some(12)
    plain = bench.evaluate(net, data, attacks="pgd2", **CPU)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            inside = bench.evaluate(net, data, attacks="pgd2", **CPU)
        assert np.array_equal(inside.votes["pgd2"].counts, plain.votes["pgd2"].counts)

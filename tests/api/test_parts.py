"""The parts by themselves: interrupted they keep what is finished, and go on in a folder; reports are paired."""

from __future__ import annotations

import api_models
import numpy as np
import own_data
import pytest
import torch
from torch import nn

import bench
from bench.lab.images.load import as_tensor
from bench.lab.worker import Lab

CPU = {"device": "cpu", "progress": False}


def some(n=30, classes=8):
    images, labels = own_data.excerpt(n, classes)
    return as_tensor(images), torch.from_numpy(labels)


@pytest.fixture
def stopping(monkeypatch):
    """Interrupts the lab before its k-th task of judging or crafting; what was done is counted."""
    about = {"at": 10**9, "did": 0}
    perform = Lab.perform

    def stops(lab, task):
        if task.shard is not None:
            if about["did"] >= about["at"]:
                raise KeyboardInterrupt
            about["did"] += 1
        return perform(lab, task)

    monkeypatch.setattr(Lab, "perform", stops)
    return about


def test_an_attack_keeps_what_is_finished_and_goes_on(stopping, tmp_path, monkeypatch):
    """Three shards, interrupted after two: these come back; the same call makes the third alone."""
    from bench.api import parts

    monkeypatch.setattr(parts, "Protocol", lambda **how: bench.suite.schema.Protocol(shard=10, **how))
    net, data = api_models.Small(), some(30)
    whole = bench.attack(net, data, "pgd2", **CPU)
    assert stopping["did"] == 3 and whole.flags == () and len(whole.images) == 30
    stopping |= {"at": 2, "did": 0}
    part = bench.attack(net, data, "pgd2", out=tmp_path, **CPU)
    assert torch.equal(part.images, whole.images[:20]) and part.index.tolist() == list(range(20))
    assert torch.equal(part.claimed, whole.claimed[:20]) and "interrupted" in part.flags[-1]
    stopping |= {"at": 10**9, "did": 0}
    again = bench.attack(net, data, "pgd2", out=tmp_path, **CPU)
    assert stopping["did"] == 1 and torch.equal(again.images, whole.images) and again.flags == ()
    assert torch.equal(bench.attack(net, data, "pgd2", out=tmp_path, **CPU).images, whole.images)
    assert stopping["did"] == 1
    stopping |= {"at": 0}
    with pytest.raises(KeyboardInterrupt):
        bench.attack(net, data, "pgd3", out=tmp_path, **CPU)


def test_a_certificate_keeps_what_is_finished_and_is_that_of_suites(stopping, tmp_path, monkeypatch):
    from bench.api import parts
    from bench.report.certificates import certificates

    monkeypatch.setattr(parts, "TURN", 10)
    net, data, about = api_models.Small(), some(30), {"n0": 10, "draws": 100}
    seen = []
    monkeypatch.setattr(parts, "_certified", lambda *given, true=parts._certified: seen.append(given) or true(*given))
    whole = bench.certify(net, data, 0.1, **about, **CPU)
    assert stopping["did"] == 6 and whole.accuracy[0.0].n == 30 and whole.accuracy[0.0].draws == 100
    stopping |= {"at": 5, "did": 0}
    part = bench.certify(net, data, 0.1, out=tmp_path, **about, **CPU)
    assert len(part.radius) == 20 and "interrupted" in part.flags[-1]
    rows = {index: radius for index, radius in zip(whole.index, whole.radius, strict=True)}
    assert [rows[index] for index in part.index] == part.radius.tolist()
    stopping |= {"at": 10**9, "did": 0}
    again = bench.certify(net, data, 0.1, out=tmp_path, **about, **CPU)
    assert stopping["did"] == 1 and np.array_equal(again.radius, whole.radius)
    assert again.accuracy == whole.accuracy and certificates is not None


def test_a_model_of_more_classes_than_the_data_shows():
    """Six of a model's eight classes are in the data: attacked, judged and certified all the same."""
    net, data = api_models.Small(8), some(12, 6)
    assert len(bench.attack(net, data, "pgd1", **CPU).images) == 12
    assert bench.certify(net, data, 0.1, n0=10, draws=20, **CPU).accuracy[0.0].n == 12
    assert bench.diagnose(net, data, "pgd2", n=12, queries=2, **CPU)


def test_a_diagnosis_is_kept_and_marks_the_numbers_beside_it(tmp_path, monkeypatch):
    """A network without a gradient worth its name is marked; in a folder, what was found is read and not done again."""
    from bench.lab.examine import diagnose as module

    net = Flat()
    found = bench.diagnose(net, some(16), "pgd2", n=16, queries=5, out=tmp_path, **CPU)
    marks = {one.check for one in found if one.verdict == "suspicious"}
    assert marks
    monkeypatch.setattr(module, "attacked", lambda *given: 1 / 0)
    assert bench.diagnose(net, some(16), "pgd2", n=16, queries=5, out=tmp_path, **CPU) == found
    report = bench.evaluate(net, some(16), attacks="pgd2", out=tmp_path, **CPU)
    assert any("suspicious: bench diagnose marks" in flag for flag in report.flags)


def test_an_interrupted_diagnosis_says_so(monkeypatch, tmp_path):
    from bench.lab.examine import diagnose as module

    def stops(*given):
        raise KeyboardInterrupt
        yield

    true = module.attacked
    monkeypatch.setattr(module, "attacked", stops)
    found = bench.diagnose(api_models.Small(), some(16), "pgd2", n=16, queries=5, out=tmp_path, **CPU)
    assert found[-1].check == "interrupted" and len(found) > 5 and found[-1].verdict == "cannot tell"
    monkeypatch.setattr(module, "attacked", true)
    assert "large-eps" in {
        one.check for one in bench.diagnose(api_models.Small(), some(16), "pgd2", n=16, queries=5, out=tmp_path, **CPU)
    }


class Flat(api_models.Small):
    """Logits so large that the softmax of float32 is 0 or 1."""

    def forward(self, images):
        return 1e6 * super().forward(images)


class Shared(nn.Module):
    """One number of noise for all images of a batch: their answers err together."""

    def __init__(self, classes=8):
        super().__init__()
        self.net = api_models.Small(classes)

    def forward(self, images):
        logits = self.net(images)
        return logits + 30 * torch.randn(1) * torch.eye(logits.shape[1])[0]


def test_two_reports_know_of_draws_that_images_share():
    """The same model by two seeds: its true difference is none, and an interval that takes each image's draws for its
    own misses that far more often than one time in twenty."""
    data, missed, narrow = some(60), 0, 0
    net = Shared()
    with torch.no_grad():
        data = data[0], net.net(data[0]).argmax(1)
    from bench.votes import intervals
    from bench.votes.numbers import correct

    for seed in range(0, 12, 2):
        one, other = (bench.evaluate(net, data, attacks=(), draws=4, seed=seed + k, n=60, **CPU) for k in (0, 1))
        found = bench.compare(one, other)["clean"]
        missed += not found.low <= 0 <= found.high
        votes = (report.votes["clean"] for report in (one, other))
        a, b = (correct(some_, "expected")[some_.index.argsort()] for some_ in votes)
        before = intervals.paired_difference(a, b)
        narrow += not before.low <= 0 <= before.high
        assert found.n == 60 and abs(found.difference - before.value) < 1e-9
    assert narrow >= 2 and missed < narrow and missed <= 1


def test_reports_of_other_images_or_another_eps_are_not_compared():
    net, (images, labels) = api_models.Small(), some(12)
    one = bench.evaluate(net, (images, labels), attacks="pgd2", **CPU)
    with pytest.raises(bench.UserError, match="12 of 12 at the same places differ"):
        bench.compare(one, bench.evaluate(net, (1 - images, labels), attacks="pgd2", **CPU))
    for how in ({"eps": "1/255"}, {"eps": 0.5, "norm": "L2"}):
        with pytest.raises(bench.UserError, match=r"pgd2 moved images by Linf 0\.03137 in the first"):
            bench.compare(one, bench.evaluate(net, (images, labels), attacks="pgd2", **how, **CPU))
    part = bench.evaluate(net, (images[:8], labels[:8]), attacks="pgd2", **CPU)
    assert bench.compare(one, part)["pgd2"].n == 8

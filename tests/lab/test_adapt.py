"""Views by interception: every false defence falls and is named, and no honest model is."""

from __future__ import annotations

import functools

import fakes
import pytest
import torch
from oracles import compute, resnet18, streams, test_images, trained
from torch import nn

from bench.lab.attacks import adapt, losses
from bench.lab.attacks.adapt import Ball, Choice, Surrogate, copies, kinds
from bench.models.classifier import Plain

BALL = Ball(8 / 255)
WORDS = {
    "rounded logits": "`round` in fakes.py",
    "quantised inputs": "`byte` in fakes.py",
    "thermometer": "`gt` in fakes.py",
    "rounded cosines": "`round` in fakes.py",
    "staircase": "`sigmoid` in fakes.py",
    "detached": "`detach` in fakes.py",
    "numpy": "`numpy` in fakes.py",
    "data": "`data` in fakes.py",
    "traced quantiser": "layer net.grid",
    "inference mode": "`inference_mode` in fakes.py",
    "turned gradient": "`Turn` in fakes.py",
    "lying backward": "`Lie` in fakes.py",
    "shrinking hooks": "`register_hook` in fakes.py",
    "sharpened softmax": "`softmax` in fakes.py",
    "one-hot beside a decoy": "`argmax` in fakes.py",
    "one of three": "`byte` in fakes.py",
    "sine": "`sin` in fakes.py",
    "k-winners": "`topk` in fakes.py",
    "gate at low temperature": "`sigmoid` in fakes.py",
    "noise that hides the gradient": "`sin` in fakes.py",
    "borrowed confidence": "the model's own logits mislead, those in fakes.py",
    "remembered queries": "the model remembers its queries",
    "reversed confidence": "the model's own logits mislead, those in fakes.py",
    "sparse backward": "`Sparsen` in fakes.py",
    "drowned backward": "`Drown` in fakes.py",
    "half detached": "`detach` in fakes.py",
    "python's random": "`floor` in fakes.py",
}
"""What the findings must say; false defences that are not here hide no gradient from a margin loss."""


@functools.cache
def victims(n=16):
    """A small undefended network, and images that it gets right."""
    net = trained(False).net
    images, labels = test_images(100)
    right = net(images).argmax(1) == labels
    return net, images[right][:n], labels[right][:n]


def searched(name, net, images, labels):
    torch.manual_seed(0)
    model = fakes.FAKES[name](net).eval()
    return adapt.search(model, images, labels, BALL, streams(), compute())


def left_at_best(found):
    return min(trial.left for trial in found.trials)


@pytest.mark.parametrize("name", fakes.FAKES)
def test_a_false_defence_falls_and_is_named(name):
    net, images, labels = victims()
    plain = adapt.search(net, images, labels, BALL, streams(), compute())
    found = searched(name, net, images, labels)
    assert left_at_best(found) <= left_at_best(plain) + max(0.05, 1.01 / len(images)), found.trials
    said = " ".join(found.findings)
    assert WORDS.get(name, "") in said, said
    assert name in WORDS or not said


@pytest.mark.slow
@pytest.mark.parametrize("name", fakes.FAKES)
def test_a_false_defence_over_a_real_network_falls(name):
    net = resnet18().net
    images, labels = test_images(13)
    right = net(images).argmax(1) == labels
    found = searched(name, net, images[right][:12], labels[right][:12])
    assert left_at_best(found) <= 0.05
    assert WORDS.get(name, "") in " ".join(found.findings)


def test_an_honest_model_is_left_alone():
    net, images, labels = victims()
    honest = trained(True).net
    for eps in (0.5 / 255, 2 / 255, 8 / 255):
        for model in (net, honest):
            found = adapt.search(model, images, labels, Ball(eps), streams(), compute())
            assert found.findings == () and found.left_out == ()
            assert found.views[0] is found.judge or found.trials[0].left < left_at_best(found) + 0.05


def test_everything_on_changes_nothing_where_nothing_hides():
    net, images, labels = victims()
    base = copies.copied(Plain(net, 10))
    views = [Surrogate(base, Choice(frozenset(on))) for on in ((), kinds.EVERYTHING)]
    slopes = [compute().gradient(v.realise(images.shape, None), images, labels, losses.margin)[1] for v in views]
    assert torch.equal(*slopes)


def test_the_model_is_as_it_was():
    net, images, labels = victims()
    model = fakes.Remembering(net)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapt.search(model, images, labels, BALL, streams(), compute())
    assert model.seen == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Breaks(nn.Module):
    """Runs as it is, and not under interception: it insists on what detach returns."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        cut = x.detach()
        if cut.requires_grad:
            raise RuntimeError("I am watched")
        return self.net(cut)


def test_a_view_that_fails_is_left_out_with_its_reason():
    net, images, labels = victims()
    found = adapt.search(Breaks(net), images, labels, BALL, streams(), compute())
    assert any("I am watched" in reason for reason in found.left_out)
    assert found.views[-1] is found.judge


def test_patches_are_gone_afterwards():
    apply, from_numpy = torch.autograd.Function.__dict__["apply"], torch.from_numpy
    net, images, labels = victims()
    model = fakes.Turned(net)
    adapt.search(model, images, labels, BALL, streams(), compute())
    assert torch.autograd.Function.__dict__["apply"] is apply and torch.from_numpy is from_numpy
    assert model.turn.__self__ is fakes.Turn


def test_the_number_is_the_untouched_models_own():
    net, images, labels = victims()
    found = searched("quantised inputs", net, images, labels)
    assert isinstance(found.judge, Plain) and isinstance(found.judge.net, fakes.Quantised)
    assert found.kept[0].before == pytest.approx(next(t.left for t in found.trials if t.choice == kinds.NOTHING))


def test_l2_balls_keep_their_radius():
    _, images, _ = victims()
    ball = Ball(0.5, "L2")
    there = ball.anywhere(images, torch.Generator().manual_seed(0))
    there = ball.ascend(there, torch.randn(images.shape, generator=torch.Generator().manual_seed(1)), images, 0.5)
    assert float((there - images).flatten(1).norm(dim=1).max()) <= 0.5 + 1e-6
    assert float(there.min()) >= 0 and float(there.max()) <= 1

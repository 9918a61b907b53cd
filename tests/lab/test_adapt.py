"""Views by interception: every false defence falls and is named, and no honest model is."""

from __future__ import annotations

import copy
import functools
import threading

import fakes
import pytest
import torch
from oracles import compute, resnet18, streams, test_images, trained
from torch import nn

from bench.lab.attacks import adapt, losses
from bench.lab.attacks.adapt import Ball, Budget, Choice, Surrogate, copies, kinds
from bench.lab.compute.compiling import compile_for
from bench.models import defences
from bench.models.adapters.wrappers import GlobalRandom
from bench.models.classifier import Plain
from bench.models.noise import ColoredNoise, Noisy
from bench.models.wide_resnet import WideResNet

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
    "inference mode": "`inference_mode`",
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
    "borrowed confidence": "the model's own logits mislead",
    "remembered queries": "the model remembers its queries",
    "reversed confidence": "the model's own logits mislead",
    "sparse backward": "`Sparsen` in fakes.py",
    "drowned backward": "`Drown` in fakes.py",
    "half detached": "`detach` in fakes.py",
    "jpeg": "`numpy` in fakes.py",
    "turned over": "the model's own logits mislead",
    "scripted": "`_steps` in fakes.py",
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


def searched(name, net, images, labels, steps=10):
    torch.manual_seed(0)
    model = fakes.FAKES[name](net).eval()
    return adapt.search(model, images, labels, BALL, streams(), compute(), budget=Budget(steps=steps))


def left_at_best(found):
    return min(trial.left for trial in found.trials)


OFTEN = list(fakes.FAKES)[::6]  # one of each sort at every run of the tests, all of them with the slow ones
SELDOM = [pytest.param(name, marks=pytest.mark.slow) for name in fakes.FAKES if name not in OFTEN]


@pytest.mark.parametrize("name", [*OFTEN, *SELDOM])
def test_a_false_defence_falls_and_is_named(name):
    net, images, labels = victims()
    plain = adapt.search(net, images, labels, BALL, streams(), compute())
    found = searched(name, net, images, labels, steps=20)
    one = 1 / len(found.trials[0].right)  # image
    assert left_at_best(found) <= left_at_best(plain) + max(0.05, 1.01 * one), found.trials
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


class Smooth(torch.autograd.Function):
    """x sigmoid(x) with a backward pass of its own, as written to save memory."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        gate = x.sigmoid()
        return slope * gate * (1 + x * (1 - gate))


class Through(fakes.Fake):
    """A network between two honest functions."""

    def __init__(self, net, before=lambda x: x, after=lambda z: z):
        super().__init__(net)
        self.before, self.after = before, after


class Two(nn.Module):
    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        return sum(part(x) for part in self.parts) / len(self.parts)


def _attention(x):
    """The image, and a little of what its own pixels say of each other: an honest softmax and an honest gate."""
    coarse = nn.functional.avg_pool2d(x, 4)
    flat = coarse.flatten(2)
    mixed = (flat @ (flat.mT @ flat / 2).softmax(-1)).view_as(coarse).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return x + 0.1 * torch.sigmoid(mixed.mean((2, 3), keepdim=True)) * (mixed - x)


def _padded(x):
    side = int(torch.randint(28, 33, ()))
    small = nn.functional.interpolate(x, (side, side), mode="bilinear", antialias=True)
    return nn.functional.pad(small, (0, 32 - side, 0, 32 - side))


HONEST = {
    "undefended": lambda: trained(False).net,
    "adversarially trained": lambda: trained(True).net,
    "two in one": lambda: Two(trained(True).net, trained(False).net),
    "probabilities": lambda: Through(trained(True).net, after=lambda z: z.softmax(1)),
    "input noise": lambda: Through(trained(True).net, before=lambda x: x + 0.05 * torch.randn_like(x)),
    "resized and padded": lambda: Through(trained(True).net, before=_padded),
    "own backward": lambda: Through(trained(True).net, after=Smooth.apply),
    "attention and normalisation": lambda: Through(
        trained(True).net, before=lambda x: _attention(x) / x.detach().std((1, 2, 3), keepdim=True) * x.std()
    ),
}


@pytest.mark.parametrize(
    "name", [*list(HONEST)[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in list(HONEST)[2:])]
)
def test_an_honest_model_is_left_alone(name):
    model = HONEST[name]().eval()
    images, labels = test_images(100)
    for eps in (2 / 255, 8 / 255):
        found = adapt.search(model, images, labels, Ball(eps), streams(), compute())
        assert found.findings == () and found.left_out == ()
        plain = next(trial.left for trial in found.trials if trial.choice == kinds.NOTHING)
        assert left_at_best(found) > plain - 0.1, found.trials


def test_everything_on_changes_nothing_where_nothing_hides():
    net, images, labels = victims()
    base = copies.copied(Plain(net, 10))
    views = [Surrogate(base, Choice(frozenset(on))) for on in ((), kinds.EVERYTHING)]
    slopes = [compute().gradient(v.realise(images.shape, None), images, labels, losses.margin)[1] for v in views]
    assert torch.equal(*slopes)


def _dice(seed=0):
    return torch.Generator().manual_seed(seed)


def _wide():
    return WideResNet(10, 1, generator=_dice()).eval()


OWN = {
    "cni": lambda: Noisy(_wide(), ColoredNoise(_wide(), generator=_dice()), 10),
    "rnd": lambda: defences.RND(Plain(_wide(), 10)),
    "features": lambda: defences.RandomFeatures(_wide(), 10, 0.3),
    "resize-pad": lambda: defences.ResizePad(Plain(_wide(), 10)),
    "crops": lambda: defences.CropEnsemble(Plain(_wide(), 10)),
    "sap": lambda: defences.SAP(_wide(), 10),
    "precision": lambda: defences.RandomPrecision(_wide(), 10, 1, 3),
    "rpf": lambda: defences.RPF(_wide(), 10),
    "ctrw": lambda: defences.CTRW(_wide(), 10),
    "wca": lambda: defences.WCA(_wide(), 10, generator=_dice(3)),
    "slwta": lambda: defences.SLWTA(defences.LWTAWideResNet(10, 1, generator=_dice()), 10),
}


@pytest.mark.parametrize("name", OWN)
def test_everything_on_answers_as_the_model_does(name):
    """Ours and others' noise through the same door: the same draw, the same logits, and a gradient to follow."""
    model = OWN[name]().eval()
    images = torch.rand(3, 3, 32, 32, generator=_dice(1))
    view = Surrogate(copies.copied(model), Choice(frozenset(kinds.EVERYTHING)))
    with torch.no_grad():
        own = model.realise(images.shape, _dice(2))(images)
    leaf = images.clone().requires_grad_(True)
    logits = view.realise(images.shape, _dice(2))(leaf)
    assert logits.dtype == own.dtype and torch.allclose(logits, own, atol=1e-4)
    (slope,) = torch.autograd.grad(logits[:, 0].sum(), leaf)
    assert bool(slope.isfinite().all()) and bool(slope.any())


def test_the_model_is_as_it_was():
    net, images, labels = victims()
    model = fakes.Remembering(net)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapt.search(model, images, labels, BALL, streams(), compute())
    assert model.seen == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Keeps(nn.Module):
    """Holds what Python cannot copy, and draws from a generator of its own."""

    def __init__(self, net):
        super().__init__()
        self.net, self.lock, self.dice = net, threading.Lock(), torch.Generator().manual_seed(1)

    def forward(self, x):
        with self.lock:
            noise = torch.randn(x.shape, generator=self.dice)
        return self.net((x + 0.001 * noise).round(decimals=1))


def test_a_model_with_a_lock_and_a_generator_of_its_own_is_copied():
    net, images, labels = victims()
    model = Keeps(net)
    found = adapt.search(model, images, labels, BALL, streams(), compute())
    assert left_at_best(found) <= 0.07 and "`round` in test_adapt.py" in found.findings[0]
    assert found.judge.stochastic and len(found.findings) == 1  # noise that moves on is no memory of queries


def test_a_view_without_noise_is_deterministic():
    net, images, labels = victims()
    base = copies.copied(GlobalRandom(fakes.Gate(net), 10))
    found = adapt.search(base, images, labels, BALL, streams(), compute())
    expected = Surrogate(base, Choice(frozenset(("expectation",))))
    draws = [expected.realise(images.shape, streams().generator("grad", k))(images) for k in range(2)]
    assert torch.equal(*draws)
    assert all(view.stochastic == (not view.choice.kinds & {"expectation"}) for view in found.views[:-1])


def test_a_copy_of_a_compiled_network_is_its_own():
    net, images, _ = victims()
    model = Plain(copy.deepcopy(net), 10)
    undo = compile_for(model.net, 99, backend="eager")
    other = copies.copied(model)
    other.net[0].weight.zero_()
    assert not torch.equal(other(images), model(images))
    undo()


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


def test_l2_finds_as_well():
    net, images, labels = victims()
    model = fakes.Quantised(net).eval()
    found = adapt.search(model, images, labels, Ball(1.0, "L2"), streams(), compute())
    assert left_at_best(found) <= 0.07 and "`byte` in fakes.py" in found.findings[0]

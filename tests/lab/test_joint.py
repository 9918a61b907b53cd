"""Draws that share a pass: the same noise, the same answers, fewer passes; and where they must not."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import CPU, noise_images, shard_of, small_net, streams
from torch import Tensor, nn

from bench.lab.attacks import losses
from bench.lab.attacks.view import View
from bench.lab.compute.passes import Compute
from bench.lab.compute.precision import Fitting
from bench.lab.judge import judge, looks
from bench.lab.worker import Lab
from bench.models.classifier import Classifier, Plain
from bench.models.noise import ColoredNoise, Noisy
from bench.models.smoothing import Smoothed
from bench.models.wide_resnet import WideResNet
from bench.recipes import Data, Examples, Stopping
from bench.store.tasks import Settings
from bench.votes import stopping


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def both(microbatch: int = 64) -> tuple[Compute, Compute]:
    return tuple(Compute(CPU, microbatch=microbatch, joining=joining) for joining in (True, False))


class Batches(nn.Module):
    """A network that remembers how many images each of its calls had."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.sizes = net, []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        return self.net(images)


def counted(sigma: float = 0.3) -> tuple[Smoothed, list[int]]:
    net = Batches(small_net().net)
    return Smoothed(Plain(net, 10), sigma).eval().requires_grad_(False), net.sizes


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4),
    st.none() | st.lists(st.integers(0, 6), min_size=1, max_size=7, unique=True),
    st.sampled_from(["pixels", "normalised"]),
    st.integers(1, 9),
)
def test_each_image_meets_the_noise_of_its_draw(seeds: list[int], rows: list[int] | None, unit: str, size: int) -> None:
    """To the last bit, in any part of the joint batch."""
    model = Smoothed(Plain(nn.Flatten(), 75), 0.25, unit, (0.2, 0.3, 0.5))  # type: ignore[arg-type]
    images = torch.rand(7, 3, 5, 5, generator=seeded(1))
    chosen = None if rows is None else torch.tensor(rows)
    some = images if chosen is None else images[chosen]
    alone = torch.cat([model.realise(images.shape, seeded(seed))(some, chosen) for seed in seeds])
    joint = model.realise_all(images.shape, [seeded(seed) for seed in seeds], chosen)
    several = some.repeat(len(seeds), 1, 1, 1)
    assert torch.equal(joint(several), alone)
    for start in range(0, len(several), size):
        part = torch.arange(start, min(start + size, len(several)))
        assert torch.equal(joint(several[part], part), alone[part])


def colored(sigma: float) -> Classifier:
    net = WideResNet(10, 1, generator=seeded(0)).eval()
    noisy = Noisy(net, ColoredNoise(net, generator=seeded(1)), 10)
    return (Smoothed(noisy, sigma) if sigma else noisy).requires_grad_(False)


@pytest.mark.parametrize("sigma", [0.0, 0.2])
def test_noise_in_weights_shares_no_pass(sigma: float) -> None:
    model, images = colored(sigma), torch.rand(2, 3, 32, 32, generator=seeded(2))
    assert not model.joins and Compute(CPU).joint(model, 8, 2) == 1
    with pytest.raises(NotImplementedError, match="for itself"):
        model.realise_all(images.shape, [seeded(0), seeded(1)])
    view = View(model, images.shape, streams(), Compute(CPU))
    assert len(list(view.all_logits(images, None, 3, "select"))) == 3


class Clamped(Smoothed):
    """Somebody's own noise: what the parent knows of draws is not true of it."""

    def realise(self, shape, generator):
        return lambda images, rows=None: self.base.net(images.clamp(0.4, 0.6))


class ByRow(Plain):
    """A deterministic network that asks which rows of the batch it was made for it is given."""

    def realise(self, shape, generator=None):
        shift = torch.arange(shape[0]).view(-1, 1)
        return lambda images, rows=None: self.net(images) + (shift if rows is None else shift[rows])


def test_what_is_not_known_to_share_passes_takes_draws_one_by_one() -> None:
    net = small_net().net
    assert Smoothed(Plain(net, 10), 0.1).joins
    for model in (Clamped(Plain(net, 10), 0.1), Smoothed(ByRow(net, 10), 0.1), Smoothed(Plain(net, 10), 0.0)):
        assert not model.joins
    images, labels = noise_images(4), torch.arange(4)
    for model in (Clamped(Plain(net, 10), 0.1), Smoothed(ByRow(net, 10), 0.1)):
        joint, single = (
            judge(model, shard_of(images, labels), 20, Stopping(), streams(), compute) for compute in both()
        )
        assert (joint.counts == single.counts).all()


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 600), st.integers(1, 600), st.integers(1, 512))
def test_joint_draws_fill_a_microbatch_in_passes_of_one_size(draws: int, images: int, microbatch: int) -> None:
    model, compute = counted()[0], Compute(CPU, microbatch=microbatch)
    left, sizes = draws, []
    while left:
        sizes.append(compute.joint(model, left, images))
        left -= sizes[-1]
    most = microbatch // images if 4 * images <= microbatch else 1
    assert set(sizes[:-1]) <= {most} and sizes[-1] <= most and sum(sizes) == draws


@pytest.mark.parametrize(
    "rule", [Stopping(), Stopping(kind="adaptive"), Stopping(kind="adaptive", rule="soft")], ids=str
)
@pytest.mark.parametrize("images", [1, 6, 60])
def test_the_vote_is_the_same_in_fewer_passes(images: int, rule: Stopping) -> None:
    model, sizes = counted()
    batch, labels = noise_images(images), torch.arange(images) % 10
    votes, passes = [], []
    for compute in both():
        sizes.clear()
        votes.append(judge(model, shard_of(batch, labels), 90, rule, streams(), compute))
        passes.append(len(sizes))
        assert compute.forwards == sum(sizes) == votes[-1].counts.sum()
    joint, single = votes
    assert (joint.counts == single.counts).all() and (joint.prefix == single.prefix).all()
    assert (joint.draw_right == single.draw_right).all() and (abs(joint.probs - single.probs) < 2e-3).all()
    # sizes are those of single draws: others go along where three quarters of a microbatch are free
    assert passes[0] < passes[1] if min(sizes) <= 16 else passes[0] == passes[1]
    if images == 1 and rule.kind == "fixed":
        assert passes == [2, 90], "64 draws, then 26"


@pytest.mark.parametrize(
    ("draws", "adaptive"),
    [(1, [1]), (15, [15]), (16, [16]), (17, [16, 17]), (20, [16, 20]), (21, [16, 20, 21]), (28, [16, 20, 24, 28])],
)
def test_when_the_votes_are_looked_at(draws: int, adaptive: list[int]) -> None:
    """After the draws of expected accuracy, then after every fourth; all draws of a fixed number are made at once."""
    assert looks(draws, Stopping(kind="adaptive")) == adaptive
    assert looks(draws, Stopping()) == [draws]


def test_the_soft_rule_reads_every_draw_once_and_in_order(monkeypatch) -> None:
    model, _ = counted()
    images, read = noise_images(2), []
    update = stopping.soft_update
    monkeypatch.setattr(stopping, "soft_update", lambda soft, new, draws: read.append(new) or update(soft, new, draws))
    soft = Stopping(kind="adaptive", rule="soft", alpha=1e-9)
    judge(model, shard_of(images, torch.arange(2)), 30, soft, streams(), Compute(CPU, microbatch=64))
    assert [len(new) for new in read] == [16, 4, 4, 4]
    for j, seen in enumerate(np.concatenate(read)):
        probs = model.realise(images.shape, streams().generator("score", j))(images).softmax(1)
        np.testing.assert_allclose(seen, probs.double().numpy(), atol=1e-6)


@pytest.mark.parametrize("rows", [None, [3, 0]], ids=str)
@pytest.mark.parametrize("purpose", ["grad", "select"])
def test_an_attack_sees_the_same_draws_in_fewer_passes(rows: list[int] | None, purpose: str) -> None:
    model, sizes = counted()
    images, labels = noise_images(5), torch.arange(5)
    chosen = None if rows is None else torch.tensor(rows)
    some, wanted = (images, labels) if chosen is None else (images[chosen], labels[chosen])
    found, passes = [], []
    for compute in both(20):
        view = View(model, images.shape, streams(), compute)
        sizes.clear()
        turns = list(view.gradients(losses.margin, some, wanted, chosen, 7, purpose, 1, 2))
        logits = torch.stack(list(view.all_logits(some, chosen, 7, purpose, 1, 2)))
        found.append([torch.stack(each) for each in zip(*turns, strict=True)] + [logits])
        passes.append(len(sizes))
        assert compute.backwards == 7 * len(some) and compute.forwards == 14 * len(some)
    for joint, single in zip(*found, strict=True):
        assert len(joint) == 7
        torch.testing.assert_close(joint, single, rtol=1e-4, atol=1e-6)
    draws = view.compute.gradient(view.draw(purpose, 1, 2, 4), some, wanted, losses.margin, chosen)
    for joint, alone in zip(found[0], draws, strict=False):
        torch.testing.assert_close(joint[4], alone, rtol=1e-4, atol=1e-6)
    assert passes == [2 * (1 if rows else 2), 14]


def test_gradients_stay_on_for_whoever_takes_the_draws() -> None:
    model, _ = counted()
    images = noise_images(2)
    with torch.enable_grad():
        for _ in View(model, images.shape, streams(), Compute(CPU)).all_logits(images, None, 4, "select"):
            assert torch.is_grad_enabled()


@pytest.mark.parametrize("exact", [True, False])
def test_exact_takes_each_draw_for_itself(tmp_path, exact: bool) -> None:
    compute = Lab(Settings(tmp_path, exact=exact)).compute()
    assert compute.joint(counted()[0], 8, 2) == (1 if exact else 8)


@pytest.mark.parametrize(("images", "draws", "size"), [(10, 150, 60), (8, 203, 64), (40, 20, 40), (200, 12, 50)])
def test_a_network_is_compiled_for_the_size_that_draws_share(monkeypatch, images: int, draws: int, size: int) -> None:
    """Where it repays: what the compiler is asked for is what crafting and judging then run most."""
    net = WideResNet(10, 1, generator=seeded(0)).eval()
    model, asked = Smoothed(Plain(net, 10), 0.1), []
    monkeypatch.setattr("bench.lab.compute.compiling.compiler", lambda device: True)
    monkeypatch.setattr("bench.lab.compute.compiling.compile_for", lambda net, size, *how, **more: asked.append(size))
    fitting = Fitting(torch.device("cuda"), False, lambda message: None)
    monkeypatch.setattr(Fitting, "try_compiling", _on_this_cpu(Fitting.try_compiling))
    examples = Examples(data=Data(stop=images), shard=images)
    fitting.compile(Compute(CPU, microbatch=64), "key", model, examples, 1e12, 0.0, draws=draws)
    assert asked == [size]
    light, sizes = counted()
    batch, labels = noise_images(images), torch.arange(images) % 10
    judge(light, shard_of(batch, labels), draws, Stopping(), streams(), Compute(CPU, microbatch=64))
    judged, sizes[:] = Counter(sizes), []
    view = View(light, batch.shape, streams(), Compute(CPU, microbatch=64))
    list(view.gradients(losses.margin, batch, labels, None, draws, "grad", 0, 0))
    for ran in (judged, Counter(sizes)):
        assert ran[size] * size >= 0.8 * draws * images


def _on_this_cpu(try_compiling):
    def there(fitting: Fitting, *words: object, **more: object) -> None:
        fitting.device = CPU
        try_compiling(fitting, *words, **more)

    return there

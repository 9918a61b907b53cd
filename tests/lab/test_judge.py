"""The judge against closed forms and laws: vote shares are Phi, microbatches and order change nothing."""

import numpy as np
import pytest
import torch
from oracles import Dice, shard_of
from scipy.stats import norm
from torch import nn

from bench.lab.compute.passes import Compute
from bench.lab.judge import judge, part
from bench.lab.streams import Streams
from bench.models.classifier import Classifier, Plain
from bench.models.noise import ColoredNoise, Noisy
from bench.models.smoothing import Smoothed
from bench.models.wide_resnet import WideResNet
from bench.recipes import Stopping
from bench.votes.numbers import Bounds, Missing, predicted
from bench.votes.numbers import infinite as infinite_vote
from bench.votes.votes import check, concatenate, from_parquet, to_parquet

CPU = torch.device("cpu")


def linear(weights, bias):
    """Two classes: logits (0, w.x + b)."""
    layer = nn.Linear(weights.numel(), 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros_like(weights), weights]))
        layer.bias.copy_(torch.tensor([0.0, bias]))
    return Plain(nn.Sequential(nn.Flatten(), layer), 2).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def noisy():
    torch.manual_seed(3)
    net = WideResNet(10, 1)
    return Noisy(net, ColoredNoise(net), 10).eval().requires_grad_(False)


def test_vote_shares_are_phi():
    """A linear classifier under Gaussian input noise is right with Phi(margin / (sigma ||w||))."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3 * 8 * 8, generator=generator)
    images = torch.rand(200, 3, 8, 8, generator=generator)
    base = linear(weights, -float(weights.sum()) / 2)
    sigma, draws = 0.5, 400
    margin = (images.flatten(1) @ weights - weights.sum() / 2).double().numpy()
    labels = torch.ones(200, dtype=torch.long)
    votes = judge(
        Smoothed(base, sigma, "pixels"), shard_of(images, labels), draws, Stopping(), Streams(1, 0, CPU), Compute(CPU)
    )
    shares = votes.counts[:, 1] / draws
    expected = norm.cdf(margin / (sigma * float(weights.norm())))
    z = (shares - expected) / np.sqrt(np.maximum(expected * (1 - expected), 1e-3) / draws)
    assert np.abs(z).max() < 5 and abs((z**2).mean() - 1) < 0.5


def test_microbatch_and_order_do_not_matter(noisy):
    images = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(24) % 10
    model = Smoothed(noisy, 0.1, "pixels").eval()
    whole, small = (
        judge(model, shard_of(images, labels), 6, Stopping(), Streams(5, 2, CPU), Compute(CPU, microbatch=size))
        for size in (24, 7)
    )
    assert (whole.counts == small.counts).all()
    np.testing.assert_allclose(whole.probs.astype(float), small.probs.astype(float), atol=2e-3)
    again = judge(model, shard_of(images, labels), 6, Stopping(), Streams(5, 2, CPU), Compute(CPU))
    assert (again.counts == whole.counts).all()
    other = judge(model, shard_of(images, labels), 6, Stopping(), Streams(6, 2, CPU), Compute(CPU))
    assert (other.probs != whole.probs).any()


@pytest.mark.parametrize("rule", ["vote", "soft"])
def test_adaptive_decides_as_the_full_vote_does(noisy, rule):
    images = torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * torch.linspace(0.1, 1, 40).view(
        -1, 1, 1, 1
    )
    shard = shard_of(images, torch.zeros(40, dtype=torch.long))
    streams, draws = Streams(9, 0, CPU), 64
    full = judge(noisy, shard, draws, Stopping(), streams, Compute(CPU))
    few = judge(noisy, shard, draws, Stopping(kind="adaptive", rule=rule), streams, Compute(CPU))
    assert (few.drawn <= full.drawn).all() and few.drawn.sum() < full.drawn.sum()
    assert few.rule == rule and few.prefix_draws == 16 and full.prefix_draws == draws
    assert (few.draw_right == full.draw_right[:, :16]).all() and (few.prefix.sum(1) == 16).all()
    assert few.winners.shape == (40, 16) and (few.winners == full.winners).all()
    assert (np.eye(10, dtype=int)[few.winners].sum(1) == few.prefix).all()
    decisions = [predicted(votes, rule) for votes in (few, full)]
    assert (decisions[0] == decisions[1]).all()


def test_deterministic_targets_have_one_draw():
    torch.manual_seed(0)
    plain = Plain(WideResNet(10, 1), 10).eval().requires_grad_(False)
    images = torch.rand(8, 3, 32, 32)
    votes = judge(
        plain, shard_of(images, torch.zeros(8, dtype=torch.long)), 50, Stopping(), Streams(0, 0, CPU), Compute(CPU)
    )
    assert (votes.drawn == 1).all() and (votes.counts.argmax(1) == plain(images).argmax(1).numpy()).all()


def test_a_permuted_shard_permutes_the_votes(noisy):
    """Weight noise is one draw for the whole shard, so an image's place in it does not matter."""
    images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    shard = shard_of(images, torch.arange(16) % 10)
    order = np.random.default_rng(0).permutation(16)
    straight, shuffled = (
        judge(noisy, s, 8, Stopping(), Streams(1, 1, CPU), Compute(CPU)) for s in (shard, part(shard, order))
    )
    assert (straight.counts[order] == shuffled.counts).all()


def test_votes_survive_parquet(noisy):
    images = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(6))
    first, second = (
        judge(noisy, shard_of(images, torch.arange(12) % 10), 20, Stopping(), Streams(1, k, CPU), Compute(CPU))
        for k in (0, 1)
    )
    second = second.__class__(**{**second.__dict__, "index": second.index + 12})
    votes = concatenate([first, second])
    check(votes)
    data = to_parquet(votes)
    again = from_parquet(data)
    assert to_parquet(again) == data and again.prefix_draws == 20
    names = ("index", "labels", "counts", "probs", "soft", "prefix", "settled", "linf", "claimed", "draw_right")
    for name in (*names, "winners"):
        np.testing.assert_array_equal(getattr(again, name), getattr(votes, name))


class Coin(Classifier):
    """Right with probability p whatever the image."""

    classes, stochastic = 2, True

    def __init__(self, p):
        super().__init__()
        self.p = p

    def realise(self, shape, generator):
        right = torch.rand(shape[0], generator=generator) < self.p
        logits = torch.stack([~right, right], 1).float()
        return lambda images, rows=None: logits if rows is None else logits[rows]


def test_scoring_streams_are_independent_of_every_other():
    streams = Streams(0, 0, CPU)
    numbers = {
        streams.number(purpose, *index)
        for purpose in ("train", "start", "grad", "select", "claim", "craft", "score")
        for index in [(), (0,), (1,), (0, 1), (1, 0), (10,)]
    }
    assert len(numbers) == 7 * 6
    votes = judge(
        Coin(0.7), shard_of(torch.zeros(500, 3, 1, 1), torch.ones(500, dtype=torch.long)), 64, Stopping(), streams,
        Compute(CPU),
    )  # fmt: skip
    assert abs(votes.counts[:, 1].mean() / 64 - 0.7) < 4 * np.sqrt(0.21 / 500 / 64)


@pytest.mark.parametrize("p", [0.7, 0.8, 0.95, 1.0])
def test_draws_go_on_until_the_vote_of_infinitely_many_is_settled(p):
    """From p = 0.7 on at most 1 % stays undecided at 512 draws, where the stopping rule alone left up to all."""
    n, rest = 400, (1 - p) / 2
    target = Dice([p, rest, rest, *[0.0] * 7])
    shard = shard_of(torch.zeros(n, 3, 1, 1), torch.zeros(n, dtype=torch.long))
    alone, on = (
        judge(target, shard, 512, Stopping(kind="adaptive", infinite=infinite), Streams(3, 0, CPU), Compute(CPU))
        for infinite in (False, True)
    )
    bounds = infinite_vote(on)
    assert isinstance(bounds, Bounds) and bounds.undecided <= 0.01 and bounds.sure >= 0.99
    before = infinite_vote(alone)
    assert isinstance(before, Missing) if p == 1 else before.undecided > bounds.undecided
    assert (on.settled <= alone.drawn).all() and (on.drawn >= on.settled).all() and (on.drawn > on.settled).any()
    assert (on.counts.argmax(1) == alone.counts.argmax(1)).all()
    check(on)


def test_the_soft_rule_goes_on_too():
    n, target = 50, Coin(1.0)
    shard = shard_of(torch.zeros(n, 3, 1, 1), torch.ones(n, dtype=torch.long))
    rule = Stopping(kind="adaptive", rule="soft", infinite=True)
    votes = judge(target, shard, 512, rule, Streams(3, 0, CPU), Compute(CPU))
    bounds = infinite_vote(votes)
    assert isinstance(bounds, Bounds) and bounds.undecided == 0 and (votes.drawn < 512).all()


def test_all_draws_of_a_fixed_number_count(noisy):
    """256 draws cost 16 times as many as 16, and are 16 times as much to know."""
    n = 100
    shard = shard_of(torch.zeros(n, 3, 1, 1), torch.ones(n, dtype=torch.long))
    votes = judge(Coin(0.6), shard, 256, Stopping(), Streams(3, 0, CPU), Compute(CPU))
    assert votes.prefix_draws == 256 and (votes.prefix == votes.counts).all() and votes.rule == ""
    assert (votes.draw_right.sum() == votes.counts[:, 1].sum()) and (votes.settled == 256).all()


def test_the_soft_winner_is_exact():
    """Of two mean probabilities that float16 makes equal the larger wins, though its class is the higher."""
    bias = torch.tensor([0.0, 1e-5, -5.0])
    layer = nn.Linear(3, 3)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(bias)
    plain = Plain(nn.Sequential(nn.Flatten(), layer), 3).eval().requires_grad_(False)
    shard = shard_of(torch.zeros(4, 3, 1, 1), torch.ones(4, dtype=torch.long))
    votes = judge(plain, shard, 1, Stopping(), Streams(3, 0, CPU), Compute(CPU))
    assert (votes.probs[:, 0] == votes.probs[:, 1]).all() and (predicted(votes, "soft") == 1).all()
    assert (predicted(from_parquet(to_parquet(votes)), "soft") == 1).all()

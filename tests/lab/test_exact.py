"""Finite supports: expected accuracy as an exact sum, and how often the sampled interval holds it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.lab.compute.passes import Compute, laid_out
from bench.lab.exact import Exact, exact
from bench.lab.images.load import as_tensor, load
from bench.lab.judge import Judged, judge
from bench.lab.streams import Streams
from bench.lab.weights.build import build
from bench.lab.weights.files import load as state_of
from bench.models.classifier import Classifier, Plain
from bench.models.defences import RNA, RND, Mixture, RandomPrecision
from bench.models.wide_resnet import WideResNet
from bench.recipes import Network, Stopping, Trained
from bench.votes.intervals import expected

CPU = torch.device("cpu")
WEIGHTS = Path(__file__).parents[2] / "models" / "weights"


def small(seed: int) -> Plain:
    net = WideResNet(10, 1, generator=torch.Generator().manual_seed(seed))
    return Plain(net.eval().requires_grad_(False), 10)


@pytest.mark.parametrize("kind", ["precision", "mixture", "rna"])
def test_the_exact_sum_is_what_the_judge_tends_to(kind: str) -> None:
    model: Classifier = {
        "precision": lambda: RandomPrecision(small(0).net, 10, 1, 3),
        "mixture": lambda: Mixture(small(0), small(1), 0.7),
        "rna": lambda: RNA(small(0).net, 10).eval().requires_grad_(False),
    }[kind]()
    images = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    labels = small(0)(images).argmax(1)
    found = exact(model, images, labels, Compute(CPU))
    assert found is not None and float(found.chances.sum()) == pytest.approx(1)
    nothing = np.zeros(12, np.float32)
    shard = Judged(images, labels, np.arange(12), nothing, np.full(12, -1, np.int8))
    votes = judge(model, shard, 400, Stopping(), Streams(0, 0, CPU), Compute(CPU))
    sampled = votes.counts[np.arange(12), labels.numpy()] / 400
    error = np.sqrt(found.accuracy.numpy() * (1 - found.accuracy.numpy()) / 400)
    assert (np.abs(sampled - found.accuracy.numpy()) <= 4.5 * error + 1e-9).all()


def test_one_atom_without_noise_and_none_that_can_be_listed_with_too_much() -> None:
    model = small(0)
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    labels = model(images).argmax(1)
    found = exact(model, images, labels, Compute(CPU))
    assert found is not None and found.right.tolist() == [[True] * 3] and found.accuracy.tolist() == [1.0] * 3
    assert exact(RND(model), images, labels, Compute(CPU)) is None


def coverage(found: Exact, repetitions: int = 1000, images: int = 300, shard: int = 100, draws: int = 16) -> float:
    """How often the judge's 95 % interval over random images, its draws shared by each shard, holds the exact value."""
    right, chances = found.right.numpy(), found.chances.numpy()
    truth, random = float(found.accuracy.mean()), np.random.default_rng(0)
    shards = np.repeat(np.arange(images // shard), shard)
    held = 0
    for _ in range(repetitions):
        chosen = random.choice(right.shape[1], images, replace=False)
        atoms = random.choice(len(chances), (images // shard, draws), p=chances)
        answers = right[atoms[shards], chosen[:, None]]
        each = np.stack([answers[shards == s].sum(0) for s in range(images // shard)])
        interval = expected(answers.sum(1), draws, shards, each)
        held += interval.low <= truth <= interval.high
    return held / repetitions


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.3])
def test_the_interval_holds_the_exact_value_of_made_atoms(spread: float) -> None:
    """Thirteen draws that differ by `spread` in accuracy, images that are easy or hard: 10,000 of them."""
    random = np.random.default_rng(1)
    ease = random.beta(2, 1, 10_000)
    shift = np.linspace(-spread, spread, 13)[:, None]
    right = torch.from_numpy(random.random((13, 10_000)) < np.clip(ease + shift, 0, 1))
    assert coverage(Exact(torch.full((13,), 1 / 13, dtype=torch.float64), right), 400) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mixture", "precision"])
def test_the_interval_holds_the_exact_value_of_all_images_of_real_networks(kind: str) -> None:
    """The published students on the 10,000 images that ship: at least 93 % of 1,000 random 300 of them."""
    recipe = Trained(network=Network(depth=28, width=2))
    first, second = (build(recipe, state_of(WEIGHTS / f"paper-desk-kd-{name}")) for name in ("vote", "soft"))
    assert isinstance(first, Plain)
    several = {"mixture": Mixture(first, second, 0.9), "precision": RandomPrecision(first.net, 10, 3, 6)}
    model = several[kind].eval()
    excerpt = load("cifar10", "excerpt", None)
    compute = Compute(CPU)
    compute.suit(laid_out(model))
    found = exact(model, as_tensor(excerpt.images), torch.from_numpy(excerpt.labels), compute)
    assert found is not None and found.right.shape[1] == 10_000
    assert coverage(found) >= 0.93

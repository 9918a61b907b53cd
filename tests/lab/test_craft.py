"""The crafting step: what it checks, what it never touches, and that fresh draws judge without bias."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from oracles import CPU, ConstantP, Witness, compute, linear_problem, noise_images, small_net, streams
from torch import Tensor

from bench import UserError
from bench.lab.attacks import Crafted, worst
from bench.lab.attacks.view import AttackError, View
from bench.lab.craft import check, craft
from bench.models.classifier import Classifier, Plain
from bench.models.smoothing import Smoothed
from bench.recipes import PGD, Attack, Clean, Peer, Square, Strong, Worst

WORST = Worst(attacks=(PGD(steps=2), PGD(steps=2, loss="margin", restarts=2), Square(queries=3, draws=4)), selection=8)
ATTACKS: list[Attack] = [
    PGD(steps=3),
    PGD(steps=3, restarts=3, pick="best", selection=4, eot=2),
    PGD(steps=3, gradient="mean-softmax", eot=4, pick="best", loss="margin", selection=4),
    Square(queries=5, draws=4, restarts=2),
    WORST,
]


def shares(model: Classifier, images: Tensor, labels: Tensor, draws: int, seed: int = 0) -> Tensor:
    """Share of right answers (n,) over fresh draws of the stream that judges."""
    dice = (streams(seed).generator("score", k) for k in range(draws))
    right = [model.realise(images.shape, die)(images).argmax(1) == labels for die in dice]
    return torch.stack(right).float().mean(0)


# -- fresh draws ----------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: f"{a.kind}-{a.key[:4]}")
@pytest.mark.parametrize("p", [0.5, 0.8, 0.95])
def test_a_coin_scores_its_own_chance_under_every_attack(attack: Attack, p: float) -> None:
    """Right with chance p whatever the image: selection among restarts, iterates and attacks must not show."""
    n, draws = 250, 16
    labels = torch.arange(n) % 10
    model = ConstantP(labels, p)
    witness = Witness(7, 0, CPU)
    witness.asked.clear()
    crafted = craft(attack, model, noise_images(n), labels, witness, compute(256))
    assert witness.asked and "score" not in witness.asked
    score = float(shares(model, crafted.images, labels, draws, seed=7).mean())
    assert abs(score - p) < 4 * (p * (1 - p) / (n * draws)) ** 0.5


def test_scoring_on_the_draws_that_selected_would_be_biased() -> None:
    """The control of the test above: the minimum over three attacks of a 20-draw mean loses several points
    (the size is the expectation of a minimum of three binomials), and judging its choice anew does not."""
    n, draws, p = 1000, 20, 0.8
    labels = torch.arange(n) % 10
    model = ConstantP(labels, p)
    images = noise_images(n)
    means = torch.stack([shares(model, images, labels, draws, seed) for seed in range(3)])
    biased = float(means.amin(0).mean())
    fresh = float(shares(model, images, labels, draws, seed=9).mean())
    from scipy.stats import binom

    k = np.arange(draws + 1)
    exact = float((binom.sf(k - 1, draws, p) ** 3)[1:].sum() / draws)  # E min = sum of P(min >= k)
    assert abs(biased - exact) < 0.01 and p - exact > 0.07
    assert abs(fresh - p) < 0.01


# -- what a step promises -------------------------------------------------------------------


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: f"{a.kind}-{a.key[:4]}")
@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_every_attack_keeps_its_promise(attack: Attack, sigma: float) -> None:
    images, labels = noise_images(12), torch.arange(12) % 10
    crafted = craft(attack, Smoothed(small_net(), sigma), images, labels, streams(), compute())
    assert (crafted.images - images).abs().max() > 0
    assert set(crafted.claimed.tolist()) <= {0, 1}
    again = craft(attack, Smoothed(small_net(), sigma), images, labels, streams(), compute(5))
    assert ((crafted.images - again.images).abs() > 1e-6).float().mean() < 1e-3


def test_a_vote_is_believed_by_a_vote() -> None:
    """Right with p = 0.7: single draws believe that 30 % are fooled, the vote of 64 that none is."""
    images, labels = noise_images(200, side=4), torch.arange(200) % 10
    source = ConstantP(labels, 0.7)
    one, voted = (craft(PGD(steps=1), source, images, labels, streams(), compute(), claim=c) for c in (1, 64))
    assert torch.equal(one.images, voted.images)
    assert 0.2 < one.claimed.float().mean() < 0.4 and voted.claimed.float().mean() < 0.02


def test_clean_is_the_images_and_claims_nothing() -> None:
    images, labels = noise_images(3), torch.arange(3)
    crafted = craft(Clean(), None, images, labels, streams(), compute())
    assert torch.equal(crafted.images, images) and crafted.claimed.tolist() == [-1, -1, -1]
    with pytest.raises(UserError, match="no source"):
        craft(PGD(), None, images, labels, streams(), compute())


def test_worst_is_at_least_as_strong_as_each_attack_on_a_deterministic_source() -> None:
    model, images, labels = linear_problem(80, seed=6)
    weak, strong = PGD(eps="2/255", steps=1), PGD(eps="6/255", steps=5)
    both = craft(Worst(attacks=(strong, weak)), model, images, labels, streams(), compute())
    right = model(both.images).argmax(1) == labels
    assert torch.equal(right, model.robust(images, labels, 6 / 255))
    assert torch.equal(both.claimed == 0, right)


def test_worst_says_what_each_attack_added_where_strong_is_one_of_them() -> None:
    model, images, labels = linear_problem(80, seed=6)
    attacks = (PGD(eps="4/255", steps=2, random_start=False), Strong(eps="6/255", gradients=20))
    counted = compute()
    made = craft(Worst(attacks=attacks), model, images, labels, streams(), counted)
    assert made.account is not None and [one.member for one in made.account.members] == ["1: pgd", "2: strong"]
    wrong = model(made.images).argmax(1) != labels
    assert sum(one.gain for one in made.account.members) == pytest.approx(float(wrong.float().mean()))
    assert made.account.members[1].gain > 0
    assert [one.found for one in made.account.members] == [made.account.found.count(n) for n in (0, 1)]
    assert sum(one.gradients for one in made.account.members) <= made.account.spent[0]
    assert made.account.spent[0] == pytest.approx((counted.forwards + counted.backwards) / 2 / 80)
    assert craft(Worst(attacks=attacks[:1]), model, images, labels, streams(), compute()).account is None


class Traps(Classifier):
    """Right in every draw, if barely, on dark images; on bright ones wrong in half the draws, if barely, and else
    right by far: so the mean margin is larger where the accuracy is."""

    stochastic, classes = True, 3

    def realise(self, shape, generator):
        luck = torch.rand(shape[0], generator=generator) < 0.5

        def realisation(images, rows=None):
            bright = images.mean((1, 2, 3)) > 0.5
            lead = torch.where(bright, torch.where(luck[slice(None) if rows is None else rows], 5.0, -0.1), 0.1)
            lead = lead - 1e-3 * images.mean((1, 2, 3))  # so that attacks go there
            return torch.stack([lead, torch.zeros_like(lead), torch.full_like(lead, -9.0)], 1)

        return realisation


def test_candidates_compete_by_error_rate_and_not_by_mean_loss() -> None:
    """`worst` took the attack that leaves 100 % before the one that leaves 50 %, because its mean margin was larger."""
    dark, bright, labels = torch.full((40, 3, 4, 4), 0.48), torch.full((40, 3, 4, 4), 0.52), torch.zeros(40).long()
    model, made = Traps(), iter((dark, bright))

    def run(attack, source, images, labels, streams, compute):
        return Crafted(next(made), torch.zeros(40, dtype=torch.int8))

    attack = Worst(attacks=(PGD(), PGD(steps=1)))
    crafted = worst.craft(attack, model, dark, labels, streams(), compute(), run=run)
    assert torch.equal(crafted.images, bright)
    for attack in (PGD(eps="0.1", step="0.05", steps=4, pick="best", random_start=False),
                   PGD(eps="0.1", step="0", steps=1, restarts=8)):  # fmt: skip
        found = craft(attack, model, torch.full((40, 3, 1, 1), 0.5), labels, streams(), compute())
        assert (found.images.mean((1, 2, 3)) > 0.5).float().mean() > 0.9, attack


def test_worst_chooses_by_expected_loss_for_each_image() -> None:
    """Of a smoothed linear classifier the exact chance of being right is known: the choice must be the lower."""
    model, images, labels = linear_problem(60, seed=6)
    still, moved = PGD(eps=0), PGD(eps="6/255", steps=4)
    attack = Worst(attacks=(still, moved), selection=16)
    crafted = craft(attack, Smoothed(model, 0.05), images, labels, streams(), compute())
    assert ((crafted.images != images).flatten(1).any(1)).float().mean() > 0.9
    # and on other draws than those that chose, the chosen ones are right less often than what stood still
    view = View(Smoothed(model, 0.05), images.shape, streams(), compute())
    assert view.right(crafted.images, labels, 64).mean() < view.right(images, labels, 64).mean() - 0.1


def test_a_mode_left_changed_and_an_input_written_to_are_breaches() -> None:
    class Restless(Plain):
        def realise(self, shape, generator=None):
            self.net.train()
            return super().realise(shape, generator)

    class Greedy(Plain):
        def realise(self, shape, generator=None):
            def realisation(images, rows=None):
                images.detach()[0, 0, 0, 0].mul_(0).add_(0.123)
                return self.net(images)

            return realisation

    images, labels, net = noise_images(4), torch.arange(4), small_net().net
    restless = Restless(net, 10).eval()
    with pytest.raises(AttackError, match="training and evaluation mode"):
        craft(PGD(steps=1), restless, images, labels, streams(), compute())
    assert not any(module.training for module in restless.modules())
    with pytest.raises(AttackError, match="wrote into"):
        craft(PGD(steps=1, random_start=False), Greedy(net, 10), images, labels, streams(), compute())


BALL = Fraction(8, 255)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (
            lambda x: x.clone().index_fill_(0, torch.tensor([2]), torch.nan),
            "image 2 of 4 has a value that is not finite",
        ),
        (lambda x: x + torch.tensor([0, 0, 0, 2.0]).view(4, 1, 1, 1), r"image 3 of 4 has a value outside \[0, 1\]"),
        (lambda x: (x + 8 / 255 + 1e-4).clamp(0, 1), "more than Linf eps = 8/255"),
        (lambda x: x[:, :, 1:], r"returned \(4, 3, 7, 8\)"),
        (lambda x: x.double(), "float64"),
    ],
)
def test_a_breach_names_attack_row_and_value(spoil, what: str) -> None:
    images = 0.5 * noise_images(4) + 0.2
    claimed = torch.zeros(4, dtype=torch.int8)
    check(PGD(), images, Crafted((images + 8 / 255).clamp(0, 1), claimed))
    with pytest.raises(AttackError, match="attack pgd: .*" + what):
        check(PGD(), images, Crafted(spoil(images), claimed))
    with pytest.raises(UserError, match=r"attack torchattacks\.PGDL2: "):
        check(Peer(kind="torchattacks", name="PGDL2"), images, Crafted(spoil(images), claimed))


@pytest.mark.parametrize(("norm", "power"), [("L2", 2), ("L1", 1)])
def test_a_peers_ball_has_its_own_norm(norm: str, power: int) -> None:
    images = torch.full((3, 3, 8, 8), 0.5)
    delta = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    delta = delta / delta.flatten(1).norm(p=power, dim=1).view(-1, 1, 1, 1)
    claimed = torch.zeros(3, dtype=torch.int8)
    attack = Peer(kind="foolbox", name="attack", eps="1/2", norm=norm)
    check(attack, images, Crafted(images + 0.4999 * delta, claimed))
    with pytest.raises(UserError, match=f"more than {norm} eps = 1/2"):
        check(attack, images, Crafted(images + 0.501 * delta, claimed))


def test_iterates_are_checked_too() -> None:
    images, claimed = 0.5 * noise_images(2) + 0.2, torch.zeros(2, dtype=torch.int8)
    path = torch.stack([images, images + 0.1])
    with pytest.raises(AttackError, match="at step 1"):
        check(PGD(steps=1, keep_iterates=True), images, Crafted(images, claimed, path))

"""The faults by which published evaluations of randomised defences misled, each known to diagnosis by its reason.

Numbered as in the catalogue: F1 an attack on one frozen draw; F2 images that leave early; F3 copies that share a draw;
F4 noise in the module's state; F5 noise of NumPy and random; F8 eight-bit steps; F10 another input space; F11 an
AutoAttack of ten steps; F15 clean images handed back.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from fakes import Drowned, Remembering, Sparse, Turned
from oracles import compute, noise_images, small_net, streams
from torch import Tensor, nn

from bench import UserError
from bench.lab.attacks.ball import Ball
from bench.lab.craft import craft
from bench.lab.examine import gradients, memory, noise, of_attack, outputs, rules
from bench.lab.examine.attacked import _back, _draws, _labels
from bench.lab.examine.beside import Attacks
from bench.lab.examine.outputs import Case
from bench.models.adapters.randomised import GlobalRandom
from bench.models.classifier import Classifier, Plain
from bench.models.smoothing import Smoothed
from bench.recipes import PGD, Peer

BALL = Ball(8 / 255)


def case(model: Classifier, n: int = 16) -> Case:
    """A case whose labels are what the network says without noise: clean accuracy is whole."""
    images = noise_images(n)
    with torch.no_grad():
        labels = (model if not model.stochastic else small_net()).net(images).argmax(1)
    return Case(model, images, labels, streams(), compute())


class Shared(Plain):
    """Noise of one image's shape, added to all rows (L2P, WCA-Net, weights)."""

    stochastic = True

    def __init__(self, sigma: float = 0.05, shared: bool = True) -> None:
        super().__init__(small_net().net, 10)
        self.sigma, self.shared = sigma, shared

    def realise(self, shape, generator=None):
        size = shape[1:] if self.shared else shape
        drawn = self.sigma * torch.randn(size, generator=generator)

        def realisation(images, rows=None):
            return self.net(images + (drawn if self.shared or rows is None else drawn[rows]))

        return realisation


# -- F1, F2, F3 -----------------------------------------------------------------------------


class Turning(Plain):
    """A draw flips which of two directions matters: an attack on one draw says nothing of the other."""

    stochastic = True

    def __init__(self) -> None:
        super().__init__(nn.Identity(), 2)
        dice = torch.Generator().manual_seed(3)
        self.ways = torch.randn(8, 192, generator=dice)

    def realise(self, shape, generator=None):
        way = self.ways[int(torch.randint(8, (), generator=generator))]
        return lambda images, rows=None: torch.stack(
            [torch.full((len(images),), 0.35), 3 * (images - 0.5).flatten(1) @ way / 14], 1
        )


def turning() -> Case:
    images = 0.5 + 0.002 * (noise_images(40) - 0.5)
    return Case(Turning(), images, torch.zeros(40, dtype=torch.int64), streams(), compute())


def test_f1_a_frozen_draw_is_named_with_both_numbers() -> None:
    wide = {"eps": "32/255", "step": "8/255", "eot": 8}
    moving = {one.check: one for one in _draws(Attacks(turning(), PGD(**wide), 10, 32))}
    assert moving["frozen-draw"].verdict == "ok" and "moving draws" in moving["frozen-draw"].figure
    frozen = {one.check: one for one in _draws(Attacks(turning(), PGD(**wide, draw="frozen"), 10, 32))}["frozen-draw"]
    assert frozen.verdict == "suspicious" and frozen.p is not None and frozen.p < 1e-4, frozen
    assert "draw frozen" in frozen.figure and "moving draws" in frozen.figure


def test_f2_images_of_a_randomised_model_may_not_leave_early() -> None:
    asked = case(Smoothed(small_net(), 0.1))
    with pytest.raises(UserError, match="does not tell if it is fooled"):
        craft(PGD(early_stop=True), asked.model, asked.images, asked.labels, asked.streams, asked.compute)


@pytest.mark.parametrize("shared", [True, False])
def test_f3_noise_that_the_rows_of_a_batch_share_is_measured(shared: bool) -> None:
    found = noise.shared(case(Shared(shared=shared)), PGD(draw="pseudo-eot", eot=30))
    share = float(found.figure.split()[5])
    assert share > 99 if shared else share < 40, found
    assert found.verdict == ("suspicious" if shared else "ok")
    assert noise.shared(case(Shared(shared=shared)), PGD(eot=30)).verdict == "ok"


# -- F4, F5 ---------------------------------------------------------------------------------


class Held(nn.Module):
    """Five forward passes look alike: the noise lies in a buffer until a method redraws it (RPF, CTRW)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net().net
        self.register_buffer("mask", torch.ones(3, 8, 8))

    def set_rands(self) -> None:
        self.mask = 1 + 0.1 * torch.randn(3, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x * self.mask)


class Forgetful(Held):
    """A method that draws the weights anew is no redraw of noise."""

    def set_rands(self) -> None:
        self.net[3].weight.data = torch.randn_like(self.net[3].weight)


def test_f4_noise_held_in_state_is_found_by_the_method_that_redraws_it() -> None:
    asked = case(Plain(Held().eval(), 10))
    assert noise.randomness(asked).verdict == "ok", "which is why it needs an instrument of its own"
    before = asked.model.net.mask.clone()
    found = noise.held(asked)
    assert found.verdict == "suspicious" and "set_rands()" in found.figure and "redraw" in found.advice
    assert torch.equal(asked.model.net.mask, before), "it was called on a copy"
    assert noise.held(case(small_net())).verdict == noise.held(case(Plain(Forgetful().eval(), 10))).verdict == "ok"


class Elsewhere(nn.Module):
    def __init__(self, draw) -> None:
        super().__init__()
        self.net, self.draw = small_net().net, draw

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.2 * torch.as_tensor(self.draw(x.shape), dtype=x.dtype))


ELSEWHERE = {
    "numpy": lambda shape: np.random.randn(*shape),
    "random": lambda shape: random.choice((-1.0, 0.0, 1.0)),
    "torch": torch.randn,
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_f5_noise_of_another_generator_is_named_by_its_library(name: str) -> None:
    found = noise.randomness(case(Plain(Elsewhere(ELSEWHERE[name]).eval(), 10)))
    assert found.verdict == "suspicious" and f"generator of {name}" in found.figure
    fenced = GlobalRandom(Elsewhere(ELSEWHERE[name]).eval(), 10)
    asked = Case(fenced, noise_images(8), torch.zeros(8, dtype=torch.int64), streams(), compute())
    assert noise.randomness(asked).verdict == "ok"


class Seldom(nn.Module):
    """Noise that moves only every sixth call."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls = small_net().net, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        dice = torch.Generator().manual_seed(self.calls // 6)
        return self.net(x + 0.2 * torch.randn(x.shape, generator=dice))


def test_noise_that_moves_every_few_calls_is_seen() -> None:
    assert noise.randomness(case(Plain(Seldom().eval(), 10))).verdict == "suspicious"


def test_noise_that_ignores_its_generator_is_alike_under_reseeding() -> None:
    class Reseeded(Shared):
        def realise(self, shape, generator=None):
            return super().realise(shape, torch.Generator().manual_seed(torch.initial_seed() % 2**31))

    asked = case(Reseeded())
    assert noise.randomness(asked).verdict == "ok" and noise.replay(asked).verdict == "suspicious"


def test_noise_seeded_by_the_image_itself_is_seen() -> None:
    class ByImage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net().net

        def forward(self, x: Tensor) -> Tensor:
            seeds = (int(one.double().sum().item() * 2**24) % 2**31 for one in x)
            drawn = [torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
            return self.net(x + 0.2 * torch.stack(drawn))

    asked = case(Plain(ByImage().eval(), 10))
    assert noise.randomness(asked).verdict == "ok" and noise.jumps(asked).verdict == "suspicious"
    assert noise.jumps(case(small_net())).verdict == "ok"


def test_a_model_that_knows_the_judges_seeds_is_seen_on_those_of_another() -> None:
    each = np.random.default_rng(0)
    judged, other = 0.8 + 0.02 * each.standard_normal(16), 0.5 + 0.02 * each.standard_normal(16)
    assert rules.reseeded(judged, other).p < 1e-6
    assert rules.reseeded(other, judged).verdict == rules.reseeded(judged, judged).verdict == "ok"


# -- F8, F10, F11, F15 ----------------------------------------------------------------------


def test_f8_an_eight_bit_step_has_no_gradient() -> None:
    class Bytes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net().net

        def forward(self, x: Tensor) -> Tensor:
            return self.net((x * 255).round().to(torch.uint8).float() / 255)

    asked = case(Plain(Bytes().eval(), 10))
    assert not gradients.has_gradient(asked)
    assert gradients.gradients(None).verdict == "suspicious"


def test_f10_another_input_space_than_training_is_seen() -> None:
    class Normalised(nn.Module):
        """Trained behind a normalisation that the evaluation left out."""

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot((x[:, 2].mean((1, 2)) > 0).long(), 2).float()

    side = 0.03 * (2 * (torch.arange(40) % 2) - 1).view(-1, 1, 1, 1)
    images = 0.02 * (noise_images(40) - 0.5) + torch.tensor(outputs.CIFAR10_MEAN).view(1, 3, 1, 1) + side
    model, labels = Plain(Normalised(), 2), torch.arange(40) % 2
    found = outputs.encoding(Case(model, images, labels, streams(), compute()))
    assert found.verdict == "suspicious" and "normalised" in found.advice, found


def test_f11_an_autoattack_of_ten_steps_is_another_attack() -> None:
    ten = of_attack.reach(Peer(kind="torchattacks", name="AutoAttack", arguments={"steps": 10}))
    assert ten.verdict == "cannot tell" and "10 steps" in ten.figure
    assert of_attack.reach(Peer(kind="torchattacks", name="AutoAttack")).verdict == "ok"  # given 100 by this suite


def test_f15_clean_images_that_an_attack_hands_back_are_counted() -> None:
    same, right = np.repeat([1.0, 0.0], [20, 20]), np.repeat([0.9, 0.2], [20, 20])
    found = of_attack.untouched(True, same, right)
    assert found.verdict == "suspicious" and "20 of 40" in found.figure and "90.0 %" in found.figure
    assert of_attack.untouched(False, same, right).verdict == "ok", "a deterministic image is as right as it was"
    asked = case(Smoothed(small_net(), 0.2), 8)
    published = Peer(kind="torchattacks", name="APGD", eps="4/255", arguments={"steps": 2})
    stochastic, back, _ = _back(Attacks(asked, published, 10, 8))
    assert stochastic and back.any(), "APGD hands back what its draw withstood"


# -- false gradients and memories, by what is wrong with them --------------------------------


@pytest.mark.parametrize("fake", [Turned, Sparse])
def test_a_gradient_with_another_value_is_told_by_differences(fake) -> None:
    found = gradients.differences(case(Plain(fake(small_net().net).eval(), 10)))
    assert found.verdict == "suspicious" and found.p < 1e-6 and "on 16 of 16 images" in found.figure


def test_a_scaled_gradient_keeps_its_sign_and_not_its_value() -> None:
    class Tenth(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, slope):
            return slope / 10

    class Shrunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net().net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(Tenth.apply(x))

    asked = case(Plain(Shrunk().eval(), 10))
    assert gradients.uphill(asked, BALL, gradients.slope_of(asked)).verdict == "ok"
    assert gradients.differences(asked).verdict == "suspicious"
    honest = gradients.differences(case(small_net()))
    assert honest.verdict == "ok" and "on 0 of 16 images" in honest.figure


def test_noise_in_the_backward_pass_alone_is_told_by_repeating_it() -> None:
    asked = case(Plain(Drowned(small_net().net).eval(), 10))
    assert noise.randomness(asked).verdict == "ok"
    assert gradients.repeats(asked).verdict == "suspicious"
    assert gradients.repeats(case(small_net())).verdict == gradients.repeats(case(Shared())).verdict == "ok"


def test_a_model_that_knows_when_it_is_attacked_is_seen() -> None:
    class Watchful(nn.Module):
        """Another network for whoever asks for a gradient, and one that its differences agree with there."""

        def __init__(self) -> None:
            super().__init__()
            self.net, self.decoy = small_net().net, small_net(seed=1).net

        def forward(self, x: Tensor) -> Tensor:
            return (self.decoy if x.requires_grad else self.net)(x)

    asked = case(Plain(Watchful().eval(), 10))
    assert noise.randomness(asked).verdict == "ok" and gradients.watched(asked).verdict == "suspicious"
    assert gradients.watched(case(small_net())).verdict == gradients.watched(case(Shared())).verdict == "ok"


def test_an_answer_that_goes_by_the_size_of_a_large_batch_is_seen() -> None:
    class Crowded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net().net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x if len(x) < 32 else 0.8 * x)

    assert outputs.batch_mates(case(Plain(Crowded().eval(), 10), 40)).verdict == "suspicious"
    assert outputs.batch_mates(case(small_net(), 40)).verdict == "ok"


def test_a_model_that_remembers_its_queries_is_told_by_copies() -> None:
    asked = case(Plain(Remembering(small_net().net).eval(), 10))
    assert noise.randomness(asked).verdict == "ok" and memory.copied(asked, BALL).verdict == "suspicious"
    for honest in (small_net(), Shared(), Smoothed(small_net(), 0.1)):
        first = (plain := case(honest)).asked()
        assert memory.copied(plain, BALL).verdict == memory.again(plain, first).verdict == "ok"


def test_the_first_question_put_again_shows_what_has_changed_since() -> None:
    class Tiring(nn.Module):
        """Its answers drift as it is asked, by what is kept outside of it."""

        def __init__(self) -> None:
            super().__init__()
            self.net = small_net().net

        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return self.net(x * (1 if len(calls) < 8 else 0.9))

    calls: list[int] = []
    asked = case(Plain(Tiring().eval(), 10))
    first = asked.asked()
    for _ in range(9):
        asked.asked()
    assert memory.again(asked, first).verdict == "suspicious"


# -- the attack does nothing ------------------------------------------------------------------


def test_an_attack_that_does_no_better_than_random_points_is_marked_and_a_small_ball_is_not() -> None:
    whole, most, none = np.ones(48), np.repeat([1.0, 0.0], [46, 2]), np.zeros(48)
    idle = rules.no_better("no-better-than-random", "random points leave", most, whole, (most, whole))
    assert idle.verdict == "suspicious" and idle.p < 0.005
    small = rules.no_better("no-better-than-random", "random points leave", most, whole, (none, whole))
    assert small.verdict == "ok", "in a wide ball it falls: the declared one is small"
    assert rules.no_better("no-better-than-random", "random points leave", none, whole, None).verdict == "ok"


def test_a_known_draw_that_cannot_be_broken_is_marked() -> None:
    class Masked(Shared):
        def realise(self, shape, generator=None):
            inner = super().realise(shape, generator)
            return lambda images, rows=None: inner(images.detach() + 0 * images, rows)

    masked = {one.check: one for one in _draws(Attacks(case(Masked(), 40), PGD(steps=3), 10, 4))}
    assert masked["frozen-unbroken"].verdict == "suspicious" and masked["frozen-unbroken"].p < 0.005
    honest = {one.check: one for one in _draws(Attacks(case(Shared(), 40), PGD(steps=3), 10, 4))}
    assert honest["frozen-unbroken"].verdict == "ok", honest["frozen-unbroken"]


def test_what_hides_every_gradient_and_confidence_falls_to_its_answers_alone() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net().net

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(self.net(x).argmax(1), 10) + 0 * x.flatten(1).sum(1, keepdim=True)

    asked = case(Plain(Masked().eval(), 10), 40)
    them = Attacks(asked, PGD(eps="12/255", step="3/255"), 100, 1, thorough=True)
    found = {one.check: one for one in _labels(them, noise_images(200, seed=1))}
    assert found["hard-labels"].verdict == "suspicious" and found["hard-labels"].p < 1e-3, found
    assert "400 answers" in found["distilled"].figure and them.gradients == 300

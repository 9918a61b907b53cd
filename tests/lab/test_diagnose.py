"""Diagnosis: every false defence is named for its own reason, and no honest model is accused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from gallery import Around, Replayed, gallery, quantised, resonant
from hypothesis import given
from hypothesis import strategies as st
from oracles import CPU, compute, noise_images, resnet18, small_net, streams, test_images, trained
from torch import Tensor, nn

from bench import UserError
from bench.lab.craft import craft
from bench.lab.examine import gradients as slopes
from bench.lab.examine import noise, of_attack, outputs
from bench.lab.examine import rules as checks
from bench.lab.examine.diagnose import diagnose
from bench.lab.examine.family import LEVEL, holm, settled
from bench.lab.examine.outputs import Case, Frozen
from bench.lab.examine.rules import Finding
from bench.models.classifier import Classifier, Plain
from bench.models.smoothing import Smoothed
from bench.recipes import PGD

SHORT = PGD(steps=5, step="4/255")


def frozen_copy() -> nn.Module:
    return copy.deepcopy(resnet18().net)


def suspicious(findings: list[Finding]) -> list[str]:
    return [finding.check for finding in findings if finding.verdict == "suspicious"]


# -- the gallery ----------------------------------------------------------------------------

GALLERY = gallery(frozen_copy)


@pytest.mark.parametrize("name", GALLERY)
def test_a_false_defence_is_named_for_its_own_reason_first(name: str) -> None:
    build, reason = GALLERY[name]
    images, labels = test_images(24 if reason == "encoding" else 12)  # a test that needs more falls than the others
    torch.manual_seed(0)  # for those that draw from the global generator
    findings = diagnose(build(), images, labels, streams(), compute(12), SHORT, queries=20, draws=4)
    first = next((finding for finding in findings if finding.verdict == "suspicious"), None)
    assert first is not None, f"{name} passed for honest"
    assert first.check == reason, first
    assert first.advice


@pytest.mark.slow  # every check to its end
def test_a_masked_model_is_caught_by_attacks_too() -> None:
    """Without a look at its gradients: the unbounded, the black-box and the transferred attack all beat PGD."""
    base = trained(False)
    images, labels = test_images(100)
    transfers = {"its own network": craft(SHORT, base, images, labels, streams(5), compute()).images}
    masked = Plain(Around(base.net, quantised).eval(), 10)
    found = suspicious(
        list(diagnose(masked, images, labels, streams(), compute(), SHORT, transfers=transfers, queries=60))
    )
    assert {"gradients", "ascent", "large-eps", "black-box", "transfer"} <= set(found)


def test_a_ripple_that_fits_the_step_is_caught_by_the_attacks_own_path() -> None:
    base = trained(False)
    images, labels = test_images(100)
    transfers = {"its own network": craft(SHORT, base, images, labels, streams(5), compute()).images}
    model = Plain(Around(base.net, resonant(float(SHORT.step))).eval(), 10)
    findings = list(diagnose(model, images, labels, streams(), compute(), SHORT, transfers=transfers, queries=20))
    local = [f for f in findings if f.check in ("gradients", "saturation", "uphill", "softmax", "randomness")]
    assert all(finding.verdict == "ok" for finding in local)
    assert {"ascent", "transfer"} & set(suspicious(findings)), findings


# -- honest models --------------------------------------------------------------------------


def test_an_undefended_network_is_not_accused() -> None:
    images, labels = test_images(12)
    findings = list(diagnose(resnet18(), images, labels, streams(), compute(12), SHORT, queries=12))
    assert suspicious(findings) == []
    checked = {finding.check for finding in findings}
    assert {"mode", "gradients", "large-eps", "black-box", "more-steps", "more-restarts"} <= checked


@pytest.mark.slow  # every check to its end
def test_an_adversarially_trained_network_is_not_accused() -> None:
    images, labels = test_images(100)
    model = trained(True)
    transfers = {"undefended": craft(PGD(), trained(False), images, labels, streams(5), compute()).images}
    findings = list(diagnose(model, images, labels, streams(), compute(), transfers=transfers, queries=60))
    assert suspicious(findings) == []
    white = next(f.figure for f in findings if f.check == "silent-success")
    assert float(white.split()[2]) > 15, "the model must be robust for this test to mean anything"


@pytest.mark.slow  # every check to its end
def test_a_declared_stochastic_model_is_not_accused() -> None:
    images, labels = test_images(60)
    model = Smoothed(trained(True), 0.06)
    findings = list(diagnose(model, images, labels, streams(), compute(), queries=6, draws=8))
    assert suspicious(findings) == []
    assert {"frozen-noise", "more-draws", "gradient-noise"} <= {finding.check for finding in findings}


# -- single checks --------------------------------------------------------------------------


def case(model: Classifier, n: int = 16) -> Case:
    return Case(model, noise_images(n), torch.arange(n) % 10, streams(), compute())


def test_a_mode_that_a_forward_pass_switches_is_seen_and_put_back() -> None:
    class Switching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net().net

        def forward(self, images: Tensor) -> Tensor:
            self.net.train()
            return self.net(images)

    model = Plain(Switching().eval(), 10)
    finding = outputs.modes(case(model))
    assert finding.verdict == "suspicious" and "switch" in finding.figure
    assert not any(module.training for module in model.net.modules())


def test_declared_noise_from_the_global_generator_is_not_repeatable() -> None:
    class Stray(Plain):
        stochastic = True

        def realise(self, shape, generator=None):
            noise = 0.3 * torch.randn(shape)
            return lambda images, rows=None: self.net(images + (noise if rows is None else noise[rows]))

    assert noise.randomness(case(Stray(small_net().net, 10))).verdict == "suspicious"
    assert noise.randomness(case(Smoothed(small_net(), 0.3))).verdict == "ok"
    assert noise.replay(case(Smoothed(small_net(), 0.3))).verdict == "ok"


def test_frozen_noise_is_one_draw_of_the_model() -> None:
    model = Smoothed(small_net(), 0.3)
    images = noise_images(5)
    one, two, other = Frozen(model, 1), Frozen(model, 1), Frozen(model, 2)
    assert torch.equal(one(images), two(images)) and not torch.equal(one(images), other(images))
    assert torch.equal(one(images), model(images, torch.Generator().manual_seed(1)))


def test_gradient_noise_is_measured_against_its_closed_form() -> None:
    """A linear model whose weights are w + noise: the signal to noise at EoT m is m |w|^2 / (d sigma^2)."""

    class Wobbling(Plain):
        stochastic = True

        def __init__(self, sigma: float) -> None:
            super().__init__(nn.Identity(), 2)
            self.weight = torch.full((192,), 0.5)
            self.sigma = sigma

        def realise(self, shape, generator=None):
            weight = self.weight + self.sigma * torch.randn(192, generator=generator)
            # nearly even odds, so that the slope of the cross-entropy is half that of the margin in every draw
            return lambda images, rows=None: torch.stack(
                [torch.zeros(len(images)), 1e-3 * ((images - 0.5).flatten(1) @ weight)], 1
            )

    for sigma, verdict in ((0.1, "ok"), (5.0, "cannot tell")):
        examined = Case(Wobbling(sigma), noise_images(40), torch.zeros(40, dtype=torch.int64), streams(), compute())
        finding = slopes.signal(examined, 1, draws=40)
        assert finding.verdict == verdict
        if verdict == "ok":
            assert float(finding.figure.split()[3]) == pytest.approx(0.25 / sigma**2, rel=0.15)


def test_a_gradient_of_nan_ends_in_cannot_tell() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net().net

        def forward(self, images: Tensor) -> Tensor:
            return self.net(images) + (images - images.detach()).abs().sqrt().flatten(1).sum(1, keepdim=True)

    examined = case(Plain(Broken().eval(), 10))
    findings = list(diagnose(examined.model, examined.images, examined.labels, streams(), compute(), SHORT))
    assert "gradients" in suspicious(findings)
    ended = next(finding for finding in findings if finding.check == "attack")
    assert ended.verdict == "cannot tell"


def test_too_few_images_are_refused() -> None:
    images, labels = noise_images(3), torch.arange(3)
    with pytest.raises(UserError, match="3 images tell nothing"):
        next(diagnose(small_net(), images, labels, streams(), compute()))


def test_replayed_noise_is_alike_and_fresh_noise_is_not() -> None:
    images, labels = noise_images(8, side=32), torch.arange(8)
    replayed = Case(Replayed(resnet18().net, 0.05), images, labels, streams(), compute())
    assert noise.replay(replayed).figure == "15 of 15 pairs of draws are the same"
    assert replayed.streams.device == CPU


# -- rules over numbers ---------------------------------------------------------------------


@pytest.mark.parametrize("n", [12, 50, 200])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_equal_attacks_are_seldom_called_different(n: int, p: float) -> None:
    """Two attacks of one strength that disagree on a tenth of the images: under 1 % false alarms, at 0.5 %."""
    dice = np.random.default_rng(0)
    alarms = 0
    for _ in range(1000):
        before = dice.random(n) < p
        flip = dice.random(n) < 0.1
        after = np.where(flip, dice.random(n) < p, before)
        alarms += bool(suspicious(list(settled([checks.black_box(before.astype(float), after.astype(float))]))))
    assert alarms < 10


def test_a_fall_of_a_third_is_seen_with_fifty_images() -> None:
    dice = np.random.default_rng(1)
    seen = 0
    for _ in range(300):
        before = (dice.random(50) < 0.6).astype(float)
        seen += bool(suspicious(list(settled([checks.black_box(before, before * (dice.random(50) < 0.5))]))))
    assert seen > 290


@given(st.lists(st.floats(0, 0.02), min_size=1, max_size=25))
def test_marks_of_a_diagnosis_are_those_of_holm_and_come_at_once_where_nothing_can_change_them(chances) -> None:
    findings = [Finding(str(i), "", "suspicious", "do", p) for i, p in enumerate(chances)]
    found = list(settled(findings))
    assert sorted(int(one.check) for one in found) == list(range(len(chances)))
    # Holm by its definition: reject in order while p <= level / what is left, and nothing after the first that fails.
    wanted, left = set(), len(chances)
    for i in sorted(range(len(chances)), key=lambda i: chances[i]):
        if chances[i] > LEVEL / left:
            break
        wanted.add(str(i))
        left -= 1
    ties = {str(i) for i in range(len(chances)) if chances[i] in {chances[int(j)] for j in wanted}}
    assert wanted <= set(suspicious(found)) <= ties
    assert all(one.verdict == "cannot tell" for one in found if one.check not in suspicious(found))


def test_a_family_of_twenty_checks_marks_an_honest_model_in_half_a_percent() -> None:
    chances = np.random.default_rng(0).random((20_000, 20))
    marked = sum(holm(list(row), LEVEL) >= 0 for row in chances)
    assert 60 < marked < 140


def test_exact_checks_are_marks_whatever_else_there_is() -> None:
    findings = [Finding("test", "", "suspicious", "", 0.9), Finding("exact", "", "suspicious")] * 3
    assert suspicious(list(settled(findings))) == ["exact"] * 3


def test_each_rule_accuses_in_one_direction_only() -> None:
    high, low = np.repeat([1.0, 0.0], [80, 20]), np.repeat([1.0, 0.0], [20, 80])
    rules = [
        checks.black_box, checks.transfer, checks.single_step, checks.random_noise, checks.frozen_noise,
        checks.silent_success, lambda a, b: checks.converged("steps", a, b), lambda a, b: checks.eps_order(b, a),
    ]  # fmt: skip
    for rule in rules:
        accused, cleared = rule(high, low), rule(low, high)
        assert (accused.verdict, cleared.verdict) == ("suspicious", "ok")
        assert accused.advice and "80.0 %" in accused.figure and "20.0 %" in accused.figure
        assert rule(high, high).verdict == "ok"


def test_large_eps_asks_for_chance_or_less() -> None:
    assert checks.large_eps(np.zeros(50), 10, 0.5).verdict == "ok"
    assert checks.large_eps(np.repeat([1.0, 0.0], [5, 45]), 10, 0.5).verdict == "ok"
    assert checks.large_eps(np.repeat([1.0, 0.0], [20, 30]), 10, 0.5).verdict == "suspicious"


@pytest.mark.parametrize(
    ("attack", "verdict"),
    [
        (PGD(), "ok"),
        (PGD(steps=8), "ok"),
        (PGD(steps=7), "cannot tell"),
        (PGD(steps=4, random_start=False), "ok"),
        (PGD(steps=3, random_start=False), "cannot tell"),
        (PGD(step=0), "cannot tell"),
        (PGD(eps=0, step=0), "ok"),
    ],
)
def test_reach_is_the_way_to_the_far_corner(attack: PGD, verdict: str) -> None:
    assert of_attack.reach(attack).verdict == verdict


def test_incomplete_looks_only_at_images_that_held_out() -> None:
    steps = np.linspace(0, 1, 31)[:, None]
    rising, level = np.repeat(steps - 2, 5, 1), np.repeat(np.minimum(steps * 10, 1) - 2, 5, 1)
    assert of_attack.incomplete(rising).verdict == "cannot tell"
    assert of_attack.incomplete(level).verdict == "ok"
    assert of_attack.incomplete(rising + 5).verdict == "ok"


def test_in_l2_an_honest_model_passes_and_a_masked_one_does_not():
    images, labels = test_images(40)
    attack = PGD(eps="0.5", step="0.1", steps=10, norm="L2")
    found = {
        finding.check: finding
        for finding in diagnose(resnet18(), images, labels, streams(), compute(), attack, queries=30)
    }
    assert not [name for name, finding in found.items() if finding.verdict == "suspicious"]
    assert found["large-eps"].figure.endswith("eps 28") and found["black-box"].verdict == "ok"

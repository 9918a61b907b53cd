"""PGD against closed forms, against torchattacks, and against its own laws."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import compute, linear_problem, noise_images, resnet18, small_net, streams, test_images
from torch import Tensor

from bench import UserError
from bench.lab.attacks import losses, pgd
from bench.lab.attacks.ball import Ball, lengths
from bench.lab.attacks.view import AttackError, View
from bench.lab.streams import Streams
from bench.models.classifier import Classifier, Plain
from bench.models.smoothing import Smoothed
from bench.recipes import PGD


def run(attack: PGD, source: Classifier, images: Tensor, labels: Tensor, seed: int = 0, batch: int = 64):
    return pgd.craft(attack, source, images, labels, streams(seed), compute(batch))


def answers(model: Classifier, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images).argmax(1)


# -- agreement ------------------------------------------------------------------------------


def test_same_images_as_torchattacks_from_the_same_start() -> None:
    import torchattacks

    model = resnet18()
    images, labels = test_images(16)
    attack = PGD(steps=4)
    peer = torchattacks.PGD(model.net, eps=8 / 255, alpha=2 / 255, steps=4, random_start=True)
    torch.manual_seed(3)
    theirs = peer(images, labels)
    torch.manual_seed(3)
    start = (images + torch.empty_like(images).uniform_(-8 / 255, 8 / 255)).clamp(0, 1)
    ours = pgd.ascend(attack, model, images, labels, start, streams(), compute=compute()).images
    assert (ours - theirs).abs().max() < 1e-5


def test_momentum_is_torchattacks_mifgsm() -> None:
    import torchattacks

    model = resnet18()
    images, labels = test_images(8)
    theirs = torchattacks.MIFGSM(model.net, eps=8 / 255, alpha=2 / 255, steps=3, decay=1.0)(images, labels)
    attack = PGD(steps=3, random_start=False, momentum=1.0)
    ours = run(attack, model, images, labels).images
    # Their sum of normalised slopes rounds differently: a pixel whose sum is nearly zero may turn.
    assert ((ours - theirs).abs() > 1e-5).float().mean() < 1e-3


# -- closed forms ---------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("eps", ["1/255", "4/255", "8/255"])
def test_reaches_the_robust_accuracy_of_a_linear_classifier(eps: str, loss: str) -> None:
    model, images, labels = linear_problem(400, seed=1)
    robust = model.robust(images, labels, float(Fraction(eps)))
    assert 0.05 < robust.float().mean() < 0.99
    crafted = run(PGD(eps=eps, step="2/255", steps=10, loss=loss), model, images, labels)
    assert torch.equal(answers(model, crafted.images) == labels, robust)
    assert torch.equal(crafted.claimed == 0, robust)


def test_mean_softmax_gradient_is_that_of_autograd() -> None:
    """SmoothAdv's gradient and those of the other losses of the mean softmax, against the whole graph."""
    base, draws = small_net(), 6
    model = Smoothed(base, 0.3)
    images, labels = noise_images(5), torch.tensor([0, 1, 2, 3, 4])
    for loss in ("ce", "margin", "dlr"):
        attack = PGD(eot=draws, gradient="mean-softmax", loss=loss)
        view = View(model, images.shape, streams(), compute(2))
        slope, _ = pgd._slope(attack, view, images, labels, None, 0, step=0)
        leaf = images.clone().requires_grad_(True)
        dice = [streams().generator("grad", 0, 0, k) for k in range(draws)]
        mean = torch.stack([model.realise(images.shape, d)(leaf).softmax(1) for d in dice]).mean(0)
        expected = losses.of_chances(loss, mean, labels)
        (wanted,) = torch.autograd.grad(expected.sum(), leaf)
        torch.testing.assert_close(slope, wanted, rtol=1e-3, atol=1e-5)


def test_smooth_adv_has_a_gradient_where_the_chance_underflows() -> None:
    base = small_net()
    base.net[-1].weight.mul_(1e4)
    images = noise_images(4)
    labels = (base(images).argmax(1) + 1) % 10
    view = View(Smoothed(base, 0.01), images.shape, streams(), compute())
    slope, _ = pgd._slope(PGD(eot=3, gradient="mean-softmax"), view, images, labels, None, 0, step=0)
    assert (slope.abs().amax((1, 2, 3)) > 0).all() and slope.isfinite().all()


def test_eot_averages_the_draws_and_accumulate_sums_the_steps() -> None:
    """Two steps by hand, draw by draw, against the attack."""
    model, labels = Smoothed(small_net(), 0.2), torch.arange(6)
    images = 0.25 + noise_images(6) / 2
    eps, size = 0.05, 0.02

    def slope(here: Tensor, step: int) -> Tensor:
        leaf = here.clone().requires_grad_(True)
        total = sum(
            losses.cross_entropy(model.realise(images.shape, streams().generator("grad", 0, step, k))(leaf), labels)
            for k in range(3)
        )
        return torch.autograd.grad(total.sum(), leaf)[0]

    for accumulate in (False, True):
        first = slope(images, 0)
        one = Ball(eps).project(images + size * first.sign(), images)
        second = slope(one, 1) + (first if accumulate else 0)
        two = Ball(eps).project(one + size * second.sign(), images)
        attack = PGD(eps=eps, step=size, steps=2, eot=3, random_start=False, accumulate=accumulate, keep_iterates=True)
        crafted = run(attack, model, images, labels)
        assert crafted.iterates is not None
        torch.testing.assert_close(crafted.iterates, torch.stack([images, one, two]), rtol=0, atol=1e-6)
        assert torch.equal(crafted.iterates[-1], crafted.images)


@given(logits=st.lists(st.lists(st.floats(-30, 30, width=32), min_size=4, max_size=4), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_losses_agree_with_their_definitions(logits: list[list[float]]) -> None:
    z = torch.tensor(logits)
    labels = torch.arange(len(z)) % 4
    for row, label, ce, margin in zip(
        z.double(), labels, losses.cross_entropy(z, labels), losses.margin(z, labels), strict=True
    ):
        others = [float(value) for c, value in enumerate(row) if c != label]
        assert float(ce) == pytest.approx(float(torch.logsumexp(row, 0) - row[label]), rel=1e-4, abs=1e-4)
        assert float(margin) == pytest.approx(max(others) - float(row[label]), rel=1e-5, abs=1e-5)
    assert torch.equal(losses.margin(z, labels) > 0, losses.wrong(z, labels) & (losses.margin(z, labels) != 0))


def test_dlr_by_hand_and_its_invariance() -> None:
    z, labels = torch.tensor([[5.0, 3.0, 1.0, 0.0], [5.0, 3.0, 1.0, 0.0]]), torch.tensor([0, 2])
    torch.testing.assert_close(losses.dlr(z, labels), torch.tensor([-2 / 4, 4 / 4]))
    torch.testing.assert_close(losses.dlr(7 * z + 3, labels), losses.dlr(z, labels))
    with pytest.raises(ValueError, match="third class"):
        losses.dlr(z[:, :2], labels)


# -- laws -----------------------------------------------------------------------------------


@given(
    eps=st.fractions(0, Fraction(1, 2), max_denominator=255),
    step=st.fractions(0, Fraction(1, 2), max_denominator=255),
    steps=st.integers(0, 3),
    restarts=st.integers(1, 2),
    pick=st.sampled_from(["last", "best"]),
    loss=st.sampled_from(["ce", "margin", "dlr"]),
    memory=st.sampled_from(["none", "accumulate", "momentum"]),
    sigma=st.sampled_from([0.0, 0.1]),
    start=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_stays_in_the_ball_and_the_box(
    eps: Fraction, step: Fraction, steps: int, restarts: int, pick: str, loss: str, memory: str, sigma: float,
    start: bool, seed: int,
) -> None:  # fmt: skip
    images = noise_images(4, seed=seed).round(decimals=1)  # with pixels at 0 and 1
    attack = PGD(
        eps=eps, step=step, steps=steps, restarts=restarts, pick=pick, loss=loss, selection=2, random_start=start,
        accumulate=memory == "accumulate", momentum=0.9 if memory == "momentum" else 0.0, keep_iterates=True,
    )  # fmt: skip
    model = Smoothed(small_net(seed=seed), sigma)
    before = images.clone()
    crafted = run(attack, model, images, torch.arange(4), seed)
    assert torch.equal(images, before)
    assert crafted.iterates is not None and len(crafted.iterates) == steps + 1
    assert torch.equal(crafted.iterates[0], images)
    for batch in (crafted.images, *crafted.iterates):
        assert batch.min() >= 0 and batch.max() <= 1
        assert (batch - images).abs().max() <= float(eps) + 1e-6
    if eps == 0:
        assert torch.equal(crafted.images, images)


def test_more_restarts_never_raise_robust_accuracy() -> None:
    images, labels = noise_images(80), answers(small_net(), noise_images(80))
    for loss in ("ce", "dlr"):
        scores = []
        for restarts in (1, 2, 4, 8):
            attack = PGD(eps="3/255", step="2/255", steps=2, restarts=restarts, loss=loss)
            crafted = run(attack, small_net(), images, labels)
            scores.append(answers(small_net(), crafted.images) == labels)
        assert scores[0].any() and not scores[-1].all()
        for fewer, more in itertools.pairwise(scores):
            assert not (more & ~fewer).any()


def test_eps_zero_and_no_steps_are_clean() -> None:
    images, labels = test_images(20)
    model = resnet18()
    right = answers(model, images) == labels
    crafted = run(PGD(eps=0, steps=2), model, images, labels)
    assert torch.equal(crafted.images, images) and torch.equal(crafted.claimed == 0, right)
    crafted = run(PGD(steps=0, random_start=False), model, images, labels)
    assert torch.equal(crafted.images, images)


@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_neither_microbatch_nor_the_global_generator_matters(sigma: float) -> None:
    model, images, labels = linear_problem(30, seed=4)
    smoothed = Smoothed(model, sigma)
    attack = PGD(steps=3, eot=2, restarts=2, pick="best", selection=2, early_stop=sigma == 0)
    torch.manual_seed(1)
    one = run(attack, smoothed, images, labels, batch=64)
    torch.manual_seed(2)
    two = run(attack, smoothed, images, labels, batch=7)
    torch.testing.assert_close(one.images, two.images, rtol=0, atol=1e-6)
    assert torch.equal(one.claimed, two.claimed)


def test_draws_follow_the_image_not_its_place_in_the_batch() -> None:
    """A smoothed linear classifier: when rows are dropped by hand, those that stay meet the same noise."""
    model = Smoothed(small_net(), 0.3)
    images, labels = noise_images(10), torch.arange(10)
    view = View(model, images.shape, streams(), compute(3))
    rows = torch.tensor([1, 4, 8, 9])
    whole = pgd._slope(PGD(eot=2), view, images, labels, None, 0, step=0)
    some = pgd._slope(PGD(eot=2), view, images[rows], labels[rows], rows, 0, step=0)
    torch.testing.assert_close(whole[0][rows], some[0])


@pytest.mark.parametrize("restarts", [1, 3])
def test_early_stop_fools_the_same_images_as_the_best_iterate(restarts: int) -> None:
    model = small_net()
    images, labels = noise_images(80), answers(model, noise_images(80))
    best = PGD(eps="3/255", step="1/255", steps=4, pick="best", restarts=restarts)
    stop = best.model_copy(update={"early_stop": True})
    whole, early = run(best, model, images, labels), run(stop, model, images, labels)
    fooled = answers(model, whole.images) != labels
    assert 0 < fooled.sum() < len(fooled)
    assert torch.equal(answers(model, early.images) != labels, fooled)
    assert torch.equal(early.claimed, whole.claimed) and torch.equal(early.claimed == 1, fooled)
    torch.testing.assert_close(early.images[~fooled], whole.images[~fooled])


def test_early_stop_is_cheaper_and_keeps_every_iterate() -> None:
    model, (images, labels) = resnet18(), test_images(16)
    right = answers(model, images) == labels
    counted, attack = compute(), PGD(steps=6, early_stop=True, keep_iterates=True)
    crafted = pgd.craft(attack, model, images, labels, streams(), counted)
    plain = PGD(steps=6)
    whole = compute()
    crafted_whole = pgd.craft(plain, model, images, labels, streams(), whole)
    assert (answers(model, crafted.images) != labels).sum() >= (answers(model, crafted_whole.images) != labels).sum()
    assert counted.backwards < whole.backwards / 2 and right.any()
    assert crafted.iterates is not None and len(crafted.iterates) == 7
    assert torch.equal(crafted.iterates[-1], crafted.images)


def test_best_iterate_is_never_worse_than_the_last() -> None:
    model, images = small_net(), noise_images(60)
    labels = answers(model, images)
    for loss in ("ce", "margin"):
        last = PGD(eps="8/255", step="8/255", steps=5, loss=loss)
        best = last.model_copy(update={"pick": "best"})

        def score(attack: PGD) -> tuple[Tensor, Tensor]:
            logits = model(run(attack, model, images, labels).images)
            return losses.wrong(logits, labels), losses.margin(logits, labels)

        (lost, low), (won, high) = score(last), score(best)
        assert (won | ~lost).all()
        assert (high[won == lost] >= low[won == lost] - 1e-6).all()
        assert (high > low + 1e-6).any()  # a step of the whole ball overshoots somewhere


def test_selection_raises_expected_loss_on_fresh_draws() -> None:
    model = Smoothed(small_net(), 0.2)
    images = noise_images(40)
    labels = answers(small_net(), images)

    def fresh(attack: PGD) -> float:
        crafted = run(attack, model, images, labels)
        dice = [streams().generator("score", k) for k in range(64)]
        values = [losses.cross_entropy(model.realise(images.shape, d)(crafted.images), labels) for d in dice]
        return float(torch.stack(values).mean())

    last = PGD(eps="8/255", step="8/255", steps=6)
    assert fresh(last.model_copy(update={"pick": "best", "selection": 32})) > fresh(last)


def test_crafting_is_the_same_twice_and_differs_by_seed_and_shard() -> None:
    model, images = Smoothed(small_net(), 0.1), noise_images(6)
    labels = torch.arange(6)
    one, two = run(PGD(steps=2), model, images, labels, 1), run(PGD(steps=2), model, images, labels, 1)
    assert torch.equal(one.images, two.images)
    assert not torch.equal(one.images, run(PGD(steps=2), model, images, labels, 2).images)
    other = pgd.craft(PGD(steps=2), model, images, labels, Streams(1, 1, torch.device("cpu")), compute())
    assert not torch.equal(one.images, other.images)


# -- refusals -------------------------------------------------------------------------------


def test_refusals_name_the_key() -> None:
    images, labels = noise_images(2), torch.arange(2)
    with pytest.raises(UserError, match="early_stop"):
        run(PGD(early_stop=True), Smoothed(small_net(), 0.1), images, labels)
    with pytest.raises(UserError, match="momentum"):
        run(PGD(accumulate=True, momentum=0.5), small_net(), images, labels)
    with pytest.raises(UserError, match="dlr needs three classes"):
        run(PGD(loss="dlr"), small_net(classes=2), images, torch.zeros(2, dtype=torch.int64))


def test_a_gradient_that_is_not_finite_is_an_error_and_no_number() -> None:
    class Root(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            value = (images - images.detach()).abs().sqrt().flatten(1).sum(1)
            return torch.stack([value, -value, value], 1)

    with pytest.raises(AttackError, match="NaN or infinite"):
        run(PGD(steps=1), Plain(Root(), 3), noise_images(2), torch.arange(2))


# -- L2 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("eps", ["0.05", "0.1", "0.2"])
def test_reaches_the_robust_accuracy_of_a_linear_classifier_in_l2(eps: str, loss: str) -> None:
    """There the margin falls by eps |w|_2: no smaller perturbation fools, and this one does."""
    model, images, labels = linear_problem(400, seed=1)
    far = model.values(images) * (2 * labels - 1) / model.weight.norm()
    robust = far > float(Fraction(eps))
    assert 0.05 < robust.float().mean() < 0.99
    attack = PGD(eps=eps, step=Fraction(eps) / 4, steps=20, loss=loss, norm="L2")
    crafted = run(attack, model, images, labels)
    assert lengths(crafted.images - images).max() <= float(Fraction(eps))
    clear = (far - float(Fraction(eps))).abs() > 1e-4
    assert torch.equal((answers(model, crafted.images) == labels)[clear], robust[clear])


def test_l2_of_torchattacks_from_the_images() -> None:
    import torchattacks

    model = resnet18()
    images, labels = test_images(8)
    theirs = torchattacks.PGDL2(model.net, eps=0.5, alpha=0.1, steps=3, random_start=False)(images, labels)
    attack = PGD(eps="0.5", step="0.1", steps=3, random_start=False, norm="L2")
    ours = run(attack, model, images, labels).images
    # Theirs adds 1e-10 to the slope's length, which is not much more than that where the model is very sure.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-4)
    assert ((ours - theirs).abs() > 2e-5).float().mean() < 0.05


def test_the_norm_stays_out_of_the_key_at_its_default() -> None:
    assert PGD(norm="Linf").key == PGD().key != PGD(norm="L2").key
    with pytest.raises(ValueError, match="at most 1"):
        PGD(eps=2)
    assert PGD(eps=2, norm="L2").eps == 2


@given(seed=st.integers(0, 2**31), eps=st.floats(1e-3, 3), norm=st.sampled_from(["Linf", "L2"]))
@settings(max_examples=40, deadline=None)
def test_a_ball_keeps_what_it_is_given(seed: int, eps: float, norm: str) -> None:
    """Projected images are inside, those inside stay, and a step's length is 1 in the norm."""
    dice = torch.Generator().manual_seed(seed)
    ball, centre = Ball(eps, norm), torch.rand(4, 3, 5, 5, generator=dice)
    for moved in (ball.random(centre, dice), ball.project(centre + torch.randn(4, 3, 5, 5, generator=dice), centre)):
        far = lengths(moved - centre) if norm == "L2" else (moved - centre).abs().amax()
        assert moved.min() >= 0 and moved.max() <= 1 and float(far.max()) <= eps * (1 + 1e-6) + 1e-7
        torch.testing.assert_close(ball.project(moved, centre), moved, rtol=0, atol=1e-5)
    along = ball.along(torch.randn(4, 3, 5, 5, generator=dice) * 1e-30)
    far = lengths(along) if norm == "L2" else along.abs().amax((1, 2, 3))
    torch.testing.assert_close(far, torch.ones_like(far))

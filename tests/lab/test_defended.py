"""Declared defences in the lab: built, trained through, put over weights; and the protocols of an attack's draws."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench import UserError
from bench.lab.attacks import pgd
from bench.lab.attacks.peers.fence import Drawn
from bench.lab.attacks.view import View
from bench.lab.compute.passes import Compute
from bench.lab.compute.precision import Fitting
from bench.lab.craft import craft
from bench.lab.streams import Streams
from bench.lab.train import Options, train
from bench.lab.train.perturb import perturb
from bench.lab.weights.build import build
from bench.lab.weights.defend import over
from bench.lab.weights.files import load
from bench.models import defences as zoo
from bench.models.adapters.held import Redrawn
from bench.models.adapters.randomised import GlobalRandom
from bench.models.classifier import Classifier, Plain, alters
from bench.models.defences.base import Fixed
from bench.recipes import (
    CTRW,
    PGD,
    RNA,
    RND,
    RPF,
    SAP,
    SLWTA,
    WCA,
    CropEnsemble,
    Data,
    Mixture,
    Network,
    NoiseOff,
    Optimiser,
    Peer,
    RandomFeatures,
    RandomPrecision,
    ResizePad,
    Through,
    Trained,
    Training,
)

CPU = torch.device("cpu")
SMALL = Network(depth=10, width=1)
THROUGH: list[Through] = [RNA(), RPF(), CTRW(), WCA(), SLWTA()]
OVER: dict[Any, type[Classifier]] = {
    RND(): zoo.RND, RandomFeatures(): zoo.RandomFeatures, ResizePad(): zoo.ResizePad, CropEnsemble(): zoo.CropEnsemble,
    SAP(): zoo.SAP, RandomPrecision(): zoo.RandomPrecision,
}  # fmt: skip


def streams(seed: int = 0) -> Streams:
    return Streams(seed, 0, CPU)


def pictures(n: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, 3, 32, 32, generator=generator), torch.randint(10, (n,), generator=generator)


def defended(defence: Through) -> Classifier:
    return build(Trained(network=SMALL, defence=defence))


# -- built and trained ---------------------------------------------------------------------------


@pytest.mark.parametrize("defence", THROUGH, ids=lambda defence: defence.kind)
def test_a_network_is_trained_through_its_defence_to_the_same_weights_each_time(
    defence: Through, tmp_path: Path
) -> None:
    training = Training(epochs=1, batch=20, augment="none", attack=PGD(steps=1, draw="frozen"), validation=20,
                        validation_attack=PGD(steps=1), optimiser=Optimiser(lr=0.01))  # fmt: skip
    recipe = Trained(network=SMALL, defence=defence, data=Data(split="excerpt", stop=60), training=training)
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)
    labels = np.arange(60) % 10
    states = []
    for run in ("one", "two"):
        out = tmp_path / run
        out.mkdir()
        options = Options(exact=True)
        train(recipe, images, labels, device=CPU, state_dir=tmp_path / f"state-{run}", out=out, options=options)
        states.append(load(out))
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    start = build(recipe).state_dict()
    own = [name for name, _ in build(recipe).named_parameters() if "temp" not in name and name != "net.fc.weight"]
    moved = [name for name in own if not torch.equal(states[0][name], start[name])]
    assert len(moved) > 0.9 * len(own)
    built, x = build(recipe, states[0]), pictures()[0]
    fresh = [built(x, streams(seed).generator("score")) for seed in range(3)]
    assert built.stochastic and not torch.equal(fresh[0], fresh[1])


@pytest.mark.parametrize("recipe", OVER, ids=lambda recipe: recipe.kind)
def test_a_defence_over_weights_is_what_was_declared(recipe: Any) -> None:
    base = build(Trained(network=SMALL))
    made = over(recipe, base)
    assert type(made) is OVER[recipe]
    declared = {
        name: getattr(recipe, name) for name in type(recipe).model_fields if name not in ("kind", "sites", "nu")
    }
    assert {name: getattr(made, name) for name in declared} == declared
    x, _ = pictures()
    torch.testing.assert_close(made.mean()(x), base(x))


def test_defences_compose_where_their_definitions_allow() -> None:
    noisy, plain = defended(RPF()), build(Trained(network=SMALL))
    x, _ = pictures()
    both = over(CropEnsemble(), over(RND(), noisy))
    assert both(x, streams().generator("score")).shape == (6, 10)
    torch.testing.assert_close(both.mean()(x), noisy.mean()(x))
    mixed = over(Mixture(other=Trained(network=SMALL, defence=RPF())), plain, noisy)
    assert isinstance(mixed, zoo.Mixture) and mixed.atoms() == ()
    with pytest.raises(UserError, match="changes a plain network, not a RPF"):
        over(SAP(), noisy)
    with pytest.raises(UserError, match="defence ctrw"):
        build(Trained(network=SMALL, defence=CTRW(position=4)))


def test_noise_off_is_the_network_itself_and_needs_noise_to_put_off() -> None:
    noisy, plain = defended(RPF()), build(Trained(network=SMALL))
    x, _ = pictures()
    off = over(NoiseOff(), noisy)
    assert not off.stochastic and torch.equal(off(x), off(x))
    torch.testing.assert_close(off(x), noisy.mean()(x))
    with pytest.raises(UserError, match="have no noise"):
        over(NoiseOff(), plain)


def test_what_alters_modules_is_never_compiled() -> None:
    base = build(Trained(network=SMALL))
    altering = [RandomFeatures(), SAP(), RandomPrecision()]
    assert all(alters(over(recipe, base)) for recipe in altering)
    assert all(alters(defended(recipe)) for recipe in THROUGH if not isinstance(recipe, RPF))
    assert not alters(base) and not alters(defended(RPF())) and not alters(over(RND(), base))
    fitting = Fitting(torch.device("cuda"), False, lambda message: None)
    fitting.compile(Compute(CPU), "key", over(SAP(), base), None, 1e12, 1e12, draws=1)  # type: ignore[arg-type]
    assert not fitting._compiled and not fitting._failed


def test_images_of_another_shape_are_defended_too() -> None:
    data = Data(kind="npz", path="mine.npz", fingerprint="0" * 64, size=10, shape=(1, 28, 28))
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for defence in THROUGH:
        model = build(Trained(network=Network(depth=10, width=1, classes=3), data=data, defence=defence))
        assert model(x, streams().generator("score")).shape == (2, 3)


# -- protocols -------------------------------------------------------------------------------------


def attacked(attack: Any, source: Classifier, seed: int = 0) -> Tensor:
    x, y = pictures()
    return craft(attack, source, x, y, streams(seed), Compute(CPU, microbatch=4)).images


SOURCES = {
    "weights": lambda: defended(RPF()),
    "input": lambda: over(RND(nu=0.1), build(Trained(network=SMALL))),
    "features": lambda: over(SAP(), build(Trained(network=SMALL))),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_each_protocol_is_an_attack_on_what_it_says(kind: str) -> None:
    source, (x, _) = SOURCES[kind](), pictures()
    realisation = source.realise(x.shape, streams().generator("grad"))

    class Held(Plain):
        def realise(self, shape: Any, generator: Any = None) -> Any:
            return realisation

    found = {draw: attacked(PGD(steps=3, eot=4, draw=draw), source) for draw in ("moving", "frozen", "none")}
    assert torch.equal(found["frozen"], attacked(PGD(steps=3), Held(nn.Identity(), 10)))
    assert torch.equal(found["none"], attacked(PGD(steps=3), source.mean()))
    pseudo = attacked(PGD(steps=3, eot=4, draw="pseudo-eot"), source)
    assert torch.equal(pseudo, attacked(PGD(steps=3), source)), "copies that share a draw are one draw"
    several = [*found.values(), pseudo]
    assert len({tuple(images.flatten().tolist()) for images in several}) == 4
    assert all(torch.equal(attacked(PGD(steps=3, eot=4, draw=draw), source), found[draw]) for draw in found)
    assert not torch.equal(attacked(PGD(steps=3, draw="frozen"), source, seed=1), found["frozen"])


@pytest.mark.parametrize("draw", ["moving", "frozen", "pseudo-eot", "none"])
@pytest.mark.parametrize("eot", [1, 3])
def test_training_perturbs_by_the_same_protocol(draw: Any, eot: int) -> None:
    source, (x, y) = defended(RPF()), pictures()
    attack = PGD(steps=3, eot=eot, draw=draw)
    moved = perturb(attack, source, x, y, streams(), Compute(CPU))
    assert torch.equal(moved, pgd.craft(attack, source, x, y, streams(), Compute(CPU)).images)


def test_a_frozen_draw_flatters_the_defence() -> None:
    """F1: what one draw's attack leaves on that draw and on fresh ones; the moving attack leaves less on fresh ones."""
    source, (x, _) = defended(CTRW()), pictures()
    y = source.mean()(x).argmax(1)
    losses = {}
    for draw in ("frozen", "moving"):
        attack: Any = PGD(steps=10, eot=8, eps="4/255", step="1/255", draw=draw)
        images = craft(attack, source, x, y, streams(), Compute(CPU)).images
        fresh = [source(images, streams().generator("score", k)) for k in range(60)]
        losses[draw] = float(torch.stack([nn.functional.cross_entropy(logits, y) for logits in fresh]).mean())
        if draw == "frozen":
            own = source.realise(x.shape, streams().generator("grad"))(images)
            assert float(nn.functional.cross_entropy(own, y)) > losses["frozen"], "it knows the draw it was made for"
    assert losses["moving"] > losses["frozen"]


def test_early_stop_is_for_a_frozen_draw_and_refused_for_moving_ones() -> None:
    """F2: the published attack stops at one draw's boundary; on moving draws that would mean nothing."""
    source = defended(RPF())
    assert attacked(PGD(steps=3, early_stop=True, draw="frozen"), source).shape == (6, 3, 32, 32)
    with pytest.raises(UserError, match="early_stop"):
        attacked(PGD(steps=3, early_stop=True), source)


def test_what_a_frozen_attack_believes_is_of_its_own_draw() -> None:
    source, (x, y) = defended(RPF()), pictures()
    made = craft(PGD(steps=3, draw="frozen"), source, x, y, streams(), Compute(CPU))
    own = source.realise(x.shape, streams().generator("grad"))(made.images)
    assert torch.equal(made.claimed.bool(), own.argmax(1) != y)


def test_libraries_meet_the_same_protocols() -> None:
    source, (x, _) = defended(RPF()), pictures()
    moving, frozen = Drawn(source, streams(), Compute(CPU)), Drawn(source, streams(), Compute(CPU), frozen=True)
    assert torch.equal(frozen(x), frozen(x)) and not torch.equal(moving(x), moving(x))
    attack = Peer(kind="torchattacks", name="PGD", arguments={"steps": 2})
    images = {draw: attacked(attack.model_copy(update={"draw": draw}), source) for draw in ("moving", "frozen", "none")}
    assert not torch.equal(images["moving"], images["frozen"])
    assert torch.equal(images["none"], attacked(attack, source.mean()))


def test_a_network_that_cannot_say_what_it_is_without_noise_is_an_error_of_the_suite() -> None:
    x, _ = pictures()
    with pytest.raises(UserError, match="does not say what it is without its noise"):
        View(GlobalRandom(nn.Flatten(), 10), x.shape, streams(), Compute(CPU), "none")
    fixed = Fixed(defended(RPF()), lambda images: images.flatten(1)[:, :10])
    assert fixed.mean() is fixed


class State(nn.Module):
    """Noise as several defences are published: in the module, from the global generator, until a hook redraws it."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.zeros(10)

    def set_rands(self, generator: torch.Generator) -> None:
        self.shift = torch.randn(10) + float(np.random.randn())

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :10] + self.shift


def test_noise_in_state_moves_only_by_its_hook() -> None:
    """F4 and F5: five passes look deterministic; behind `Redrawn` a draw is a draw, and global ones stay still."""
    net, (x, _) = State(), pictures()
    assert len({tuple(net(x)[0].tolist()) for _ in range(5)}) == 1
    held = Redrawn(net, net.set_rands, 10)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    draws = [held(x, streams(seed).generator("score")) for seed in range(5)]
    assert len({tuple(draw[0].tolist()) for draw in draws}) == 5
    assert torch.equal(draws[2], held(x, streams(2).generator("score")))
    first, second = (held.realise(x.shape, streams(seed).generator("score")) for seed in (0, 1))
    second(x)
    assert torch.equal(first(x), draws[0]), "a realisation is a draw, whatever was drawn after it"
    assert torch.equal(torch.get_rng_state(), torch_state) and (np.random.get_state()[1] == numpy_state).all()
    with pytest.raises(ValueError, match="generator"):
        held.realise(x.shape, None)

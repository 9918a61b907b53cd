"""What attacks are said to cost: as they are declared, and as their libraries count."""

from __future__ import annotations

import pytest
import torch
from oracles import NoisyLinear, compute, streams

from bench.lab.craft import craft
from bench.recipes import PGD, Examples, Model, Noise, Peer, Square, Trained, Worst
from bench.store.cost import STAY, gradients, passes


def autoattack(name: str = "standard", **arguments: object) -> Peer:
    return Peer(kind="autoattack", name=name, arguments=arguments)


def test_autoattacks_declared_iterations_count() -> None:
    """83 minutes were announced and 14 taken, because n_iter and eot_iter were not looked at."""
    assert gradients(autoattack("rand")) == (0.0, 2 * 101 * 20)
    assert gradients(autoattack("rand", apgd={"n_iter": 25, "eot_iter": 10})) == (0.0, 2 * 26 * 10)
    assert gradients(autoattack("rand, as published")) == gradients(autoattack("rand"))
    forward, slopes = gradients(autoattack())
    assert (forward, slopes) == (pytest.approx(STAY * (5000 + 900)), pytest.approx(STAY * (101 + 909 + 900)))
    fewer = gradients(autoattack(apgd_targeted={"n_target_classes": 3}, square={"n_queries": 100}))
    assert fewer[0] < forward and fewer[1] < slopes
    one = gradients(Peer(kind="autoattack", name="custom", arguments={"attacks": ["square"]}))
    assert one == (pytest.approx(STAY * 5000), 0.0)


def test_other_libraries_say_it_by_their_usual_names() -> None:
    assert gradients(Peer(kind="torchattacks", name="PGD", arguments={"steps": 7})) == (10.0, 7.0)
    assert gradients(Peer(kind="torchattacks", name="APGD", arguments={"steps": 5, "eot_iter": 4}))[1] == 20
    assert gradients(Peer(kind="torchattacks", name="FGSM"))[1] == 1
    assert gradients(Peer(kind="torchattacks", name="AutoAttack")) == gradients(autoattack())
    assert gradients(Peer(kind="python", name="own:Attack", arguments={"steps": "many"})) == (10.0, 20.0)


@pytest.mark.parametrize("name", ["custom", "custom, as published"])
def test_what_is_announced_is_what_a_noisy_source_sees(name: str) -> None:
    source = NoisyLinear(0.1)
    images = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = (images.flatten(1) @ source.weight.T).argmax(1)
    given = {"attacks": ["apgd-ce", "apgd-dlr"], "apgd": {"n_iter": 6, "n_restarts": 1, "eot_iter": 3}}
    attack, counted = Peer(kind="autoattack", name=name, eps="0.0001", arguments=given), compute()
    craft(attack, source, images, labels, streams(), counted)
    assert counted.backwards == len(images) * gradients(attack)[1] / STAY


def test_draws_cost_nothing_where_all_would_be_the_same() -> None:
    noisy = Model(weights=Trained(noise=Noise()))
    for attack in (PGD(eot=16), Square(), Worst(attacks=(PGD(eot=16), PGD(restarts=4)))):
        costs = [passes(Examples(source=source, attack=attack)) for source in (noisy, Model(weights=Trained()))]
        assert costs[0] > 5 * costs[1] > 0
    one = Examples(source=Model(weights=Trained()), attack=PGD())
    assert passes(one) == passes(one.model_copy(update={"source": noisy}))

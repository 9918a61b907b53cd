"""Declared defences: where each may stand, and that nothing made before them has another key."""

from fractions import Fraction
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from bench.recipes import (
    PGD,
    RNA,
    RND,
    RPF,
    SLWTA,
    Distilled,
    Examples,
    Fetched,
    Mixture,
    Model,
    Noise,
    NoiseOff,
    Outcomes,
    Over,
    Peer,
    RandomPrecision,
    Recipe,
    Through,
    Trained,
    inputs,
    parse,
    summary,
)
from bench.suite.schema import Entry

PLAIN = Trained()
MIXED = Model(weights=PLAIN, defence=Mixture(other=Trained(defence=RPF())))
EVERY: list[Recipe] = [kind() for several in (Over, Through) for kind in get_args(several)]


def test_late_fields_leave_old_keys_alone() -> None:
    """The keys as they were before there were defences, from the golden file's own recipes."""
    assert "defence" not in Trained().told() and "defence" not in Model(weights=PLAIN).told()
    assert "draw" not in PGD().told() and "draw" not in Peer(kind="torchattacks").told()
    assert PGD(draw="moving").key == PGD().key
    assert Model(weights=PLAIN, defence=None).key == Model(weights=PLAIN).key


@pytest.mark.parametrize("recipe", [PGD(draw="frozen"), PGD(draw="pseudo-eot"), PGD(draw="none")])
def test_a_protocol_is_part_of_the_key_and_of_the_manifest(recipe: PGD) -> None:
    assert recipe.key != PGD().key
    assert parse(summary(recipe)) == recipe


@pytest.mark.parametrize("recipe", EVERY, ids=lambda recipe: recipe.kind)
def test_every_defence_has_one_place(recipe: Any) -> None:
    over = isinstance(recipe, get_args(Over))
    holders = {Model: {"weights": PLAIN}, Entry: {"weights": PLAIN}, Trained: {}}
    for holder, fields in holders.items():
        if over == (holder is not Trained):
            made = holder(**fields, defence=recipe)
            assert made.key != holder(**fields).key
            model = made.model if isinstance(made, Entry) else made if isinstance(made, Model) else Model(weights=made)
            assert model.stochastic and parse(summary(model)) == model
        else:
            with pytest.raises(ValidationError, match=r"name it in \[(weights|models)\.NAME\]"):
                holder(**fields, defence=recipe)


def test_with_its_noise_off_a_model_is_deterministic_and_another_model() -> None:
    noisy = Trained(noise=Noise())
    off = Model(weights=noisy, defence=NoiseOff())
    assert Model(weights=noisy).stochastic and not off.stochastic and off.key != Model(weights=noisy).key
    assert Model(weights=noisy, sigma=Fraction(1, 10), defence=NoiseOff()).stochastic and parse(summary(off)) == off


def test_different_values_are_different_defences() -> None:
    assert len({recipe.key for recipe in EVERY}) == len(EVERY) == 11
    assert RND(nu=0.05) != RND() and RandomPrecision(lowest=5) != RandomPrecision()
    assert Trained(defence=RNA()) != Trained(defence=SLWTA())


def test_noise_and_defence_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="choose one"):
        Trained(noise=Noise(), defence=RPF())


def test_a_mixture_needs_both_weights() -> None:
    both = [PLAIN, Trained(defence=RPF())]
    assert MIXED.made_from == both
    examples = Examples(source=MIXED, attack=PGD())
    assert inputs(examples) == both
    assert inputs(Outcomes(examples=examples, target=MIXED)) == [examples, *both]
    assert inputs(Distilled(teacher=MIXED, targets="online")) == both
    assert parse(summary(MIXED)) == MIXED


def test_the_published_checkpoint_is_stochastic_without_being_told() -> None:
    assert Model(weights=Fetched(kind="slwta", file="ckpt.pt")).stochastic
    assert Model(weights=Fetched(kind="file", name="w", defence=RPF())).stochastic
    assert not Model(weights=Fetched(kind="file", name="w")).stochastic

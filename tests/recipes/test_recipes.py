"""Recipes: equal values have equal keys, any change has another, and manifests give them back."""

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.recipes import (
    KINDS,
    PGD,
    Clean,
    Data,
    Distilled,
    Examples,
    Fetched,
    Model,
    Network,
    Noise,
    Optimiser,
    Outcomes,
    Schedule,
    Square,
    Stopping,
    Trained,
    Training,
    Worst,
    inputs,
    parse,
    summary,
    targets_of,
)

CNI = Trained(network=Network(depth=10, width=1), noise=Noise(), training=Training(attack=PGD()))
TEACHER = Model(weights=CNI)
STUDENT = Distilled(teacher=TEACHER, network=Network(depth=10, width=1))
WHITE_BOX = Outcomes(examples=Examples(source=TEACHER, attack=PGD()), target=TEACHER, draws=16)


def test_golden_keys():
    """A key that changes here orphans every published record: raise the type's `rev` on purpose only."""
    golden = {
        "Data": Data(), "PGD": PGD(), "Trained": CNI, "Distilled": STUDENT, "Examples": WHITE_BOX.examples,
        "Outcomes": WHITE_BOX,
    }  # fmt: skip
    assert {name: recipe.key[:12] for name, recipe in golden.items()} == GOLDEN


def test_equal_values_have_equal_keys():
    assert PGD(eps="8/255").key == PGD(eps=Fraction(16, 510)).key == PGD().key
    assert PGD(momentum=1).key == PGD(momentum=1.0).key
    assert Schedule(milestones=[50, 75]) == Schedule(milestones=(50, 75))
    assert Model(weights=CNI, sigma="0.2").key == Model(weights=CNI, sigma=0.2).key


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "eps": st.fractions(0, 1, max_denominator=255),
            "step": st.fractions(0, 1, max_denominator=255),
            "steps": st.integers(0, 200),
            "restarts": st.integers(1, 5),
            "eot": st.integers(1, 32),
            "loss": st.sampled_from(["ce", "margin", "dlr"]),
            "pick": st.sampled_from(["last", "best"]),
            "accumulate": st.booleans(),
            "momentum": st.floats(0, 2),
        },
    )
)
def test_any_field_changes_the_key(fields):
    changed = PGD(**fields)
    same = all(getattr(changed, name) == getattr(PGD(), name) for name in PGD.model_fields)
    assert (changed.key == PGD().key) == same
    nested = WHITE_BOX.model_copy(update={"examples": Examples(source=TEACHER, attack=changed)})
    assert (Outcomes(**dict(nested)).key == WHITE_BOX.key) == same


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_seed_is_part_of_the_key(a, b):
    one, two = (Outcomes(examples=Examples(), target=TEACHER, seed=seed) for seed in (a, b))
    assert (one.key == two.key) == (a == b)


@pytest.mark.parametrize(
    "recipe",
    [Data(split="train", stop=5), STUDENT, WHITE_BOX, Worst(attacks=(PGD(), Square())), Fetched(kind="timm", name="x")],
    ids=lambda recipe: type(recipe).__name__,
)
def test_a_manifest_gives_the_recipe_back(recipe):
    again = parse(json.loads(json.dumps(summary(recipe))))
    assert again == recipe and again.key == recipe.key


class Grown(PGD):
    """PGD as it will be when somebody adds a field."""

    late = PGD.late | {"norm"}
    norm: str = "Linf"


Grown.__name__ = "PGD"  # a type's name is in its keys


def test_a_late_field_stays_out_of_the_key_at_its_default():
    assert Grown().key == PGD().key and Grown(steps=3).key == PGD(steps=3).key
    assert Grown(norm="L2").key not in (Grown().key, PGD().key)
    assert "norm" not in summary(Grown()) and summary(Grown(norm="L2"))["norm"] == "L2"


def test_late_fields_have_defaults():
    for kind in KINDS:
        for name in kind.late:
            assert not kind.model_fields[name].is_required(), f"{kind.__name__}.{name} would be in every key"


FROZEN = {Trained, Distilled, PGD, Data, Network, Noise, Model, Training, Optimiser, Schedule}


def test_what_published_weights_hang_on_never_changes_its_rev():
    assert {kind.__name__: kind.rev for kind in FROZEN} == {kind.__name__: 1 for kind in FROZEN}


def test_parse_refuses_another_rev():
    body = summary(Data()) | {"rev": 999}
    with pytest.raises(ValueError, match="rev 999"):
        parse(body)
    with pytest.raises(ValueError, match="not a recipe"):
        parse({"type": "os.system"})


def test_inputs_are_the_graph():
    assert inputs(CNI) == []
    assert inputs(STUDENT) == [CNI, targets_of(STUDENT)]
    assert inputs(WHITE_BOX) == [WHITE_BOX.examples, CNI]
    clean = Outcomes(examples=Examples(), target=Model(weights=STUDENT))
    assert inputs(clean) == [STUDENT]
    assert targets_of(STUDENT.model_copy(update={"targets": "online"})) is None


def test_stochastic_is_derived():
    assert TEACHER.stochastic and not Model(weights=STUDENT).stochastic
    assert Model(weights=STUDENT, sigma="0.1").stochastic


@pytest.mark.parametrize(
    "make",
    [
        lambda: PGD(eps=2),
        lambda: PGD(eps="eight"),
        lambda: PGD(steps="10"),
        lambda: PGD(steps=True),
        lambda: PGD(step_size=1),
        lambda: Network(depth=27),
        lambda: Data(start=5, stop=5),
        lambda: Optimiser(lr=0),
        lambda: Examples(source=TEACHER, attack=Clean()),
        lambda: Examples(attack=PGD()),
        lambda: Outcomes(examples=Examples(), target=TEACHER, iterate=1),
        lambda: Outcomes(examples=Examples(), target=TEACHER, draws=70000),
        lambda: Stopping(alpha=0.7),
    ],
)
def test_impossible_values_are_refused(make):
    with pytest.raises(ValidationError):
        make()


def test_recipes_are_frozen():
    with pytest.raises(ValidationError):
        PGD().eps = Fraction(1)


GOLDEN = {
    "Data": "087e493c8d1f",
    "PGD": "a6693ac02848",
    "Trained": "3c9199f45e23",
    "Distilled": "21154f6cfdf8",
    "Examples": "c6aadb44b97e",
    "Outcomes": "26dbb4ad662f",
}

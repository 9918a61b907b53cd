"""The suites of published defences: every kind is there, every protocol is named, claims resolve at every scale."""

from pathlib import Path
from typing import get_args

import pytest

from bench.recipes import PGD, Fetched, Mixture, Over, Peer, Strong, Through, Trained
from bench.report.access import access
from bench.report.published import folder, read
from bench.run.session import open_suite
from bench.store.cost import work_of
from bench.store.plan import everything
from bench.store.tasks import Settings
from bench.suite.expressions import parse, resolve
from bench.suite.reader import load, scales

SUITES = Path(__file__).parents[2] / "suites"
RANDOMISED, OWN = SUITES / "randomised.toml", SUITES / "slwta.toml"
EVERY = [(path, scale) for path in (RANDOMISED, OWN) for scale in scales(path)]


def test_every_defence_of_the_zoo_is_judged() -> None:
    suite = load(RANDOMISED, "desk")
    rows = [row.target for row in suite.tables["randomised"].rows]
    models = [suite.models[row].model for row in rows]
    over = {type(model.defence) for model in models} - {type(None)}
    through = {type(m.weights.defence) for m in models if isinstance(m.weights, Trained)} - {type(None)}
    assert over == {*get_args(Over), Mixture} and through == set(get_args(Through))
    assert "backbone" in rows and "cni" in rows and len(rows) >= 14


def test_all_rows_share_one_backbone_and_one_recipe() -> None:
    for scale in scales(RANDOMISED):
        suite = load(RANDOMISED, scale)
        trained = [weights for weights in suite.weights.values() if isinstance(weights, Trained)]
        assert len({weights.network for weights in trained}) == 1 and len({weights.data for weights in trained}) == 1
        adversarial = [w.training for w in trained if w.training.attack is not None]
        plain = {t.model_copy(update={"attack": None}) for t in adversarial}
        assert len(plain) == 1, "the attack's protocol of draws is all that differs"
        assert len({t.attack.model_copy(update={"draw": "moving"}) for t in adversarial if t.attack}) == 1


def test_the_columns_are_the_protocols() -> None:
    suite = load(RANDOMISED, "desk")
    cells = {(cell.target, cell.attack): cell.outcomes for cell in suite.cells("randomised")}
    rpf = suite.models["rpf"].model
    said = {attack: access(rpf, rpf, suite.attacks[attack]) for attack in ("frozen", "moving", "mean", "pseudo", "eot")}
    assert said == {
        "frozen": "white-box (one frozen draw)", "moving": "white-box", "mean": "white-box (mean network)",
        "pseudo": "white-box (pseudo-EoT 30)", "eot": "white-box (EoT 8)",
    }  # fmt: skip
    assert ("backbone", "frozen") not in cells, "a network without noise has no draw to freeze"
    for name, attack in suite.attacks.items():
        if isinstance(attack, PGD) and not name.startswith("train"):
            assert attack.eps * 255 == 8 and attack.step * attack.steps >= attack.eps
    assert isinstance(suite.attacks["strong"], Strong) and cells["rpf", "strong"].examples.source == rpf


@pytest.mark.parametrize("path", (RANDOMISED, OWN), ids=lambda path: path.stem)
def test_without_a_scale_and_a_record_the_quick_one_runs(path: Path, tmp_path: Path) -> None:
    session = open_suite(path, "auto", None, Settings(tmp_path, device="cpu"))
    assert (session.suite.scale, session.why) == ("quick", "nothing larger is recorded here")


def test_desk_fits_a_night() -> None:
    """At the rate measured on 2 cores: no training above an hour, and about ten hours in all."""
    work = everything([cell.outcomes for cell in load(RANDOMISED, "desk").cells()])
    hours = [work_of(recipe) / 36e9 / 3600 for recipe in work]
    assert max(h for h, one in zip(hours, work, strict=True) if isinstance(one, Trained)) < 1 and 6 < sum(hours) < 11


def test_what_is_asked_of_the_authors_weights() -> None:
    for scale in ("quick", "desk"):
        cells = {(cell.table, cell.attack, cell.number) for cell in load(OWN, scale).cells()}
        assert {
            ("clean", "clean", "expected"), ("attacked", "pgd20", "expected"), ("attacked", "mean", "expected"),
            ("attacked", "strong", "expected"), ("eot", "eotpgd", "expected"),
            ("autoattack", "aa-rand-published", "claimed"), ("autoattack", "aa-rand-published", "expected"),
        } <= cells  # fmt: skip


def test_images_are_as_many_as_are_asked_for() -> None:
    desk = load(RANDOMISED, "desk")
    assert desk.datasets["test"].stop == 1000 and desk.datasets["few"].stop == 200
    quick = load(RANDOMISED, "quick")
    assert sum(quick.models[row.target].model.stochastic for row in quick.tables["randomised"].rows) == 8
    own = load(OWN, "desk")
    assert own.datasets["test"].stop is None and own.datasets["some"].stop == 1000 and own.datasets["few"].stop == 200


@pytest.mark.parametrize("path, scale", EVERY, ids=lambda value: getattr(value, "stem", value))
def test_claims_resolve_at_every_scale(path: Path, scale: str) -> None:
    suite = load(path, scale)
    assert suite.claims
    for claim in suite.claims:
        for comparison in parse(claim.holds, claim.id):
            for _, reference in comparison.terms:
                resolve(suite, reference, claim.id)


def test_the_published_weights_are_pinned_and_not_ours() -> None:
    suite = load(OWN, "desk")
    weights, plain = suite.weights.values()
    assert isinstance(plain, Fetched) and plain.kind == "python", "the same as a plain module"
    assert isinstance(weights, Fetched) and weights.kind == "slwta" and weights.sha256 is not None
    claims = read(folder())["slwta"]
    assert weights.sha256 in claims.weights
    assert suite.tables["clean"].paper == ((claims.claims[0].clean,),)
    assert claims.claims[0].robust in suite.tables["autoattack"].paper[0]
    published = suite.attacks["aa-rand-published"]
    assert isinstance(published, Peer) and published.name == "rand, as published"
    assert weights.file is not None and not (SUITES.parent / weights.file).is_relative_to(
        SUITES.parent / "models/weights"
    )

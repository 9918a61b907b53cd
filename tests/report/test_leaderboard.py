"""The shipped leaderboard, and what is said of a model beside it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_votes import labels_of, votes_from

from bench.recipes import Peer
from bench.report import board, places
from bench.report.access import access
from bench.report.board import leaderboard, place
from bench.report.leaderboard import Ours, compare, ours, words
from bench.report.page import standings
from bench.report.white_box import Lowest, named
from bench.suite.reader import load
from bench.votes.numbers import Number
from bench.votes.votes import Votes


def deterministic(n: int, right: int) -> Votes:
    """One draw each of n images, of which the first `right` are right."""
    labels = labels_of(np.arange(n))
    said = np.where(np.arange(n) < right, labels, (labels + 1) % 10)
    return votes_from(np.eye(10)[said], np.arange(n), 1, 0, claimed=0)


def number(value: float, n: int = 10_000, reach: float = 0.01) -> Number:
    return Number(value, value - reach, value + reach, n, "accuracy")


# As RobustBench's page shows them: clean, AutoAttack, best known (external), architecture, venue, extra data.
PUBLISHED = {
    "Carmon2019Unlabeled": ("89.69", "59.53", None, "WideResNet-28-10", "NeurIPS 2019", True),
    "Ding2020MMA": ("84.36", "41.44", None, "WideResNet-28-4", "ICLR 2020", False),
    "Gowal2021Improving_28_10_ddpm_100m": ("87.50", "63.44", "63.38", "WideResNet-28-10", "NeurIPS 2021", False),
}


@pytest.mark.parametrize("id", PUBLISHED)
def test_three_named_rows_are_the_published_ones(id: str) -> None:
    clean, autoattack, external, architecture, venue, extra = PUBLISHED[id]
    entry = leaderboard().named(id)
    assert entry is not None
    assert (f"{100 * entry.clean:.2f}", f"{100 * entry.autoattack:.2f}") == (clean, autoattack)
    assert (None if entry.external is None else f"{100 * entry.external:.2f}") == external
    assert (entry.architecture, entry.venue, entry.extra_data) == (architecture, venue, extra)
    line = next(line for line in compare([]).splitlines() if f"| {id} |" in line)
    robust = external or autoattack
    extra_words = "yes" if extra else "no"
    at = leaderboard().rank(id)
    assert line == f"| {at} | {id} | {architecture} | {extra_words} | {venue} | {clean} | {autoattack} | {robust} |"


def test_every_number_is_the_shipped_files() -> None:
    raw = json.loads(board.FILE.read_text("utf-8"))["models"]
    entries = {entry.id: entry for entry in leaderboard().entries}
    assert len(raw) == len(entries) == 99
    for model in raw:
        entry = entries[model["id"]]
        assert entry.clean == pytest.approx(float(model["clean_acc"]) / 100, abs=1e-12)
        assert entry.autoattack == pytest.approx(float(model["autoattack_acc"]) / 100, abs=1e-12)
    assert sum(1 for entry in entries.values() if entry.architecture.startswith("WideResNet-28-")) == 23
    assert all("<" not in entry.venue for entry in entries.values())


def test_the_leaderboard_is_sorted_by_the_best_known_attack() -> None:
    board = leaderboard()
    assert [entry.robust for entry in board.entries] == sorted((e.robust for e in board.entries), reverse=True)
    kang = board.named("Kang2021Stable")
    assert kang is not None and kang.robust == pytest.approx(0.642) and kang.unreliable


def test_place_of_a_published_model_is_its_own() -> None:
    board = leaderboard()
    for entry in board.entries:
        assert place(entry.clean, entry.robust) <= board.rank(entry.id)
    carmon = board.named("Carmon2019Unlabeled")
    assert carmon is not None and place(carmon.clean, carmon.robust) == board.rank("Carmon2019Unlabeled")
    assert (place(1, 1), place(0, 0)) == (1, 100)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_more_robust_is_never_placed_later(clean: float, a: float, b: float) -> None:
    assert place(clean, max(a, b)) <= place(clean, min(a, b))


def test_what_is_said_of_a_deterministic_model() -> None:
    auto, same = number(0.42, 1000), number(0.44, 1000)
    model = Ours("Student", "WideResNet-28-4", number(0.8), auto, number(0.46), "AutoAttack (standard)",
                 lowest=Lowest("AutoAttack (standard)", auto, number(0.8, 1000)), both=(auto, same))  # fmt: skip
    text = compare([model])
    table = [line for line in text.splitlines() if line.startswith("|")]
    mine = next(i for i, line in enumerate(table) if "**Student**" in line)
    assert "Hendrycks2019Using" in table[mine - 1] and "Ding2020MMA" in table[mine + 1]
    said = "\n".join(words(model))
    assert "place 83 of 100" in said
    assert "judged on 1,000 of the 10,000 images" in said
    both = "AutoAttack (standard) leaves 2.0 points less than PGD-10 on the 1,000 images of both (42.0 against 44.0 %)"
    assert both in said and "randomised" not in said


def test_what_is_said_of_a_randomised_model() -> None:
    model = Ours("CNI", "WideResNet-28-4", number(0.85), number(0.4), None, "rand", number(0.3), stochastic=True)
    said = "\n".join(words(model))
    assert "admits deterministic models only" in said
    assert "AutoAttack as published saw 30.0 %" in said and "fresh draws" in said


def test_without_autoattack_there_is_no_rank_but_a_bound() -> None:
    model = Ours("Teacher", "WideResNet-28-4", number(0.85), None, number(0.6),
                 lowest=Lowest("PGD-10", number(0.6), number(0.85)))  # fmt: skip
    assert "| **Teacher** | **WideResNet-28-4** | **no** |" in compare([model])
    assert "the best it could have" in "\n".join(words(model))
    assert "the best it could have" not in "\n".join(words(model._replace(stochastic=True)))
    half = words(Ours("Half", "x", number(0.8), None, None))[0]
    assert "no white-box number at eps 8/255 here, so it has no place" in half
    assert "no clean accuracy here" in words(Ours("Half", "x", None, None, number(0.4)))[0]


def test_a_model_at_another_eps_has_a_clean_accuracy_and_no_place() -> None:
    (said,) = words(Ours("Two", "x", number(0.8), None, None, elsewhere=(Fraction(2, 255), Fraction(1, 10))))
    assert "attacked at eps 2/255, 25.5/255 here, and the leaderboard is of 8/255, so it has no place" in said


def test_a_rejudged_model_is_held_against_its_own_row() -> None:
    good = Ours("C", "w", number(0.8969), number(0.60), None, "standard", baseline="Carmon2019Unlabeled")
    said = "\n".join(words(good))
    beside = "recorded on 10,000 images, 89.69 % on the leaderboard's 10,000: +0.00 points, inside"
    assert f"clean 89.69 % (88.7 to 90.7) {beside}" in said
    assert "+0.47 points, inside its interval" in said
    assert "outside" in "\n".join(words(good._replace(autoattack=number(0.5, reach=0.001))))


SUITE = """
[datasets.test]
split = "test"
stop = 4
[attacks.aa]
kind = "autoattack"
name = "standard"
[attacks.weaker]
kind = "autoattack"
name = "standard"
eps = "4/255"
[attacks.pgd10]
kind = "pgd"
[weights.carmon]
kind = "robustbench"
name = "Carmon2019Unlabeled"
[weights.example]
kind = "autoattack-example"
[models.carmon]
weights = "carmon"
[models.example]
weights = "example"
[tables.t]
rows = ["carmon", ["example", "carmon"]]
columns = ["clean", "pgd10", "aa", "weaker"]
"""


def test_a_suites_own_numbers_are_found_at_the_right_eps_and_white_box(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(SUITE)
    suite = load(tmp_path / "s.toml")
    right = {"clean": 4, "pgd10": 2, "aa": 1, "weaker": 3}
    record: dict[str, Votes] = {}
    for cell in suite.cells():
        if cell.source in (None, "carmon"):
            record[cell.outcomes.key] = deterministic(4, right[cell.attack])
        else:
            record.setdefault(cell.outcomes.key, deterministic(4, 0))  # transfer: must not be taken
    (found,) = ours(suite, lambda outcomes: record.get(outcomes.key))
    assert (found.name, found.architecture, found.baseline) == ("carmon", "WideResNet-28-10", "Carmon2019Unlabeled")
    assert found.clean and found.pgd and found.autoattack
    assert (found.clean.value, found.pgd.value, found.autoattack.value) == (1.0, 0.5, 0.25)
    assert found.elsewhere == (Fraction(4, 255),)
    assert ours(suite, lambda outcomes: None) == [] and "nothing of ours" in compare([])


def chosen(right: np.ndarray, index: np.ndarray) -> Votes:
    """One draw each of the images at `index`, right where `right`."""
    labels = labels_of(index)
    return votes_from(np.eye(10)[np.where(right, labels, (labels + 1) % 10)], index, 1, 0, claimed=0)


def found_with(tmp_path: Path, attacks: dict[str, Votes], clean: Votes, more: str = "") -> Ours:
    text = SUITE.replace('columns = ["clean", "pgd10", "aa", "weaker"]', f"columns = {['clean', *attacks]}")
    (tmp_path / "s.toml").write_text(text.replace("stop = 4", "stop = 2000") + more)
    suite = load(tmp_path / "s.toml")
    record = {
        cell.outcomes.key: clean if cell.attack == "clean" else attacks[cell.attack]
        for cell in suite.cells() if cell.source in (None, "carmon")
    }  # fmt: skip
    (found,) = ours(suite, lambda outcomes: record.get(outcomes.key))
    return found


EVERY = np.arange(2000)


def test_attacks_are_compared_on_the_images_that_both_met(tmp_path: Path) -> None:
    """AutoAttack left 30 % of 10 images and PGD 24 % of 300, on those 10 the same 30 %: no six points between them."""
    clean, left = chosen(EVERY >= 0, EVERY), EVERY % 25 < 6
    left[:10] = EVERY[:10] < 3
    found = found_with(tmp_path, {"aa": chosen(left[:10], EVERY[:10]), "pgd10": chosen(left, EVERY)}, clean)
    assert found.both is not None and found.both[0].value == found.both[1].value == 0.3
    both = "leaves 0.0 points less than PGD-10 on the 10 images of both (30.0 against 30.0 %)"
    assert both in "\n".join(words(found))
    assert found.lowest is not None and found.lowest.attack == "PGD-10" and found.lowest.robust.n == 2000


def test_a_model_is_ranked_by_the_attack_that_left_least(tmp_path: Path) -> None:
    clean = chosen(EVERY % 10 > 0, EVERY)
    found = found_with(tmp_path, {"aa": chosen(EVERY % 2 > 0, EVERY), "pgd10": chosen(EVERY % 5 < 2, EVERY)}, clean)
    assert found.lowest is not None and (found.lowest.attack, found.lowest.robust.value) == ("PGD-10", 0.4)
    said = "\n".join(words(found))
    assert f"under PGD-10 would have place {place(0.9, 0.4)} of 100" in said
    assert f"| **({place(0.9, 0.4)})** | **carmon** |" in compare([found])


STRONG = """
[attacks.strong]
kind = "strong"
"""


def test_strong_ranks_a_model_and_is_held_against_autoattack_on_the_images_of_both(tmp_path: Path) -> None:
    clean, auto = chosen(EVERY % 10 > 0, EVERY), chosen(EVERY[:1500] % 2 > 0, EVERY[:1500])
    adapted = chosen((EVERY % 2 > 0) & (EVERY % 5 > 0), EVERY)
    found = found_with(tmp_path, {"aa": auto, "strong": adapted}, clean, STRONG)
    assert found.lowest is not None and (found.lowest.attack, found.lowest.robust.value) == ("strong", 0.4)
    said = "\n".join(words(found))
    assert f"under strong would have place {place(0.9, 0.4)} of 100" in said
    assert "`strong` leaves 10.0 points less than AutoAttack (standard) on the 1,500 images of both (40.0 ag" in said
    alone = found_with(tmp_path, {"pgd10": auto, "strong": adapted}, clean, STRONG)
    assert "`strong` leaves 10.0 points less than PGD-10 on the 1,500 images" in "\n".join(words(alone))


def test_below_a_thousand_images_there_is_no_place(tmp_path: Path) -> None:
    clean, some = chosen(EVERY % 10 > 0, EVERY), chosen(EVERY[:999] % 2 > 0, EVERY[:999])
    found = found_with(tmp_path, {"aa": some}, clean)
    said = "\n".join(words(found))
    assert "on 999 images: below 1,000 a model has no place" in said and "would have place" not in said
    assert "**carmon**" not in compare([found]).split("## In words")[0]


@pytest.mark.parametrize("images", (2000, 999))
def test_a_run_shows_a_model_between_its_neighbours_or_says_why_not(images: int, tmp_path: Path) -> None:
    some = {"aa": chosen(EVERY[:images] % 2 > 0, EVERY[:images])}
    found_with(tmp_path, some, clean := chosen(EVERY % 10 > 0, EVERY))
    suite = load(tmp_path / "s.toml")
    record = {cell.outcomes.key: clean if cell.attack == "clean" else some[cell.attack] for cell in suite.cells()}
    (tmp_path / places.NAME).write_text(text := places.whole(suite, lambda outcomes: record.get(outcomes.key)))
    said, at = places.first(tmp_path), place(0.9, 0.5)
    assert text.startswith(said) and "## The other architectures" in text and "## The other" not in said
    if images < 1000:
        assert "none has a place" in said
    else:
        rows = [line.split(" | ")[0] for line in said.splitlines()[4:7]]
        assert rows == [f"| {at - 1}", f"| **({at})**", f"| {at}"] and "90.00 [" in said and "can only take" in said
    assert places.whole(suite, lambda outcomes: None) == "" and places.first(tmp_path / "none") == ""


@pytest.mark.parametrize("images", (2000, 999))
def test_the_page_shows_a_models_lowest_number_beside_published_ones(images: int, tmp_path: Path) -> None:
    few = EVERY[:images]
    attacks = {"aa": chosen(few % 2 > 0, few), "pgd10": chosen(few % 5 < 2, few)}
    found_with(tmp_path, attacks, clean := chosen(EVERY % 10 > 0, EVERY))
    suite = load(tmp_path / "s.toml")
    record = {cell.outcomes.key: clean if cell.attack == "clean" else attacks[cell.attack] for cell in suite.cells()}
    (row,) = [row for row in standings(suite, lambda outcomes: record.get(outcomes.key), set()) if row.ours]
    assert row.robust and row.robust.value == pytest.approx(40, abs=0.1)
    assert ("below 1,000" in row.note) is (images < 1000)


def test_the_clean_accuracy_beside_a_rank_is_of_the_same_images(tmp_path: Path) -> None:
    clean = chosen(EVERY < 1500, EVERY)
    found = found_with(tmp_path, {"aa": chosen(EVERY[:1000] % 2 > 0, EVERY[:1000])}, clean)
    assert found.clean is not None and found.lowest is not None
    assert (found.clean.value, found.lowest.clean.value) == (0.75, 1.0)


def test_autoattack_with_other_arguments_is_not_called_autoattack(tmp_path: Path) -> None:
    few = '[attacks.few]\nkind = "autoattack"\nname = "standard"\narguments = { apgd = { n_iter = 2 } }\n'
    clean = chosen(EVERY >= 0, EVERY)
    found = found_with(tmp_path, {"few": chosen(EVERY % 2 > 0, EVERY)}, clean, few)
    assert found.autoattack is None and found.lowest is not None
    assert found.lowest.attack == "an AutoAttack of other arguments (standard, apgd = {'n_iter': 2})"
    assert named(Peer(kind="torchattacks", name="AutoAttack", arguments={"version": "rand"})) == "AutoAttack (rand)"
    model = load(tmp_path / "s.toml").models["carmon"].model
    peer = Peer(kind="autoattack", arguments={"apgd": {"n_iter": 2}})
    assert access(model, model, peer) == "white-box (apgd = {'n_iter': 2})"
    assert access(model, model, Peer(kind="torchattacks", name="PGD", arguments={"steps": 7})) == "white-box"


def test_the_shipped_file_is_the_one_that_was_fetched() -> None:
    digest = hashlib.sha256(board.FILE.read_bytes()).hexdigest()
    assert digest == "2df5f53f388534e09223d9b9c2c654c54d3661473c821168eef9424e413ba744"
    assert "78fcc9e (2025-03-31)" in leaderboard().source
    readme = (board.FILE.parent / "README.md").read_text("utf-8")
    assert "78fcc9e, 2025-03-31" in readme


def test_it_needs_no_torch() -> None:
    code = "import sys, bench.report.leaderboard as b; b.compare([]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_the_suite_of_robustbench_cites_the_shipped_leaderboard() -> None:
    path = Path(__file__).parents[2] / "suites" / "robustbench.toml"
    for scale in ("full", "quick"):
        suite = load(path, scale)
        table = suite.tables["robustbench"]
        for row, cited in zip(table.rows, table.paper, strict=True):
            entry = leaderboard().named(suite.models[row.target].label)
            assert entry is not None and suite.models[row.target].weights.name == entry.id  # type: ignore[union-attr]
            robust = round(100 * entry.autoattack, 2) if scale == "full" else ""
            assert cited == (round(100 * entry.clean, 2), *[""] * (len(table.columns) - 2), robust)

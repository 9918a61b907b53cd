"""Suites: names become recipes, every mistake is found at once and has its line, and keys hold what they should."""

from __future__ import annotations

import copy
import itertools
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import UserError
from bench.recipes import (
    PGD,
    RND,
    RPF,
    Clean,
    Distilled,
    Examples,
    Mixture,
    Model,
    Outcomes,
    Peer,
    ResizePad,
    Trained,
    Worst,
    parse,
    summary,
)
from bench.suite.cells import Suite
from bench.suite.reader import load, scales
from bench.suite.words import locate
from bench.suite.writer import toml

SUITES = sorted((Path(__file__).parents[2] / "suites").glob("*.toml"))
TEXT = """
[protocol]
shard = 100

[datasets.train]
split = "train"

[datasets.few]
stop = 300

[networks.small]
depth = 10
width = 1

[attacks.pgd]
kind = "pgd"
eps = "8/255"

[attacks.strong]
kind = "worst"
attacks = ["pgd", {kind = "square", queries = 50}]

[trainings.short]
epochs = 2
attack = "pgd"

[weights.cni]
kind = "trained"
network = "small"
noise = {rank = 2}
training = "short"

[weights.student]
kind = "distilled"
network = "small"
teacher = "smoothed"
training = "short"

[models.cni]
weights = "cni"

[models.smoothed]
weights = "cni"
sigma = 0.1
rule = "vote"
samples = 32

[models.student]
weights = "student"

[tables.one]
rows = ["cni", ["student", "smoothed"]]
columns = ["clean", "pgd", "strong"]
paper = [[80, 40, ""], [81.5, 50, ""]]

[tables.two]
data = "few"
rows = ["smoothed", "student"]
columns = ["clean", {attack = "pgd", number = "claimed"}, {attack = "strong", only = ["student"]}]

[scales.full]
about = "all"
gpu = true

[scales.quick]
about = "a taste"
attacks.pgd.steps = 2
datasets.test.stop = 200
"""


def read(folder: Path, text: str = TEXT, scale: str = "full", limit: int | None = None) -> Suite:
    path = folder / "suite.toml"
    path.write_text(text)
    return load(path, scale, limit)


def mistakes(folder: Path, text: str, scale: str = "full") -> str:
    with pytest.raises(UserError) as told:
        read(folder, text, scale)
    return str(told.value)


def keys(suite: Suite) -> dict[tuple[str, int, int], str]:
    return {(cell.table, cell.row, cell.column): cell.outcomes.key for cell in suite.cells()}


def test_names_become_recipes(tmp_path: Path):
    suite = read(tmp_path)
    assert suite.attacks["clean"] == Clean()
    assert suite.attacks["strong"] == Worst(attacks=(PGD(), suite.attacks["strong"].attacks[1]))
    student = suite.weights["student"]
    assert isinstance(student, Distilled)
    assert student.teacher == suite.models["smoothed"].model
    assert (student.rule, student.draws) == ("vote", 32), "the teacher's own rule and samples"
    cells = {(cell.table, cell.row, cell.column): cell for cell in suite.cells()}
    assert len(cells) == 6 + 5, "one column of the second table is for one model alone"
    transfer = cells["one", 1, 1]
    assert (transfer.source, transfer.target, transfer.attack, transfer.paper) == ("student", "smoothed", "pgd", 50.0)
    assert transfer.outcomes.examples.source == suite.models["student"].model
    assert transfer.outcomes.draws == 32
    assert cells["one", 0, 0].source is None
    assert cells["one", 0, 2].paper is None
    assert cells["two", 0, 1].number == "claimed"
    assert cells["two", 0, 0].outcomes.examples.data.stop == 300


DEFENDED = """
[defences.pad]
kind = "resize-pad"
largest = 36
[defences.rpf]
kind = "rpf"
[defences.two]
kind = "mixture"
other = "rpf"
share = 0.8
[weights.plain]
kind = "trained"
[weights.rpf]
kind = "trained"
defence = "rpf"
[models.pad]
weights = "plain"
defence = "pad"
[models.two]
weights = "plain"
defence = "two"
[models.rpf]
weights = "rpf"
[models.inline]
weights = "rpf"
defence = {kind = "rnd", nu = 0.05}
[attacks.frozen]
kind = "pgd"
draw = "frozen"
[tables.t]
rows = ["pad", "two", "rpf", "inline"]
columns = ["clean", "frozen"]
"""


def test_a_suite_declares_defences_over_weights_and_in_them(tmp_path: Path):
    path = tmp_path / "suite.toml"
    path.write_text(DEFENDED)
    suite = load(path)
    plain, rpf = suite.weights["plain"], Trained(defence=RPF())
    assert suite.weights["rpf"] == rpf and suite.models["rpf"].model == Model(weights=rpf)
    assert suite.models["pad"].model == Model(weights=plain, defence=ResizePad(largest=36))
    assert suite.models["two"].model == Model(weights=plain, defence=Mixture(other=rpf, share=0.8))
    assert suite.models["inline"].model == Model(weights=rpf, defence=RND(nu=0.05))
    assert all(entry.number == "expected" and entry.judged_draws == 16 for entry in suite.models.values())
    assert [cell.outcomes.examples.attack for cell in suite.cells()][1] == PGD(draw="frozen")
    for cell in suite.cells():
        again = tmp_path / "again.toml"
        again.write_text(toml(cell.outcomes, cell.number))
        assert next(iter(load(again).cells())).outcomes == cell.outcomes


@pytest.mark.parametrize(
    "change, says",
    [
        (('kind = "resize-pad"', 'kind = "resize-pda"'), "did you mean 'resize-pad'"),
        (("largest = 36", "largest = 0"), "greater than or equal to 1"),
        (('weights = "plain"\ndefence = "pad"', 'weights = "plain"\ndefence = "rpf"'), "name it in [weights.NAME]"),
        (('kind = "trained"\ndefence = "rpf"', 'kind = "trained"\ndefence = "pad"'), "name it in [models.NAME]"),
        (('other = "rpf"', 'other = "fpr"'), "no [weights.fpr] in this file"),
        (('draw = "frozen"', 'draw = "froze"'), "'moving', 'frozen', 'pseudo-eot' or 'none'"),
    ],
)
def test_a_mistake_in_a_defence_is_told(change: tuple[str, str], says: str, tmp_path: Path):
    path = tmp_path / "suite.toml"
    assert change[0] in DEFENDED
    path.write_text(DEFENDED.replace(*change))
    with pytest.raises(UserError, match=re.escape(says)):
        load(path)


def test_a_scale_replaces_what_it_names_and_nothing_else(tmp_path: Path):
    full, quick = read(tmp_path), read(tmp_path, scale="quick")
    assert list(scales(tmp_path / "suite.toml")) == ["full", "quick"]
    assert full.scales["full"].gpu
    assert not full.scales["quick"].gpu
    assert (full.attacks["pgd"].steps, quick.attacks["pgd"].steps) == (10, 2)
    assert quick.attacks["pgd"] == full.attacks["pgd"].model_copy(update={"steps": 2})
    assert (full.datasets["test"].stop, quick.datasets["test"].stop) == (None, 200)
    assert quick.models["cni"] != full.models["cni"], "its training used the attack"


def test_a_limit_cuts_the_images_and_only_them(tmp_path: Path):
    some = read(tmp_path, limit=250)
    for cell in some.cells():
        assert cell.outcomes.examples.data.stop == 250
    assert some.weights == read(tmp_path).weights
    assert read(tmp_path, limit=5000).images("few").stop == 300, "a limit never adds images"


# -- what is in a key and what is not ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["cni", "smoothed", "student"])
def test_renaming_a_model_changes_no_key(name: str, tmp_path: Path):
    renamed = re.sub(rf'(?<=[."]){name}\b', "another-name", TEXT)
    assert renamed != TEXT
    assert keys(read(tmp_path, renamed)) == keys(read(tmp_path))


def test_renaming_everything_and_moving_the_file_changes_no_key(tmp_path: Path):
    renamed = TEXT
    for number, name in enumerate(["few", "small", "pgd", "strong", "short", "cni", "smoothed", "student"]):
        # kinds and rules are words of the language and stay
        renamed = re.sub(rf'(?<!kind = ")(?<=[."\[]){name}(?=[."\]])', f"name{number}", renamed)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert "name7" in renamed
    assert keys(read(elsewhere, renamed)) == keys(read(tmp_path))


def test_another_eps_changes_the_keys_of_its_attack_alone(tmp_path: Path):
    """Of an attack that trains nothing: one used in training changes the weights, and so every key."""
    own = TEXT.replace('epochs = 2\nattack = "pgd"', "epochs = 2")
    before, after = read(tmp_path, own), read(tmp_path, own.replace('"8/255"', '"4/255"'))
    attacks = {(cell.table, cell.row, cell.column): cell.attack for cell in before.cells()}
    changed = {place for place, key in keys(before).items() if keys(after)[place] != key}
    assert changed == {place for place, attack in attacks.items() if attack != "clean"}
    assert {cell.outcomes.examples.source for cell in before.cells()} == {
        cell.outcomes.examples.source for cell in after.cells()
    }
    trained = keys(read(tmp_path, TEXT.replace('"8/255"', '"4/255"')))
    assert not set(trained.values()) & set(keys(read(tmp_path)).values())


def test_equal_values_written_differently_have_one_key(tmp_path: Path):
    for eps in ('"16/510"', '"8/255"', '" 8/255 "'):
        assert keys(read(tmp_path, TEXT.replace('"8/255"', eps))) == keys(read(tmp_path))
    assert keys(read(tmp_path, TEXT.replace("sigma = 0.1", 'sigma = "1/10"'))) == keys(read(tmp_path))


def test_clean_cells_are_shared(tmp_path: Path):
    suite = read(tmp_path, TEXT.replace('data = "few"\n', ""))
    clean = [cell for cell in suite.cells() if cell.attack == "clean"]
    assert len(clean) == 4
    assert len({cell.outcomes for cell in clean}) == 3, "smoothed stands in both tables"
    assert len({cell.outcomes.examples for cell in clean}) == 1, "clean images have no source"
    transfer = [cell.outcomes.examples for cell in suite.cells() if (cell.table, cell.source) == ("one", "student")]
    white = [cell.outcomes.examples for cell in suite.cells() if (cell.table, cell.source) == ("two", "student")]
    assert set(transfer) == set(white), "one model's examples serve all targets"


def test_recipes_of_a_suite_survive_a_manifest(tmp_path: Path):
    for cell in read(tmp_path).cells():
        again = parse(summary(cell.outcomes))
        assert isinstance(again, Outcomes)
        assert again.key == cell.outcomes.key


# -- mistakes -----------------------------------------------------------------------------------------


def line_of(text: str, words: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if words in line)


CASES = {
    "unknown key": ("eps = ", "epsilon = ", "attacks.pgd.epsilon: unknown key; did you mean 'eps'?"),
    "unknown section": ("[protocol]", "[protocoll]", "protocoll: unknown section; did you mean 'protocol'?"),
    "unknown kind": ('kind = "square"', 'kind = "squares"', "kind = 'squares' is unknown; did you mean 'square'?"),
    "no kind": ('kind = "trained"\n', "", "weights.cni.kind: kind is missing"),
    "a dangling reference": (
        'network = "small"\nnoise', 'network = "smal"\nnoise',
        "no [networks.smal] in this file; did you mean 'small'?",
    ),
    "a dangling model": (
        'rows = ["smoothed", ', 'rows = ["smothed", ',
        "no [models.smothed] in this file; did you mean 'smoothed'?",
    ),
    "a dangling attack": (
        'columns = ["clean", "pgd"', 'columns = ["clean", "pgdd"',
        "no [attacks.pgdd] in this file; did you mean 'pgd'?",
    ),
    "a dangling data set": ('data = "few"', 'data = "fev"', "no [datasets.fev] in this file; did you mean 'few'?"),
    "a wrong type": ("depth = 10", 'depth = "ten"', "networks.small.depth: Input should be a valid integer, not 'ten'"),
    "a wrong depth": ("depth = 10", "depth = 12", "a WideResNet's depth is 6n + 4"),
    "a number out of bounds": ('"8/255"', '"9/8"', "at most 1"),
    "no number": ('"8/255"', '"eight"', "write a number or a fraction such as '8/255'"),
    "a table of another shape": ('[[80, 40, ""], ', "[[80, 40], ", "paper must have 2 rows of 3 values"),
    "a percentage above 100": ("[[80, ", "[[180, ", "paper holds percentages"),
    "a row of three": (
        '["student", "smoothed"]', '["student", "smoothed", "cni"]',
        'write "target", ["source", "target"]',
    ),
    "a scalar for a table": (
        "[networks.small]\ndepth = 10\nwidth = 1", "[networks]\nsmall = 3",
        "networks.small: write a table of keys",
    ),
    "no rows": ('rows = ["smoothed", "student"]', "rows = []", "tables.two.rows: Tuple should have at least 1 item"),
    "a number of its own": ('number = "claimed"', 'number = "guessed"', "tables.two.columns.1.number: Input should be"),
    "a true for a number": ("epochs = 2", "epochs = true", "trainings.short.epochs: Input should be a valid integer"),
    "a fraction for a whole": ("epochs = 2", "epochs = 2.0", "trainings.short.epochs: Input should be a valid integer"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_told_with_its_line_and_a_hint(case: str, tmp_path: Path):
    old, new, words = CASES[case]
    text = TEXT.replace(old, new)
    assert text != TEXT
    told = mistakes(tmp_path, text)
    assert words in told
    first = next(part for part in told.splitlines() if words in part)
    stated = re.search(r"suite\.toml:(\d+):", first)
    assert stated, first
    anchor = new.strip().splitlines()[-1].strip() if new.strip() else "[weights.cni]"
    line = line_of(text, anchor)
    # What is wrong with a table as a whole is told at its head.
    head = max(n for n, words in enumerate(text.splitlines()[:line], 1) if words.startswith("["))
    assert int(stated[1]) in (line, line - 1, head)


def test_all_mistakes_are_told_at_once(tmp_path: Path):
    text = TEXT
    for case in ("unknown key", "a dangling attack", "a wrong depth", "a number of its own", "unknown section"):
        text = text.replace(*CASES[case][:2])
    told = mistakes(tmp_path, text)
    for words in ("epsilon: unknown key", "pgdd", "6n + 4", "columns.1.number", "protocoll"):
        assert words in told
    assert len(told.splitlines()) == 1 + 5, "and each once, not again where the broken part is used"


def test_circles_are_named(tmp_path: Path):
    told = mistakes(tmp_path, TEXT.replace('teacher = "smoothed"', 'teacher = "student"'))
    assert "a circle: weights.student -> models.student -> weights.student" in told
    alias = TEXT.replace("[networks.small]", '[networks]\na = "b"\nb = "a"\n\n[networks.small]')
    assert "a circle: networks.a -> networks.b -> networks.a" in mistakes(tmp_path, alias)


def test_a_chain_of_teachers_has_an_end(tmp_path: Path):
    one = '[weights.w{0}]\nkind = "distilled"\nnetwork = "small"\nteacher = "m{1}"\n[models.m{0}]\nweights = "w{0}"\n'
    chain = "".join(one.format(i, i + 1) for i in range(300))
    told = mistakes(tmp_path, TEXT + chain + '[models.m300]\nweights = "cni"\n')
    assert "more than 64 tables deep" in told
    short = chain.split("[weights.w20]")[0] + '[models.m20]\nweights = "cni"\n'
    assert len({entry.model.key for entry in read(tmp_path, TEXT + short).models.values()}) == 20 + 3


def test_a_thousand_mistakes_are_counted_not_all_told(tmp_path: Path):
    told = mistakes(tmp_path, TEXT + "".join(f"[attacks.a{i}]\nkind = 3\n" for i in range(1000)))
    assert len(told.splitlines()) == 1 + 100 + 1
    assert "and 900 more" in told


def test_unknown_scales_are_told(tmp_path: Path):
    assert "declares no scale 'quik'" in mistakes(tmp_path, TEXT, "quik")
    assert "did you mean 'quick'?" in mistakes(tmp_path, TEXT, "quik")


def test_a_mistake_of_a_scale_is_told_where_the_scale_says_it(tmp_path: Path):
    text = TEXT.replace("attacks.pgd.steps = 2", 'attacks.pgd.steps = "two"')
    told = mistakes(tmp_path, text, "quick")
    assert f"suite.toml:{line_of(text, 'steps = ')}: attacks.pgd.steps: Input should be a valid integer" in told
    assert read(tmp_path, text, "full")


PIECES = [
    "[",
    "]",
    "=",
    '"',
    "'",
    "\n",
    "a",
    ".",
    "1",
    ",",
    "{",
    "}",
    "#",
    "\\",
    "é",
    "attacks",
    "pgd",
    "kind",
    "-",
    " ",
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(TEXT) - 1), st.lists(st.sampled_from(PIECES), max_size=6), st.integers(0, 30))
def test_whatever_is_typed_is_a_suite_or_a_users_mistake(tmp_path: Path, at: int, typed: list[str], cut: int):
    text = TEXT[:at] + "".join(typed) + TEXT[at + cut :]
    try:
        suite = read(tmp_path, text, "full")
    except UserError as error:
        assert "suite.toml" in error.where
    else:
        for cell in itertools.islice(suite.cells(), 4):
            assert isinstance(cell.outcomes.examples, Examples)


def spelled(value: Any) -> str:
    """A value as TOML, tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {spelled(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(spelled, value)) + "]"
    return repr(value) if isinstance(value, float) else json.dumps(value)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every key and item."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for name, item in items for place in ((*path, name), *places(item, (*path, name)))]


STRANGE = [[], {}, "", 0, -1, 1.5, float("nan"), True, "x", [[]], [{}], {"kind": []}, {"kind": "pgd"}, 10**18, ["none"]]
SHIPPED = {path.stem: tomllib.loads(path.read_text()) for path in SUITES}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_value_of_another_kind_anywhere_is_a_users_mistake(tmp_path: Path, data: st.DataObject):
    raw = copy.deepcopy(SHIPPED[data.draw(st.sampled_from(sorted(SHIPPED)))])
    for _ in range(data.draw(st.integers(1, 2))):
        *path, last = data.draw(st.sampled_from(places(raw)))
        inside = raw
        for name in path:
            inside = inside[name]
        inside[last] = copy.deepcopy(data.draw(st.sampled_from(STRANGE)))
    text = "\n".join(f"{json.dumps(name)} = {spelled(value)}" for name, value in raw.items())
    (tmp_path / "suite.toml").write_text(text)
    try:
        for scale in scales(tmp_path / "suite.toml"):
            for cell in itertools.islice(load(tmp_path / "suite.toml", scale).cells(), 4):
                assert len(cell.outcomes.key) == 64
    except UserError as error:
        assert "suite.toml" in error.where


def test_values_that_once_ended_in_a_traceback(tmp_path: Path):
    for text, key in (
        ("[attacks.a]\nkind = []\n", "attacks.a.kind"),
        ('models = 0.5\n[tables.t]\nrows = ["cni"]\ncolumns = ["none"]\n', "tables.t.rows"),
        ('[attacks.a]\nkind = "worst"\nattacks = 1.5\n', "attacks.a.attacks"),
    ):
        with pytest.raises(UserError, match=key):
            read(tmp_path, text, "")


def test_lines_are_found_in_every_way_of_writing():
    text = 'a.b.c = 1\n[x]\ny = 2\n[x."z w"]\nv = 3\n[[claims]]\nid = "1"\n[[claims]]\nid = "2"\n'
    assert locate(text, ("a", "b", "c")) == 1
    assert locate(text, ("x", "y")) == 3
    assert locate(text, ("x", "z w", "v")) == 5
    assert locate(text, ("claims", 1, "id")) == 9
    assert locate(text, ("nowhere",)) == 0


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_the_suites_at_hand_resolve_at_every_scale(path: Path):
    for scale in scales(path):
        suite = load(path, scale)
        for cell in suite.cells():
            assert len(cell.outcomes.key) == 64
        assert all(not isinstance(attack, Peer) or attack.eps >= 0 for attack in suite.attacks.values())


@pytest.mark.parametrize("scale", ["full", "quick"])
def test_the_stress_suite_judges_the_very_model_of_the_paper_suite(scale):
    root = Path(__file__).parents[2] / "suites"
    stress, paper = (load(root / f"{name}.toml", scale) for name in ("stress", "paper"))
    assert stress.models["model"].model.key == paper.models["cni"].model.key

"""Tables: the suite's cells, everything that must be said of them, and renderers that hostile names cannot break."""

import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_votes import honest, labels_of, pinned, votes_from
from markdown_it import MarkdownIt
from rich.console import Console

from bench.recipes import PGD, RND, Examples, Outcomes, Peer, Square
from bench.report.access import access
from bench.report.doubts import believed, shy
from bench.report.render import gfm, letter, plain, records, render, terminal, tex
from bench.report.tables import tables
from bench.suite.schema import Column
from bench.votes.numbers import Missing, Number, fold

ABOUT = {"provenance": {"device": "a laptop", "versions": {"torch": "2.9"}}}


@pytest.fixture(scope="module")
def suite():
    return pinned("quick")


@pytest.fixture(scope="module")
def votes(suite):
    """Honest votes of classifiers as good as the paper says."""
    return {cell.outcomes: honest(cell.outcomes, cell.paper / 100) for cell in suite.cells()}


@pytest.fixture(scope="module")
def views(suite, votes):
    return tables(suite, votes.get, lambda outcomes: ABOUT)


def cells_of(view):
    return [cell for row in view.rows for cell in row.cells if cell]


def said(view, cell):
    return [view.legend[mark] for mark in cell.marks] + list(view.notes)


def test_the_papers_rows_columns_and_values_in_its_order(views):
    assert [view.name for view in views] == ["table1", "table2", "table3"]
    second, third = views[1:]
    assert second.columns == ("Clean", "PGD-10")
    assert [row.heads[0] for row in second.rows] == [
        "Smooth prediction smoothing", "Smooth soft prediction smoothing",
        "KD prediction smoothing", "KD soft prediction smoothing",
    ]  # fmt: skip
    assert [[cell.cell.paper for cell in row.cells] for row in third.rows] == [
        [88.67, 63.88], [88.76, 63.4], [42.81, 36.58], [42.74, 32.95], [79.92, 69.3], [79.92, 77.97],
    ]  # fmt: skip
    assert third.rows[3].heads == ("KD student", "Smoothed CNI")


def share_of_winners(scores, labels):
    """How many images have their label as the class with most, counted class by class."""
    right = 0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        right += all(row[label] > row[k] for k in range(label)) and all(row[label] >= row[k] for k in range(label, 10))
    return right / len(labels)


def test_a_cell_is_the_fold_of_its_record(views, votes):
    kinds = {cell.cell.number for view in views for cell in cells_of(view)}
    assert {"accuracy", "expected", "vote", "soft"} <= kinds, "or nothing is tested of them"
    for cell in (cell for view in views for cell in cells_of(view)):
        found = votes[cell.cell.outcomes]
        right = found.prefix[np.arange(300), found.labels].sum() / found.prefix.sum()
        if cell.cell.number == "accuracy":
            assert cell.number.value == right
        if cell.cell.number == "expected":
            assert cell.number.value == pytest.approx(right)
        if cell.cell.number == "vote":
            assert cell.number.value == share_of_winners(found.counts, found.labels)
        if cell.cell.number == "soft":
            assert cell.number.value == share_of_winners(found.probs, found.labels)
        assert cell.number.low < cell.number.value < cell.number.high
        assert cell.number.keys == (cell.cell.outcomes.key,)
        assert cell.difference == pytest.approx(100 * cell.number.value - cell.cell.paper)


def test_bold_is_within_one_target_and_one_access(suite, views):
    """An attack that transfers badly is no defence: a transferred number is not the best beside a white-box one.

    Below 1,000 images nothing is ranked.
    """
    assert not any(cell.best for view in views for cell in cells_of(view))
    data = {"test": suite.datasets["test"].model_copy(update={"stop": 1000})}
    large = suite._replace(datasets=suite.datasets | data)
    votes = {cell.outcomes: honest(cell.outcomes, cell.paper / 100) for cell in large.cells()}
    views = tables(large, votes.get, lambda outcomes: ABOUT)
    for view in views:
        for j in range(len(view.columns)):
            column = [row.cells[j] for row in view.rows]
            for cell in column:
                near = [other.number.value for other in column
                        if (other.cell.target, other.access) == (cell.cell.target, cell.access)]  # fmt: skip
                assert cell.best == (len(near) > 1 and cell.number.value == max(near))
    transfers = views[2].rows[4:]
    assert any(cell.best for row in transfers for cell in row.cells) == (transfers[0].heads[1] == transfers[1].heads[1])
    assert "**" in render(views, "md") and "[" in render(views, "latex")


def test_access_is_read_off_the_recipes(suite, views):
    assert [row.access for row in views[2].rows] == ["white-box", "transfer"] * 2 + ["transfer"] * 2
    cni, student = (suite.models[name].model for name in ("cni", "kd-vote"))
    assert access(cni, cni, PGD(eot=16)) == "white-box (EoT 16)"
    assert access(cni, cni, PGD(eot=8, gradient="mean-softmax")) == "white-box (EoT 8, mean softmax)"
    assert access(cni, student, PGD(eot=16)) == "transfer"
    assert access(cni, cni, Square(draws=20)) == "scores only (20 draws a query)"
    assert access(student, student, Peer(kind="autoattack")) == "white-box"
    noisy = suite.models["smoothed-sigma20"].model
    assert access(cni, noisy, PGD()) == "white-box (attacked at sigma 0)"
    assert access(None, cni, suite.attacks["clean"]) == ""


def test_access_names_the_protocol_of_the_draws(suite):
    cni = suite.models["cni"].model
    assert access(cni, cni, PGD(draw="frozen", eot=16)) == "white-box (one frozen draw)"
    assert access(cni, cni, PGD(draw="pseudo-eot", eot=30)) == "white-box (pseudo-EoT 30)"
    assert access(cni, cni, PGD(draw="none")) == "white-box (mean network)"
    assert access(cni, cni, Peer(kind="autoattack", draw="frozen")) == "white-box (one frozen draw)"
    over = cni.model_copy(update={"defence": RND()})
    assert access(cni, over, PGD()) == "oblivious", "the attack forgot the defence over the weights"
    assert access(over, over, PGD()) == "white-box"
    assert access(over, cni, PGD()).startswith("transfer (another defence")


def test_a_subset_is_called_one(suite, views):
    assert all(any("300 of the 10,000 test images" in text for text in view.notes) for view in views)
    whole = pinned("full")
    cell = next(whole.cells("table1"))
    (view,) = tables(whole, {cell.outcomes: honest(cell.outcomes, 0.5)}.get, lambda outcomes: ABOUT, only="table1")
    assert not any("subset" in text for text in (*view.notes, *view.legend))


def test_another_precision_another_machine_and_a_warning_are_said(suite, votes):
    low = suite._replace(protocol=suite.protocol.model_copy(update={"precision": "bfloat16"}))
    found = {mine.outcomes: votes[theirs.outcomes] for mine, theirs in zip(low.cells(), suite.cells(), strict=True)}
    (view,) = tables(
        low, found.get, lambda outcomes: ABOUT, here="an H100", only="table1", warn=lambda outcomes: "gradient is zero"
    )
    for cell in cells_of(view):
        text = " ".join(said(view, cell)).lower()
        assert (
            "bfloat16" in text and "recorded elsewhere, on a laptop" in text and "suspicious: gradient is zero" in text
        )
    (view,) = tables(low, found.get, lambda outcomes: ABOUT, here="a laptop", only="table1")
    assert "elsewhere" not in " ".join((*view.legend, *view.notes))


def test_our_reading_of_the_paper_stands_beside_the_number(views):
    third = views[2]
    smoothed = [cell for cell in cells_of(third) if cell.cell.target == "smoothed-sigma20"]
    others = [cell for cell in cells_of(third) if cell.cell.target != "smoothed-sigma20"]
    assert len(smoothed) == 4 and all("our reading" in " ".join(said(third, cell)) for cell in smoothed)
    assert not any("our reading" in " ".join(said(third, cell)) for cell in others)


def test_an_attack_that_helps_and_a_transfer_that_beats_the_white_box_are_suspicious(suite, votes):
    helps, beaten = dict(votes), dict(votes)
    for cell in suite.cells():
        if cell.attack == "pgd10" and cell.target == "kd-at-vote":
            helps[cell.outcomes] = honest(cell.outcomes, 0.95)
        if cell.attack == "pgd10" and cell.target == "cni":
            beaten[cell.outcomes] = honest(cell.outcomes, 0.6 if cell.source == "cni" else 0.4)
    view = tables(suite, helps.get, lambda outcomes: ABOUT, only="table3")[0]
    assert "raises accuracy" in " ".join(said(view, view.rows[4].cells[1]))
    view = tables(suite, beaten.get, lambda outcomes: ABOUT, only="table3")[0]
    assert "transferred attack is stronger" in " ".join(said(view, view.rows[0].cells[1]))
    assert "suspicious" not in " ".join(said(view, view.rows[1].cells[1]))


def test_the_gap_between_what_the_attack_believed_and_fresh_draws_is_printed(suite, votes):
    cell = next(cell for cell in suite.cells("table3") if cell.attack == "pgd10")
    boast = replace(votes[cell.outcomes], claimed=np.ones(300, np.int8))
    view = tables(suite, {**votes, cell.outcomes: boast}.get, lambda outcomes: ABOUT, only="table3")[0]
    assert "the attack believed 0.00 %; fresh draws say +5" in " ".join(said(view, view.rows[0].cells[1]))
    assert "believed" not in " ".join(said(view, view.rows[2].cells[1]))


def test_a_belief_is_by_a_draw_that_all_images_of_a_shard_shared(suite, votes):
    noisy, fixed = (next(cell for cell in suite.cells("table2") if cell.attack == "pgd10" and cell.target == name)
                    for name in ("smoothed-vote", "kd-at-vote"))  # fmt: skip
    alone = replace(votes[noisy.outcomes], shard=np.zeros(300, np.int32))
    assert believed(noisy.outcomes, alone)[1:3] == (0.0, 1.0), "one draw of one shard"
    found = believed(fixed.outcomes, votes[fixed.outcomes])
    assert found[1:3] == fold(votes[fixed.outcomes], "claimed")[1:3] and found.half < 0.07


def claimed_column(suite, kind="claimed", attack="pgd10"):
    """Table 2 with a third column: what the attack believed."""
    table = suite.tables["table2"]
    columns = (*table.columns, Column(attack=attack, number=kind))
    return suite._replace(tables={"table2": table.model_copy(update={"columns": columns, "paper": ()})})


def test_what_an_attack_believed_is_compared_with_no_clean_accuracy(suite, votes):
    """Clean records hold no belief, which counted as wrong: every such column "raised accuracy"."""
    (view,) = tables(claimed_column(suite), votes.get, lambda outcomes: ABOUT)
    assert isinstance(view.rows[2].cells[2].number, Number)
    for row in view.rows:
        assert "raises accuracy" not in " ".join(said(view, row.cells[2]))


def test_an_attack_believes_of_its_own_source_and_a_vote_by_a_vote(suite, votes):
    asked = claimed_column(suite)
    cells = {(cell.row, cell.column): cell for cell in asked.cells()}
    assert cells[0, 2].outcomes.examples == cells[0, 1].outcomes.examples.model_copy(update={"claim": 32})
    assert cells[2, 2].outcomes == cells[2, 1].outcomes, "a student has no draws"
    (view,) = tables(asked, lambda outcomes: honest(outcomes, 0.6), lambda outcomes: ABOUT)
    assert isinstance(view.rows[0].cells[2].number, Number)
    soft = view.rows[1].cells[2]
    assert isinstance(soft.number, Missing) and "single draws, which are no vote" in " ".join(said(view, soft))
    transfer = suite.tables["table3"].rows[4]
    other = asked._replace(tables={"table2": asked.tables["table2"].model_copy(update={"rows": (transfer,)})})
    (view,) = tables(other, lambda outcomes: honest(outcomes, 0.6), lambda outcomes: ABOUT)
    found = view.rows[0].cells[2].number
    assert isinstance(found, Missing) and "its own source" in found.reason


def test_one_draws_belief_is_no_bias_of_a_vote(suite, votes):
    """At p = 0.7 in every image the vote is right in nearly all, and one draw in 70 %: no attack was fooled by luck."""
    cell = next(cell for cell in suite.cells("table2") if cell.attack == "pgd10" and cell.target == "smoothed-vote")
    n, chances = 300, np.zeros((300, 10))
    labels = labels_of(np.arange(n))
    chances[np.arange(n), labels], chances[np.arange(n), (labels + 1) % 10] = 0.7, 0.3
    found = votes_from(chances, np.arange(n), 32, 1)
    wrong = (np.random.default_rng(2).random(n) > 0.7).astype(np.int8)
    lookup = votes | {cell.outcomes: replace(found, claimed=wrong)}
    (view,) = tables(suite, lookup.get, lambda outcomes: ABOUT, only="table2")
    shown = view.rows[0].cells[1]
    assert shown.number.value > 0.95 and "believed" not in " ".join(said(view, shown))
    lookup = votes | {cell.outcomes: replace(found, claimed=np.ones(n, np.int8))}
    (view,) = tables(suite, lookup.get, lambda outcomes: ABOUT, only="table2")
    assert "fresh draws say +7" in " ".join(said(view, view.rows[0].cells[1]))
    asked = claimed_column(suite)
    claim = next(cell for cell in asked.cells() if cell.number == "claimed" and cell.target == "smoothed-vote")
    lookup = votes | {claim.outcomes: replace(found, claimed=np.zeros(n, np.int8))}
    (view,) = tables(asked, lookup.get, lambda outcomes: ABOUT)
    assert view.rows[0].cells[2].number.value == 1 and "believed" not in " ".join(said(view, view.rows[0].cells[2]))


def test_the_precision_stands_in_the_column(suite, votes):
    auto = suite._replace(protocol=suite.protocol.model_copy(update={"precision": "auto"}))
    found = {mine.outcomes: votes[theirs.outcomes] for mine, theirs in zip(auto.cells(), suite.cells(), strict=True)}
    said = {"clean": "float32", "pgd10": "bfloat16"}

    def about(outcomes):
        crafted = said["clean" if outcomes.examples.source is None else "pgd10"]
        return {"provenance": {"precision": "float32", "crafting_precision": crafted}}

    (view,) = tables(auto, found.get, about, only="table2")
    assert view.columns == ("Clean", "PGD-10 (bfloat16, float32)")
    assert tables(suite, votes.get, lambda outcomes: ABOUT, only="table2")[0].columns == ("Clean", "PGD-10")


def test_an_attack_that_leaves_images_alone_is_said_to(suite):
    cni, student = (suite.models[name].model for name in ("cni", "kd-vote"))
    for attack, leaves in (
        (Peer(kind="autoattack", name="rand, as published"), True), (Peer(kind="autoattack", name="rand"), False),
        (Peer(kind="torchattacks", name="APGD"), True), (Peer(kind="torchattacks", name="PGD"), False),
    ):  # fmt: skip
        for source in (cni, student):
            outcomes = Outcomes(examples=Examples(source=source, attack=attack), target=source)
            assert shy(outcomes) == (leaves and source is cni)


def test_a_missing_cell_is_a_dash_with_its_reason(suite, votes):
    cells = list(suite.cells("table2"))
    without = {outcomes: found for outcomes, found in votes.items() if outcomes != cells[5].outcomes}
    (view,) = tables(suite, without.get, lambda outcomes: ABOUT, only="table2")
    missing = view.rows[2].cells[1]
    assert isinstance(missing.number, Missing) and missing.difference is None and not missing.best
    text = render([view], "md")
    assert "—" in text and "no record" in text and "| 0.00 [" not in text
    assert any("300 of the 10,000" in note for note in view.notes)
    nothing = tables(suite, lambda outcomes: None, lambda outcomes: None)
    assert render(nothing, "md").count("—") == 4 + 8 + 12
    assert all("Nothing is recorded" in view.provenance for view in nothing)


def test_provenance_names_scale_device_versions_draws_and_records(views, votes):
    line = views[2].provenance
    key = views[2].rows[0].cells[0].cell.outcomes.key[:8]
    for part in (
        "protocol 2.2",
        "scale quick",
        "300 images",
        "seed 0",
        "shards of 100",
        "float32",
        "a laptop",
        "torch 2.9",
        key,
    ):
        assert part in line
    assert "CNI 8.0" in line and "Smoothed CNI 32.0" in line


def test_equal_outcomes_give_equal_bytes(suite, votes, views):
    again = tables(suite, dict(reversed(votes.items())).get, lambda outcomes: dict(ABOUT))
    for form in ("md", "csv", "html", "latex"):
        assert render(again, form, "A", "B") == render(views, form, "A", "B")


# -- renderers ---------------------------------------------------------------------------------

HOSTILE = [
    "a|b", "a\\|b", "<script>alert(1)</script>", "`code", "``a`|`b``", "line\nbreak", "\\", "*bold* _it_ ~~no~~",
    "[x](http://y)", "![i](j)", "$x$", "a & b &amp;", "#1 @me", "| --- |", " ",
    "\u202eright to left", "\x00\x1b[31m", "a\u2028b",
]  # fmt: skip


def parsed(text):
    """The tables of a markdown text as GitHub's rules read it: lists of rows of cells of plain text."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    found, raw = [], []
    for i, token in enumerate(tokens):
        if token.type == "table_open":
            found.append([])
        if token.type == "tr_open":
            found[-1].append([])
        if token.type in ("th_open", "td_open"):
            inside = tokens[i + 1].children or []
            words = [child.content for child in inside if child.type in ("text", "text_special", "code_inline")]
            raw += [child.type for child in inside if child.type not in ("text", "text_special")]
            found[-1][-1].append("".join(words))
    return found, raw


def named(suite, name):
    """The suite with one model called `name`."""
    entry = suite.models["kd-vote"].model_copy(update={"label": name})
    return suite._replace(models=suite.models | {"kd-vote": entry})


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(HOSTILE) | st.text(min_size=1, max_size=30))
def test_no_name_can_break_a_markdown_table(suite, name):
    view = tables(named(suite, name), lambda outcomes: None, lambda outcomes: None, only="table1")[0]
    (table,), kinds = parsed(render([view], "md"))
    assert {len(row) for row in table} == {4}
    assert table[3][0] == plain(name)
    assert set(kinds) <= {"html_inline"}


def test_our_tables_are_tables_to_github(views):
    (first, second, third), kinds = parsed(render(views, "md", "Title", "About"))
    assert (
        {len(row) for row in first} == {4}
        and {len(row) for row in second} == {8}
        and {len(row) for row in third} == {9}
    )
    assert third[0] == ["Attack model", "Target model", "Access", "Clean", "paper", "Δ", "PGD-10", "paper", "Δ"]
    assert third[4][7] == "32.95" and re.fullmatch(r"\d\d\.\d\d \[\d\d\.\d, \d\d\.\d\]", second[1][2])
    assert set(kinds) <= {"html_inline", "strong_open", "strong_close"}


@pytest.mark.parametrize("name", HOSTILE)
def test_html_and_latex_show_names_as_they_are(suite, name):
    view = tables(named(suite, name), lambda outcomes: None, lambda outcomes: None, only="table1")[0]
    page = render([view], "html")
    assert "<script" not in page and page.count("<tr>") == 5 and page.count("<td>") == 16
    text = render([view], "latex")
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == 4 and all(len(re.findall(r"(?<!\\)&", line)) == 3 for line in body)
    bare = re.sub(r"\\[&%$#_{}]", "", tex(name))
    assert bare.count("{") == bare.count("}") and not re.search(r"(?<!\\)[&%#_^~]", bare)


def test_latex_is_booktabs_with_its_provenance_outside_the_float(views):
    for view in views:
        text = render([view], "latex")
        inside, _, after = text.partition(r"\end{table}")
        assert [inside.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\hline")] == [1, 1, 1, 0]
        assert "protocol" not in inside and "records" not in inside and "torch" not in inside
        assert after.strip() == "% " + plain(view.provenance)
        first = cells_of(view)[0].number
        ends = rf"{100 * first.value:.2f} {{\scriptsize [{100 * first.low:.1f}, {100 * first.high:.1f}]}}"
        assert ends in inside and r"\pm" not in inside


def test_csv_reads_back(views):
    rows = list(csv.DictReader(io.StringIO(render(views, "csv"))))
    assert len(rows) == 24 and rows == [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in records(views)
    ]
    assert float(rows[0]["paper"]) == 88.68 and rows[8]["access"] == ""


def test_the_terminal_shows_every_cell(views):
    console = Console(width=200, file=io.StringIO(), force_terminal=False)
    for view in views:
        console.print(terminal(view))
    text = console.file.getvalue()
    for cell in (cell for view in views for cell in cells_of(view)):
        assert (
            isinstance(cell.number, Number) and f"{100 * cell.number.value:.2f} [{100 * cell.number.low:.1f}, " in text
        )


def test_marks_go_on_after_z():
    assert [letter(i) for i in (0, 25, 26, 27, 701, 702)] == ["a", "z", "aa", "ab", "zz", "aaa"]


def test_ordinary_names_stay_readable():
    assert gfm("CIFAR-10 x86_64 (EoT 16), 95 %") == "CIFAR-10 x86_64 (EoT 16), 95 %"

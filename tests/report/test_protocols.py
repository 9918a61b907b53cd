"""Defences as published and as judged here: on the same weights, paired, and what a paper says kept apart."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from browser import KEYS, Browser, found
from made_votes import honest

from bench import UserError
from bench.recipes import Clean
from bench.report import board_of
from bench.report.cell_page import link
from bench.report.forms import Answer, written
from bench.report.page import page, publish
from bench.report.protocols import BORROWED, SAME, THEIRS, protocols
from bench.report.protocols_text import finding, latex, markdown
from bench.report.published import folder as claims_folder
from bench.report.published import read
from bench.report.tables import tables
from bench.run.session import open_suite
from bench.store.tasks import Settings
from bench.suite.reader import load
from bench.votes.numbers import fold
from bench.votes.paired import difference

SUITES = Path(__file__).parents[2] / "suites"
LEFT = {
    "clean": 0.8,
    "frozen": 0.6,
    "pseudo": 0.55,
    "moving": 0.5,
    "eot": 0.45,
    "mean": 0.3,
    "strong": 0.2,
    "pgd20": 0.7,
}


def recorded(name):
    """A suite at scale quick with honest votes of classifiers that keep what LEFT says."""
    suite = load(SUITES / f"{name}.toml", "quick")
    return suite, {cell.outcomes: honest(cell.outcomes, LEFT.get(cell.attack, 0.65)) for cell in suite.cells()}


@pytest.fixture(scope="module")
def zoo():
    return recorded("randomised")


@pytest.fixture(scope="module")
def own():
    return recorded("slwta")


def test_both_protocols_are_of_the_same_weights_and_paired(zoo):
    suite, votes = zoo
    rows = {row.name: row for row in protocols(suite, votes.get)}
    assert "no noise" not in rows and {"RPF", "CNI", "SAP", "random precision"} <= rows.keys()
    row, cells = rows["RPF"], {cell.attack: cell for cell in suite.cells("randomised") if cell.target == "rpf"}
    assert row.published.key == cells["frozen"].outcomes.key and "one frozen draw" in row.published.words.replace(
        "frozen draw", "one frozen draw"
    )
    assert row.ours.key == cells["strong"].outcomes.key and row.clean.key == cells["clean"].outcomes.key
    a, b = votes[cells["frozen"].outcomes], votes[cells["strong"].outcomes]
    assert row.gap == pytest.approx(difference(a, b, "expected")) and row.shared == 100
    assert (
        row.ours.number == fold(b, "expected", row.ours.number.keys)
        or row.ours.number.value == fold(b, "expected").value
    )
    assert {name for name, one in rows.items() if one.published.words.endswith(BORROWED)} == {
        "RND, 0.02", "random features", "resize and pad", "crop", "SAP",
    }, "no white-box claim of theirs says how it met the draws"  # fmt: skip
    assert rows["CNI"].published.words == "PGD-20, moving draws", "as its paper did, by one fresh draw a gradient"
    assert row.places == ("weights",) and row.eps * 255 == 8


def test_what_only_a_published_protocol_found_is_not_ours(zoo):
    """A frozen draw that happens to leave least is still the published protocol, and a shy attack no attack of ours."""
    suite, votes = zoo
    low = {
        cell.outcomes: honest(cell.outcomes, 0.05)
        for cell in suite.cells()
        if cell.attack in ("frozen", "aa-rand-published")
    }
    for row in protocols(suite, (votes | low).get):
        keys = {cell.outcomes.key: cell.attack for cell in suite.cells()}
        assert keys[row.ours.key] == "strong" and row.ours.number.value > 0.1


def test_a_paper_is_compared_with_nothing_but_its_own_weights(zoo, own):
    row, plain = protocols(own[0], own[1].get)
    assert plain.name == "The same as a plain nn.Module"
    assert row.told.whose == SAME and row.told.value == 0.7608 and "WideResNet-34-1" in row.told.words
    assert row.published.words.startswith("AutoAttack rand, its own score")
    claimed = next(votes for outcomes, votes in own[1].items() if outcomes.key == row.published.key)
    assert row.published.number.value == (claimed.claimed == 0).mean()
    known = {"rpf": read(claims_folder())["rna"].model_copy(update={"zoo": "rpf"})}
    others = {row.name: row.told for row in protocols(zoo[0], zoo[1].get, known)}
    assert others["RPF"].whose == THEIRS and others["RPF"].value == pytest.approx(0.6094) and others["SAP"] is None
    assert all(row.told is None for row in protocols(zoo[0], zoo[1].get, {}))


def test_a_defence_without_the_published_protocol_keeps_its_row(zoo):
    suite, votes = zoo
    some = {
        outcomes: one
        for outcomes, one in votes.items()
        if isinstance(outcomes.examples.attack, Clean) or "strong" in str(type(outcomes.examples.attack)).lower()
    }
    rows = protocols(suite, some.get)
    assert rows and all(row.published is None and row.gap is None and row.ours for row in rows)
    assert protocols(suite, lambda outcomes: None) == [] and markdown([]) == latex([]) == finding([]) == ""


def test_text_has_a_row_each_and_says_what_made_each_number(zoo):
    rows = protocols(zoo[0], zoo[1].get)
    text = markdown(rows)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == len(rows) + 2 and len({line.count("|") for line in lines}) == 1
    marks = set(re.findall(r"<sup>(\w+)</sup> ", text))
    assert marks == set(re.findall(r"<sup>(\w+)</sup>", text)), "every letter is explained"
    tex = latex(rows)
    body = tex.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == len(rows) and {len(re.findall(r"(?<!\\)&", line)) for line in body} == {6}
    assert "no ranking" in text
    widest = rows[0]
    said = finding(rows)
    assert said.startswith(f"{len(rows)} of {len(rows)} randomised defences") and widest.name in said


# -- in a browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def folder(zoo, tmp_path_factory):
    suite, votes = zoo
    folder = tmp_path_factory.mktemp("protocols")
    publish(
        folder,
        page(suite, "Scale: quick.", votes.get, lambda outcomes: {}, tables(suite, votes.get, lambda outcomes: {})),
    )
    return folder


@pytest.mark.skipif(not found(), reason="chromium and chromedriver (Debian's packages) are not installed")
def test_the_board_joins_two_protocols_sorts_filters_and_leads_to_votes(zoo, folder, browser):
    rows = protocols(zoo[0], zoo[1].get)
    browser.look(390, 800)
    browser.open(folder / "index.html")
    assert browser.run("return document.documentElement.scrollWidth") == 390
    browser.look(1280, 900)
    browser.open(folder / "index.html")
    assert browser.run("return document.querySelector('main section').id") in ("claims", "protocols")
    lines = browser.run("""return [...document.querySelectorAll('#both svg')].map(
        (e) => [e.querySelectorAll('.joined').length, e.querySelectorAll('a').length])""")
    assert lines == [[1, 2]] * len(rows)
    x = browser.run("""const s = document.querySelector('#both svg');
        return [s.querySelector('.joined').getAttribute('x1'), s.querySelector('circle').getAttribute('cx')]""")
    assert x[0] == x[1] and float(x[0]) == pytest.approx(10 + 300 * rows[0].ours.number.value, abs=0.1)
    names = """return [...document.querySelectorAll('#both tbody tr:not([hidden]) th')].map(
        (e) => e.firstChild.textContent.trim())"""
    assert browser.run(names) == [row.name for row in rows]
    browser.click("#both th:nth-child(6) button")
    assert browser.run(names) == [row.name for row in sorted(rows, key=lambda row: -row.ours.number.value)]
    browser.type("#filter-place", KEYS["Down"])
    place = browser.run("return document.getElementById('filter-place').value")
    assert set(browser.run(names)) == {row.name for row in rows if place in row.places} and 0 < len(
        browser.run(names)
    ) < len(rows)
    assert browser.errors() == []
    browser.run("document.querySelector('#both tbody tr:not([hidden]) td:nth-child(6) a').click()")
    assert "/cells/" in browser.run("return location.href")


# -- several suites as one board ---------------------------------------------------------------


@pytest.fixture(scope="module")
def sessions(zoo, own, tmp_path_factory):
    """Two suites with records in memory, as sessions are read."""
    root = tmp_path_factory.mktemp("board")
    return [SimpleNamespace(suite=suite, votes=votes.get, folder=root / suite.name) for suite, votes in (own, zoo)]


def test_one_board_of_several_suites_has_the_authors_weights_first(sessions):
    text = written(board_of.board(sessions, "md"), "md")
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert len(rows) == 10 and rows[0].startswith("| Stochastic LWTA | features |")
    assert written(board_of.board(sessions, "latex"), "latex").count(r"\toprule") == 1
    html = written(board_of.board(sessions, "html"), "html")
    assert html.count("<svg") == 10 and 'href="slwta/cells' not in html, "no link to what is not there"
    row, _plain = protocols(sessions[0].suite, sessions[0].votes)
    page_ = sessions[0].folder / link(row.ours.key)
    page_.parent.mkdir(parents=True)
    page_.write_text("votes")
    assert f'href="slwta/{link(row.ours.key)}"' in written(board_of.board(sessions, "html"), "html")
    values = json.loads(written(board_of.board(sessions, "json"), "json"))
    assert values[0]["as_judged_here"] == row.ours.number.value and values[0]["paper_percent"] == pytest.approx(76.08)
    assert len(written(board_of.board(sessions, "csv"), "csv").splitlines()) == 11
    with pytest.raises(UserError, match=r"(?s)no randomised model.*bench run"):
        board_of.board([SimpleNamespace(suite=sessions[0].suite, votes=lambda outcomes: None)], "md")


def test_a_board_goes_between_the_marks_of_a_page_and_prose_is_never_lost(tmp_path):
    page_, new = tmp_path / "docs" / "randomised.md", Answer([], "new")
    page_.parent.mkdir()
    page_.write_text(f"before\n{board_of.START}\nold\n{board_of.END}\nafter\n")
    board_of.put(page_, new, "md")
    assert page_.read_text() == f"before\n{board_of.START}\nnew\n{board_of.END}\nafter\n"
    page_.write_text("prose alone\n")
    with pytest.raises(UserError, match="no place for the board"):
        board_of.put(page_, new, "md")
    assert page_.read_text() == "prose alone\n"
    board_of.put(tmp_path / "board.html", Answer([], "", form_text="<html>"), "html")
    assert (tmp_path / "board.html").read_text() == "<html>\n"


def test_the_board_of_the_documentation_is_of_the_records():
    text = (SUITES.parent / "docs" / "randomised.md").read_text("utf-8")
    assert text.count(board_of.START) == text.count(board_of.END) == 1
    shown = text.partition(board_of.START)[2].partition(board_of.END)[0].strip()
    if shown:  # nothing stands there that was not recorded
        here = Settings(SUITES.parent, device="cpu")
        both = [open_suite(SUITES / f"{name}.toml", "auto", None, here) for name in ("slwta", "randomised")]
        assert shown == written(board_of.board(both, "md"), "md").strip()

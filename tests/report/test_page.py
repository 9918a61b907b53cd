"""The page: its files by themselves, and in a real browser with a mouse, a keyboard and a phone's width."""

import io
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import KEYS, Browser, found
from made_votes import honest, pinned
from PIL import Image

from bench.report.board import leaderboard
from bench.report.cell_page import link
from bench.report.claims import claims
from bench.report.draw import Shown
from bench.report.page import page, publish
from bench.report.tables import tables
from bench.suite.reader import load, scales
from bench.suite.writer import toml
from bench.votes.numbers import fold

SUITES = Path(__file__).parents[2] / "suites"
HOSTILE = "<img src=x onerror=alert(1)> & \"KD\" 'x' </script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 3"><rect width="4" height="3" fill="#0072b2"/></svg>'
FINDINGS = {"CNI": [{"check": "zero gradient", "verdict": "suspicious", "figure": "12 of 64", "advice": "look again"}]}


def about(outcomes):
    return {
        "seal": "5" * 64,
        "made_from": {"a" * 64: "b" * 64},
        "files": {"votes.parquet": {"bytes": 1234, "sha256": "c" * 64}},
        "provenance": {"device": "a laptop", "versions": {"torch": "2.9"}, "seconds": 1.5},
    }


@pytest.fixture(scope="module")
def suite():
    suite = pinned("quick")
    entry = suite.models["kd-vote"].model_copy(update={"label": HOSTILE})
    return suite._replace(models=suite.models | {"kd-vote": entry})


@pytest.fixture(scope="module")
def votes(suite):
    made = {cell.outcomes: honest(cell.outcomes, cell.paper / 100) for cell in suite.cells()}
    del made[list(suite.cells("table2"))[7].outcomes]
    return made


@pytest.fixture(scope="module")
def made(suite, votes):
    """The page's files, as the run makes them."""
    files = ("figure4.svg", "figure4.png", "figure4.pdf", "figure4-column.svg", "figure4-column.pdf")
    shown = [Shown("figure4", "Figure 4", "Accuracy falls from 80 % to 20 %.", (), files)]
    shown.append(Shown("figure5", "Figure 5", "No data yet.", ("CNI",), ()))
    views = tables(suite, votes.get, about)
    return page(
        suite, "Scale: quick.", votes.get, about, views, shown, verdicts=claims(suite, votes.get), findings=FINDINGS
    )


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    publish(folder, made)
    (folder / "figures").mkdir()
    for name in ("figure4.svg", "figure4-column.svg", "figure4.pdf", "figure4-column.pdf"):
        (folder / "figures" / name).write_bytes(SVG)
    Image.new("RGB", (4, 3)).save(folder / "figures" / "figure4.png")
    return folder


class Reader(HTMLParser):
    """Every link, id and script of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.tags = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.links += [found[name] for name in ("href", "src") if name in found]
        if "id" in found:
            assert found["id"] not in self.ids, f"two elements are called {found['id']}"
            self.ids.add(found["id"])


# -- the files ---------------------------------------------------------------------------------


def test_every_record_has_one_page_and_every_link_leads_somewhere(suite, made, folder):
    assert set(made) == {"index.html"} | {link(cell.outcomes.key) for cell in suite.cells()}
    readers = {name: Reader(text.decode()) for name, text in made.items()}
    for name, reader in readers.items():
        for target in reader.links:
            path, _, at = target.partition("#")
            if target == "data:,":
                continue
            assert "://" not in target
            place = ((folder / name).parent / path if path else folder / name).resolve()
            assert place.is_file(), f"{name}: {target}"
            assert not at or at in readers[place.relative_to(folder.resolve()).as_posix()].ids


def test_the_leaderboard_has_every_published_row_and_ours(suite, made):
    text = made["index.html"].decode()
    rows = re.findall(r'<tr class="(\w*)" data-origin="(\w+)"', text)
    assert sum(origin == "RobustBench" for _, origin in rows) == len(leaderboard().entries) == 99
    assert sum(origin == "ours" for _, origin in rows) == 8 == len({cell.target for cell in suite.cells()})
    for entry in leaderboard().entries[:3]:
        assert entry.id in text and f"{100 * entry.clean:.2f}" in text


def test_no_name_becomes_markup_or_script(made):
    for text in (content.decode() for content in made.values()):
        assert "<img src=x" not in text and "onerror=alert(1)>" not in text
        reader = Reader(text)
        assert not any(name.startswith("on") for _, found in reader.tags for name in found)
        assert sum(tag == "script" for tag, _ in reader.tags) <= 2
    assert "&lt;img src=x onerror=alert(1)&gt;" in made["index.html"].decode()


def test_a_cells_page_holds_its_numbers_images_and_provenance(suite, votes, made):
    cell = next(cell for cell in suite.cells("table3") if cell.target == "smoothed-sigma20" and cell.attack == "pgd10")
    text, record = made[link(cell.outcomes.key)].decode(), votes[cell.outcomes]
    data = json.loads(re.search(r'id="images-data">(.*?)</script>', text, re.S)[1])
    assert [row[0] for row in data["rows"]] == record.index.tolist()
    assert sum(row[1] == row[2] for row in data["rows"]) / 300 == fold(record, "vote").value
    for word in ("expected accuracy", "vote accuracy", "soft accuracy", "resubmission", "infinite-vote", "given clean"):
        assert word in text
    for word in (
        "a laptop",
        "torch 2.9",
        "5" * 64,
        "c" * 64,
        cell.outcomes.key,
        "--only table3",
        "The paper has 36.58",
    ):
        assert word in text
    assert f"{100 * fold(record, 'expected').value:.2f}" in text


def test_a_missing_number_has_a_page_that_says_why(suite, made):
    cell = list(suite.cells("table2"))[7]
    text = made[link(cell.outcomes.key)].decode()
    assert "no record" in text and 'id="images-data"' not in text and "[models.target]" in text


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_cells_toml_asks_for_the_same_record(path, tmp_path):
    for scale in scales(path):
        for cell in load(path, scale).cells():
            (tmp_path / "cell.toml").write_text(toml(cell.outcomes, cell.number))
            (again,) = load(tmp_path / "cell.toml").cells()
            assert (again.outcomes.key, again.number) == (cell.outcomes.key, cell.number)


def test_equal_records_give_equal_pages_and_old_pages_go(suite, votes, made, tmp_path):
    views = tables(suite, votes.get, about)
    first = page(suite, "Scale: quick.", votes.get, about, views)
    assert first == page(suite, "Scale: quick.", votes.get, about, views)
    publish(tmp_path, made)
    old = tmp_path / "cells" / "0123456789abcdef.html"
    old.write_text("old")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.html") if path != old}
    publish(tmp_path, made)
    assert not old.exists() and before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.html")}


# -- in a browser ------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(
    not found(), reason="chromium and chromedriver (Debian's packages) are not installed"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def index(browser, folder):
    browser.look(1280, 900)
    browser.open(folder / "index.html")
    return browser


def column(browser, at):
    """The shown values of a column of the leaderboard, None where there is none."""
    script = """return [...document.querySelectorAll('#board tbody tr:not([hidden])')].map((row) => {
        const cell = row.cells[arguments[0]], raw = cell.dataset.value;
        return raw === undefined ? cell.textContent.trim().toLowerCase() : raw === '' ? null : Number(raw); })"""
    return browser.run(script, at)


def sort_of(browser, at):
    return browser.run("return document.querySelectorAll('#board th[scope=col]')[arguments[0]].ariaSort", at)


@needs_browser
def test_a_click_on_a_header_sorts_and_another_turns_it_round(index):
    origins = "return [...document.querySelectorAll('#board tbody tr')].map((row) => row.dataset.origin)"
    assert set(index.run(origins)[:8]) == {"ours"} and set(index.run(origins)[8:]) == {"RobustBench"}
    published = column(index, 5)[8:]
    assert published == sorted(published, reverse=True)
    index.click("#board th:nth-child(5) button")
    assert set(index.run(origins)[:8]) == {"ours"}, "ours stay first"
    mine = column(index, 4)[:8]
    assert mine == sorted(mine, reverse=True)
    index.click("#board th:nth-child(6) button")
    index.click("#ours-first")
    values = [value for value in column(index, 5) if value is not None]
    assert values == sorted(values, reverse=True) and column(index, 5)[-1] is None
    index.click("#board th:nth-child(5) button")
    clean = column(index, 4)
    assert clean == sorted(clean, reverse=True) and sort_of(index, 4) == "descending" and sort_of(index, 5) is None
    index.click("#board th:nth-child(5) button")
    assert column(index, 4) == sorted(clean) and sort_of(index, 4) == "ascending"
    index.click("#board th:nth-child(1) button")
    assert column(index, 0) == sorted(column(index, 0))
    index.click("#board th:nth-child(7) button")
    pgd = column(index, 6)
    first_missing = pgd.index(None)
    assert pgd[:first_missing] == sorted(pgd[:first_missing], reverse=True) and set(pgd[first_missing:]) == {None}


@needs_browser
def test_filters_leave_what_was_asked_for(index):
    index.type("#filter-words", "wideresnet-28 2023")
    names = column(index, 0)
    assert 0 < len(names) < 30
    assert (
        index.run("return document.getElementById('board-status').textContent") == f"{len(names)} of 107 models shown"
    )
    assert all("wideresnet-28" in text for text in column(index, 1))
    index.run("document.getElementById('filter-words').value = ''")
    index.type("#filter-origin", KEYS["Down"])
    assert len(column(index, 0)) == 8
    index.type("#filter-origin", KEYS["Up"])
    index.click("#filter-extra")
    assert 20 < len(column(index, 0)) < 107 and set(column(index, 3)) == {"no"}


@needs_browser
def test_the_keyboard_reaches_and_works_everything(index):
    index.press("Tab")
    assert index.run("return document.activeElement.textContent") == "Skip to content"
    for _ in range(80):
        index.press("Tab")
        if index.run("const e = document.activeElement; return e.closest('#board') && e.textContent") == "Clean, %":
            break
    outline = index.run("return getComputedStyle(document.activeElement).outlineStyle")
    index.press("Enter")
    assert outline == "solid" and sort_of(index, 4) == "descending"
    index.press("Space")
    assert sort_of(index, 4) == "ascending"


@needs_browser
def test_a_number_leads_to_its_images_and_back(index, suite, votes):
    cell = next(cell for cell in suite.cells("table3") if cell.attack == "pgd10")
    index.click(f'#table3 a[href="{link(cell.outcomes.key)}"]')
    record = votes[cell.outcomes]
    wrong = int((record.counts.argmax(1) != record.labels).sum())
    status = "return document.getElementById('images-status').textContent"
    assert index.run(status) == "Images 1 to 50 of 300"
    index.click("#images-next")
    assert index.run(status) == "Images 51 to 100 of 300"
    index.type("#images-show", KEYS["Down"])
    assert index.run(status) == f"Images 1 to {min(50, wrong)} of {wrong}"
    assert index.run("return document.querySelectorAll('#images td.right').length") == 0
    index.type("#images-order", KEYS["Down"])
    shares = index.run(
        "return [...document.querySelectorAll('#images tbody tr')].map((row) => parseInt(row.cells[3].textContent))"
    )
    assert shares == sorted(shares)
    assert index.errors() == []
    index.click("header a")
    assert index.run("return location.hash") == "#tables"


def named(nodes):
    """The role and accessible name of everything that a reader of the page can land on."""
    roles = {"link", "button", "checkbox", "combobox", "searchbox", "image", "table", "region"}
    kept = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles and "name" in node]
    return [(node["role"]["value"], node["name"]["value"]) for node in kept]


@needs_browser
def test_everything_clickable_has_a_name(index, suite, folder):
    pages = [folder / "index.html", folder / link(next(suite.cells("table2")).outcomes.key)]
    for path in pages:
        index.open(path)
        seen = []
        for _ in range(50):  # the tree is built after the page
            seen = named(index.command("Accessibility.getFullAXTree")["nodes"])
            if len(seen) > 5:
                break
            time.sleep(0.1)
        clickable = [one for one in seen if one[0] != "table"]
        assert len(clickable) > 5 and all(name.strip() for _, name in clickable)


@needs_browser
@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_no_width_scrolls_sideways_and_nothing_complains(browser, folder, suite, width):
    for path in (folder / "index.html", folder / link(next(suite.cells("table2")).outcomes.key)):
        browser.look(width, 800)
        browser.open(path)
        assert browser.run("return document.documentElement.scrollWidth") == width
    assert browser.errors() == []
    smallest = browser.run(
        "return Math.min(...[...document.querySelectorAll('button, select')].map((e) => e.offsetHeight))"
    )
    assert smallest >= 30


@needs_browser
def test_a_phone_gets_the_figure_of_a_column(browser, folder):
    for width, name in ((390, "figure4-column.svg"), (1280, "figure4.svg")):
        browser.look(width, 800)
        browser.open(folder / "index.html")
        assert browser.run("return document.querySelector('#figures img').currentSrc").endswith(f"/{name}")
    assert browser.run("return [...document.querySelectorAll('figcaption a')].map((e) => e.textContent)") == [
        "PDF", "PDF of a column",
    ]  # fmt: skip


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_are_both_readable(browser, folder, dark):
    """Text stands out from what is behind it: WCAG's contrast of 4.5 at least, for every text of the page."""
    browser.look(1280, 900, dark)
    browser.open(folder / "index.html")
    picture = np.asarray(Image.open(io.BytesIO(browser.shot())).convert("L"))
    assert (np.median(picture) < 60) == dark
    pairs = browser.run("""
        const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
            if (!c.startsWith('rgba(0, 0, 0, 0')) return c; } return 'rgb(255, 255, 255)'; };
        const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = new Map();
        while (walk.nextNode()) { const e = walk.currentNode.parentElement;
            if (!walk.currentNode.textContent.trim() || !e.offsetParent || e.closest('script, style')) continue;
            const pair = [getComputedStyle(e).color, ground(e)];
            found.set(pair.join(), [...pair, e.textContent.slice(0, 30)]); }
        return [...found.values()]""")

    def luminance(colour):
        parts = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    assert len(pairs) > 5
    for ink, behind, text in pairs:
        light, dim = sorted((luminance(ink), luminance(behind)), reverse=True)
        assert (light + 0.05) / (dim + 0.05) >= 4.5, (ink, behind, text)

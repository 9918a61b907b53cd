"""Figures: what they ask for, the numbers they show, and files that are the same every time."""

import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from fractions import Fraction

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_votes import honest, pinned, votes_from
from PIL import Image

from bench import UserError
from bench.recipes import PGD
from bench.report import draw, figures, plots, sheet
from bench.suite import figures as asking
from bench.suite.schema import Figure
from bench.votes.numbers import fold


@pytest.fixture(scope="module")
def suite():
    return pinned("quick")


@pytest.fixture(scope="module")
def lookup():
    kept = {}

    def found(outcomes):
        if outcomes not in kept:
            attack = outcomes.examples.attack
            steps = 0 if not isinstance(attack, PGD) else attack.steps if outcomes.iterate is None else outcomes.iterate
            kept[outcomes] = honest(outcomes, 0.9 - 0.05 * steps)
        return kept[outcomes]

    return found


def curves(weights):
    epochs = np.arange(1, 6)
    columns = {"epoch": epochs, "step": epochs * 10, "loss": 2.0 / epochs, "clean": 0.1 * epochs}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns | {"attacked": [0.0, 0.1, None, 0.2, 0.3], "rate": 0.1 * epochs}), sink)
    return sink.getvalue()


def pictures(outcomes, n):
    before = np.random.default_rng(0).random((n, 3, 32, 32)).astype(np.float32)
    return before, np.clip(before + 8 / 255, 0, 1).astype(np.float32)


def only(suite, *names):
    return suite._replace(figures={name: suite.figures[name] for name in names})


def test_the_papers_figures_are_declared(suite):
    assert {f"figure{i}" for i in range(1, 7)} < set(suite.figures)
    assert [suite.figures[f"figure{i}"].kind for i in range(1, 7)] == ["curves"] * 3 + ["steps"] * 3


def test_a_step_figure_asks_for_every_iterate_of_every_eps_and_target(suite):
    asked = list(asking.asks(suite, "figure5", suite.figures["figure5"]))
    assert len(asked) == 3 * 3 * 11
    examples = {one.outcomes.examples for one in asked}
    assert {example.attack.eps * 255 for example in examples} == {2, 8, 30} and len(examples) == 3
    assert all(example.attack.step == example.attack.eps / 4 and example.attack.keep_iterates for example in examples)
    assert {one.outcomes.iterate for one in asked} == set(range(11))
    assert asking.needed(only(suite, "figure5")) == [one.outcomes for one in asked]


def test_what_the_tables_have_is_not_asked_for_again(suite):
    cells = {cell.outcomes for cell in suite.cells()}
    assert set(asking.needed(only(suite, "draws", "agreement", "sheet"))) <= cells
    assert asking.needed(only(suite, "figure1", "figure2", "figure3")) == []
    wanted = asking.needed(suite)
    assert len(wanted) == len(set(wanted))


def test_eps_zero_is_clean_and_a_scaled_attack_keeps_its_proportions(suite):
    asked = [one for one in asking.asks(suite, "security", suite.figures["security"]) if one.x == 0]
    assert asked and all(one.outcomes.examples.source is None for one in asked)
    assert asking.scaled(PGD(), Fraction(1, 2)).step == Fraction(1, 8)


def test_a_line_is_the_folds_of_its_records(suite, lookup):
    drawing = figures.data(suite, "figure4", lookup, curves)
    asked = {(one.panel, one.series, one.x): one for one in asking.asks(suite, "figure4", suite.figures["figure4"])}
    assert [panel.title for panel in drawing.panels] == ["ε = 2/255", "ε = 8/255", "ε = 30/255"]
    for panel in drawing.panels:
        for line in panel.series:
            for x, y, low, high in zip(line.x, line.y, line.low, line.high, strict=True):
                one = asked[panel.title, line.name, x]
                assert (y, low, high) == fold(lookup(one.outcomes), one.kind)[:3]
            assert line.x == tuple(range(11))
    assert "KD student from" in drawing.about and not drawing.missing


def test_curves_leave_out_what_was_not_measured(suite):
    drawing = figures.data(suite, "figure1", lambda outcomes: None, curves)
    clean, attacked = drawing.panels
    assert clean.series[0].y == pytest.approx((0.1, 0.2, 0.3, 0.4, 0.5))
    assert attacked.series[0].x == (1, 2, 4, 5)
    nothing = figures.data(suite, "figure1", lambda outcomes: None, lambda weights: None)
    assert nothing.panels == () and len(nothing.missing) == 2 and "No data" in nothing.about


def test_agreement_counts_every_image_once(suite, lookup):
    drawing = figures.data(suite, "agreement", lookup, curves)
    for panel in drawing.panels:
        right, wrong = panel.series
        assert (right.name, wrong.name) == ("right", "wrong") and len(right.x) + len(wrong.x) == 300
        assert min(right.x) >= 0.1 and max(right.x) <= 1


def test_a_contact_sheet_shows_what_was_judged(suite, lookup):
    rows = figures.sheet(suite, "sheet", lookup, pictures)
    one = next(iter(asking.asks(suite, "sheet", suite.figures["sheet"])))
    votes = lookup(one.outcomes)
    assert [tile.label for tile in rows[0][1]] == votes.labels[: figures.SHEET].tolist()
    assert [tile.predicted for tile in rows[0][1]] == votes.counts.argmax(1)[: figures.SHEET].tolist()


def test_agreement_and_draws_know_nothing_of_where_draws_were_stopped(suite, lookup):
    """Stopped at 16 draws where all agree and at 64 elsewhere, the share of all draws is biased to 1."""
    plain = votes_from(np.full((200, 10), 0.1), np.arange(200), 16, 0)
    more = plain.counts + np.eye(10, dtype=np.uint16)[plain.counts.argmax(1)] * 48
    stopped = replace(plain, counts=more, settled=np.full(200, 20, np.uint16), rule="vote")

    def shown(name, votes):
        panels = figures.data(suite, name, lambda outcomes: votes, curves).panels
        return [value for panel in panels for series in panel.series for value in sorted(series.x)]

    assert shown("agreement", stopped) == shown("agreement", plain)
    assert set(shown("draws", stopped)) == {20.0}, "the draws until the vote was settled"


@pytest.mark.parametrize("name", ["figure1", "figure4", "security", "transfer", "draws", "agreement", "sheet"])
def test_every_kind_is_drawn_and_twice_the_same(suite, lookup, name):
    (one,) = draw.figures(only(suite, name), lookup, curves, pictures)
    (svg, png), again = draw.files(one.make), draw.files(one.make)
    assert (svg, png) == again
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg") and b"dc:date" not in svg
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert image.shape[1] > 700 and image.std() > 10
    border = np.concatenate([image[:2].ravel(), image[-2:].ravel(), image[:, :2].ravel(), image[:, -2:].ravel()])
    assert (border == 255).all()  # nothing runs over the edge
    assert one.missing == () and one.title in one.about
    pdf = draw.pdf(one.make)
    assert pdf == draw.pdf(one.make) and pdf.startswith(b"%PDF") and b"CreationDate" not in pdf
    width, height = map(float, re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", pdf).groups())
    assert width == pytest.approx(6.9 * 72, abs=1) and height < 9 * 72
    if one.narrow:
        column = re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", draw.pdf(one.narrow))
        assert float(column[1]) == pytest.approx(3.35 * 72, abs=1)


def words(svg):
    return [node.text for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_words_stay_words_and_say_attack_eps_images_and_level(suite, lookup):
    for name, parts in {
        "figure4": ("PGD-10 (L∞), crafted on KD student", "100 images", "whiskers: 95 % intervals"),
        "transfer": ("PGD-10 (L∞, ε = 8/255)", "100 images", "in brackets: 95 % intervals"),
        "figure1": ("PGD-10, ε = 8/255", "300 held-out training images", "whiskers: 95 % intervals"),
    }.items():
        (one,) = draw.figures(only(suite, name), lookup, curves, pictures)
        said = words(draw.files(one.make)[0])
        for part in parts:
            assert any(part in line for line in said), (name, part, said)
        assert not any(line.startswith("Figure") for line in said), "the caption numbers it"


def test_a_model_has_one_colour_and_marker_in_all_figures(suite, lookup):
    seen = {}
    with matplotlib.rc_context(fname=draw.STYLE):
        for name, figure in suite.figures.items():
            if figure.kind in ("steps", "eps", "curves"):
                drawing = figures.data(suite, name, lookup, curves)
                shown = {line.name for panel in drawing.panels for line in panel.series}
                for model, style in plots.styles(drawing).items():
                    if model in shown:
                        assert seen.setdefault(model, style) == style, (name, model)
    assert len(seen) >= 5
    assert len({(style["color"], style["marker"]) for style in seen.values()}) == len(seen)


def test_axes_end_where_the_data_do(suite, lookup):
    low = figures.Series("a", (0.0, 1.0), (0.32, 0.41), (0.31, 0.40), (0.35, 0.44))
    assert plots.limits([figures.Panel("", (low,))]) == pytest.approx((30 - 0.4, 50 + 0.4))
    drawing = figures.data(suite, "figure4", lookup, curves)
    with matplotlib.rc_context(fname=draw.STYLE):
        picture = draw.draw(drawing)
    for panel, axis in zip(drawing.panels, picture.axes, strict=True):
        bottom, top = axis.get_ylim()
        for line in panel.series:
            assert bottom <= 100 * min(line.low) and 100 * max(line.high) <= top
        starts = sorted(line.get_xdata()[0] for line in axis.get_lines() if len(line.get_xdata()) == 11)
        assert len(set(starts)) == len(panel.series), "whiskers stand apart"


def test_an_enlarged_perturbation_is_not_cut_off(suite, lookup):
    rows = figures.sheet(suite, "sheet", lookup, pictures)
    gain = sheet.gain_of([tile for _, tiles in rows for tile in tiles])
    assert gain == 15 and all(np.abs(gain * (t.after - t.before)).max() <= 0.5 for _, tiles in rows for t in tiles)
    assert sheet.gain_of([]) == 1


def test_without_records_there_is_no_file_and_with_some_it_says_what_lacks(suite, lookup, tmp_path):
    nothing = draw.publish(suite, tmp_path, lambda outcomes: None, lambda weights: None, lambda outcomes, n: None)
    assert all(one.files == () and one.missing for one in nothing)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["figures.json"])
    student = suite.models["kd-at-vote"].model
    some = draw.figures(only(suite, "figure4"), lambda o: lookup(o) if o.target == student else None, curves, pictures)
    assert some[0].make is not None and any("CNI" in what for what in some[0].missing)


def test_a_figure_is_drawn_again_only_if_its_data_changed(suite, lookup, tmp_path, monkeypatch):
    small = only(suite, "draws", "transfer")
    drawn = []
    real = draw.files
    monkeypatch.setattr(draw, "files", lambda make: drawn.append(1) or real(make))
    first = draw.publish(small, tmp_path, lookup, curves, pictures)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(drawn) == 2 and set(kept) == {"figures.json", *(name for one in first for name in one.files)}
    assert draw.publish(small, tmp_path, lookup, curves, pictures) == first and len(drawn) == 2
    student = suite.models["kd-at-vote"].model
    draw.publish(small, tmp_path, lambda o: honest(o, 0.5) if o.target == student else lookup(o), curves, pictures)
    assert len(drawn) == 3
    (tmp_path / "draws.svg").unlink()
    (tmp_path / "figures.json").write_text("not json")
    draw.publish(small, tmp_path, lookup, curves, pictures)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept


def test_a_figure_without_what_it_needs_is_refused(suite):
    for figure, word in ((Figure(kind="steps"), "PGD"), (Figure(kind="transfer"), "needs an attack")):
        wrong = figure.model_copy(
            update={"models": ("cni",), "sources": ("cni",), "attack": "clean" if word == "PGD" else None}
        )
        with pytest.raises(UserError, match=word):
            list(asking.asks(suite._replace(figures={"odd": wrong}), "odd", wrong))

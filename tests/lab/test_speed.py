"""The comparison of speeds: races whose outcome is known, work that is the same, and a whole small run."""

import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import CPU
from torch import nn

from bench import UserError
from bench.lab.speed import measure, subjects
from bench.lab.speed import race as racing
from bench.lab.speed.contestants import Way, looped, pgd, rivals, seen
from bench.lab.speed.race import bare, race
from bench.lab.speed.scaling import growth, slope
from bench.lab.weights import build, files
from bench.models.classifier import Plain
from bench.recipes import PGD, Network, Noise, Trained, summary
from bench.report import draw
from bench.report.speed import bars, drawn, markdown, text

TINY = measure.Sizes(clean=16, images=6, eot_images=4, eot=2, vote_images=6, draws=24, rounds=2, vote_rounds=1)


def linear():
    torch.manual_seed(0)
    return Plain(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), 10).eval().requires_grad_(False)


def test_a_race_tells_who_is_faster_and_whose_answers_differ(monkeypatch):
    """On a clock that only the contestants move, so that a busy machine decides nothing."""
    now = [0.0]
    monkeypatch.setattr(racing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    model = linear()
    images = torch.rand(50, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    labels = model(images).argmax(1)

    def sleeper(name, library, seconds, answers):
        def run(images, labels):
            now[0] += seconds
            return answers[: len(images)]

        return Way(name, library, "float32", run)

    ways = [
        sleeper("bench float32", "bench", 0.03, labels),
        sleeper("bench float32, early stop", "bench", 0.015, labels),
        sleeper("slow", "other", 0.12, labels),
        sleeper("cheat", "other", 0.01, (labels + 1) % 10),
    ]
    limits = [sleeper("limit float32", "limit", 0.006, labels)]
    ours, early, slow, cheat = race(ways, limits, images, labels, 5, 4, model=model, device=CPU)
    assert ours.faster["slow"] == pytest.approx(4) and ours.faster["cheat"] == pytest.approx(1 / 3) and not slow.faster
    assert ours.faster["slow"] < early.faster["slow"]
    # four passes of 6 ms are the limit of what took 30
    assert ours.share == ours.share_of_best == pytest.approx(24 / 30) and early.share is None
    assert (ours.differs, slow.differs, cheat.differs) == (False, False, True)
    assert ours.accuracy[0] == 1 and cheat.accuracy[0] == 0 and len(ours.seconds) == 5
    assert ours.rate == pytest.approx(50 / 0.03)


def test_every_way_attacks_within_the_same_ball():
    """Ours and the libraries': all inside eps of their originals, on a model where PGD has to win."""
    model = linear()
    images = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    labels = model(images).argmax(1)
    attack = PGD()
    ways = pgd(attack, model, CPU) + rivals(attack, model, CPU)
    assert {way.library for way in ways} >= {"bench", "torchattacks", "autoattack"}
    before = images.clone()
    for way in ways:
        made = way.run(images, labels)
        assert (made - images).abs().max() <= 8 / 255 + 1e-6 and made.min() >= 0 and made.max() <= 1
        assert (model(made).argmax(1) != labels).double().mean() > 0.9
    assert torch.equal(images, before)


def test_other_libraries_see_the_plain_layout_and_ours_is_left_alone():
    model = subjects.subjects("wrn-10-1", None, CPU)
    view = seen(model.noisy, CPU)
    kernel = "net.blocks.0.conv1.weight"
    ours, theirs = model.noisy.get_parameter(kernel), view.model.get_parameter(kernel)
    assert ours.is_contiguous(memory_format=torch.channels_last) and theirs.is_contiguous()
    assert torch.equal(ours, theirs) and ours.data_ptr() != theirs.data_ptr()
    images = torch.rand(4, 3, 32, 32)
    assert not torch.equal(view(images), view(images))
    way = looped(model.plain, CPU, 3)
    assert torch.equal(way.run(images, images), model.plain(images).argmax(1))


def test_the_limit_is_the_whole_network_there_and_back():
    passes = []

    class Counted(nn.Linear):
        def forward(self, images):
            passes.append((len(images), images.requires_grad, torch.is_autocast_enabled("cpu")))
            return super().forward(images.flatten(1))

    net = Counted(3072, 10).requires_grad_(False)
    images = torch.rand(10, 3, 32, 32)
    bare(net, 4, "float32", True, images)
    bare(net, 10, "bfloat16", False, images)
    assert passes == [(4, True, False), (3, True, False), (3, True, False), (10, False, True)]


def test_a_small_run_end_to_end():
    found = measure.speed("cpu", "wrn-10-1", sizes=TINY)
    assert json.loads(json.dumps(found))["model"] == "WRN-10-1, untrained"
    titles = [case["title"] for case in found["cases"]]
    assert titles == [
        "clean evaluation", "PGD-10", "PGD-10, EoT 2, on colored noise", "smoothed prediction, M = 24"
    ]  # fmt: skip
    for case in found["cases"]:
        assert all(row["rate"] > 0 and min(row["seconds"]) > 0 for row in case["rows"])
        ours = case["rows"][0]
        assert set(ours["faster"]) == {row["way"] for row in case["rows"] if not row["way"].startswith("bench")}
    assert found["arithmetic"]["float32"] == "float32", "a CPU knows no TF32"
    fixed, adaptive = found["cases"][3]["rows"][:2]
    assert fixed["note"] == "24.0 draws an image" and "6 of 6 decisions as fixed" in adaptive["note"]
    shown, page = text(found), markdown(found)
    for case in found["cases"]:
        assert case["title"] in shown and case["title"] in page
    assert "the weights are untrained" in shown and "torchattacks" in page
    ways = [row["way"] for case in found["cases"] for row in case["rows"]]
    axes = bars(found).axes
    assert [tick.get_text() for panel in axes for tick in panel.get_yticklabels()[::-1]] == ways
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables}) == 1


def test_weights_from_a_folder(tmp_path):
    recipe = Trained(network=Network(depth=10, width=1), noise=Noise())
    model = build.build(recipe)
    (tmp_path / "mine").mkdir()
    files.save(tmp_path / "mine", model.state_dict(), card={"recipe": summary(recipe)})
    found = subjects.subjects("mine", tmp_path, CPU)
    assert found.name == "mine" and found.trained and found.noisy.stochastic and not found.plain.stochastic
    weight = "net.blocks.1.conv2.weight"
    assert torch.equal(found.noisy.get_parameter(weight), model.get_parameter(weight))
    with pytest.raises(UserError, match="no model and no folder of weights"):
        subjects.subjects("nothing", tmp_path, CPU)
    with pytest.raises(UserError, match="there is no wrn-27-4"):
        subjects.subjects("wrn-27-4", tmp_path, CPU)
    (tmp_path / "mine" / "model.toml").write_text('key = "?"\n')
    with pytest.raises(UserError, match="does not say how these weights were made"):
        subjects.subjects("mine", tmp_path, CPU)


@settings(deadline=None)
@given(rate=st.floats(0.1, 1e5), more=st.floats(1, 100))
def test_a_faster_machine_is_given_more_work(rate, more):
    slow, fast = measure.adapted(rate, CPU), measure.adapted(rate * more, CPU)
    sizes = [(found.clean, found.images, found.eot_images, found.vote_images) for found in (slow, fast)]
    assert all(4 <= a <= b <= 1024 for a, b in zip(*sizes, strict=True))
    # ten steps, by four float32 passes' worth of ways, in two rounds
    assert slow.images == 4 or slow.images * 10 * 4 * 2 <= 0.5 * 60 * rate


def test_costs_grow_in_straight_lines():
    """Seconds against images and steps on a small network: doubled work takes about twice the time."""
    model = subjects.subjects("wrn-10-1", None, CPU)
    for name, (x, seconds) in growth(CPU, model, images=(16, 32, 64), steps=(2, 4, 8), draws=(8, 16, 32)).items():
        assert len(x) == len(seconds) == 3 and min(seconds) > 0, name
        assert 0.3 < slope(x, seconds) < 1.8, name
    assert slope([1, 2, 4], [3, 6, 12]) == pytest.approx(1) and slope([1, 2, 4], [1, 4, 16]) == pytest.approx(2)


def test_growth_is_drawn_the_same_every_time():
    curves = {"images": ([1.0, 2.0, 4.0], [1.0, 2.0, 4.1]), "width": ([1.0, 2.0], [1.0, 4.0])}
    svg, png = draw.files(lambda: drawn(curves))
    assert (svg, png) == draw.files(lambda: drawn(curves)) and svg.count(b"<svg") == 1 and png[:4] == b"\x89PNG"
    figure = drawn(curves)
    points = [axes.lines[1].get_xydata().tolist() for axes in figure.axes]
    assert points == [[[1, 1], [2, 2], [4, 4.1]], [[1, 1], [2, 4]]]
    straight, parabola = (axes.lines[0].get_xydata() for axes in figure.axes)
    assert straight[20].tolist() == pytest.approx([2, 2.05]) and parabola[20].tolist() == pytest.approx([1, 1])

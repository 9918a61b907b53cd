"""`bench.evaluate`: any model, any data, the same numbers as suites, and what is wrong told in words."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import api_models
import numpy as np
import own_data
import pytest
import torch
from made_votes import labels_of, votes_from
from oracles import linear_problem, resnet18
from torch import nn

import bench
from bench.api.attacks import eps_of, recipes_of
from bench.api.data import given
from bench.api.numbers import number, numbers
from bench.api.outcome import joined_
from bench.lab.images.load import as_tensor
from bench.recipes import PGD, Peer, Square
from bench.store.records import Store
from bench.votes.votes import Votes, check

CPU = {"device": "cpu", "progress": False}
LARGE = 8, own_data.large


def some(n=30, classes=8):
    """Images (n, 3, 64, 64) in [0, 1] of 8 classes, and labels, as tensors."""
    images, labels = own_data.excerpt(n, classes)
    return as_tensor(own_data.large(images)), torch.from_numpy(labels)


# -- the numbers --------------------------------------------------------------------------


def test_a_linear_classifier_has_its_closed_form():
    """L-inf takes eps |w|_1 of the margin, L2 eps |w|_2: the report is exactly what that leaves."""
    model, images, labels = linear_problem(200, seed=1)
    values = model.values(images) * (2 * labels - 1)
    for norm, eps, length in (("Linf", 4 / 255, model.weight.abs().sum()), ("L2", 0.08, model.weight.norm())):
        report = bench.evaluate(model, (images, labels), eps=eps, norm=norm, attacks="pgd20", **CPU)
        left = float((values > eps * length).float().mean())
        assert report.clean.value == 1.0 and 0.05 < left < 0.95
        assert abs(report.expected.value - left) < 0.011  # at most two images within a step's rounding
        assert report.expected.low < left < report.expected.high and report.expected.n == 200
        assert float(report.attacks["pgd20"].expected) == report.expected.value == float(report.vote)
        assert report.claimed.value == report.expected.value and report.frozen is None and report.expected.draws == 1


def test_it_is_what_a_suite_says(tmp_path):
    """The shipped ResNet-18 by name in a suite and by hand in memory: the same votes on the same CIFAR-10 images."""
    import small

    text = """
[datasets.test]
stop = 6
[attacks.pgd1]
kind = "pgd"
steps = 1
[models.net]
weights = { kind = "autoattack-example" }
[tables.t]
rows = ["net"]
columns = ["clean", "pgd1"]
"""
    small.go(tmp_path, text=text)
    suite = small.session(tmp_path, text)
    theirs = [suite.votes(cell.outcomes) for cell in suite.suite.cells()]
    report = bench.evaluate(resnet18().net, "cifar10", attacks=["pgd1"], n=6, **CPU)
    for mine, other in zip((report.votes["clean"], report.votes["pgd1"]), theirs, strict=True):
        assert np.array_equal(mine.index, other.index) and np.array_equal(mine.counts, other.counts)
        assert np.array_equal(mine.linf, other.linf)


def test_a_randomised_model_end_to_end_and_its_suite_by_the_command_line(tmp_path):
    """Noise in forward, eight classes, 64 x 64: saved, run as a suite by another process, the same votes to the bit."""
    report = bench.evaluate(
        api_models.Noisy(), some(), attacks=["pgd3", "fgsm"], eot=2, draws=20, n=25, out=tmp_path / "out", **CPU
    )
    assert report.stochastic and report.expected.draws == 20 and report.frozen is not None
    assert set(report.attacks) == {"pgd3", "fgsm"} and report.clean.n == 25
    folder = report.save(tmp_path / "other")
    assert {path.name for path in folder.iterdir()} >= {
        "suite.toml", "images.npz", "weights", "api_models.py", "report.json", "report.md", "report.tex", "report.bib",
    }  # fmt: skip
    run = [sys.executable, "-m", "bench", "run", str(folder / "suite.toml"), "--root", str(folder), "--device", "cpu"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment())
    assert done.returncode == 0, done.stderr
    assert "records made" in done.stdout
    suite = report.remade.suite
    for cell in suite.cells():
        mine, theirs = (Store(root).find(cell.outcomes) for root in (tmp_path / "out", folder))
        assert mine.read("votes.parquet") == theirs.read("votes.parquet")
    again = subprocess.run(
        [*run[:-4], "--root", str(tmp_path / "out")], capture_output=True, text=True, env=environment()
    )
    assert again.returncode == 0 and "nothing was missing" in again.stdout, again.stderr + again.stdout


def environment():
    import os

    root = str(Path(bench.__file__).parents[1])
    return os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def test_noise_in_the_models_state(tmp_path):
    """`redraw` draws it: without, the model is deterministic; with it, judged on fresh noise, and given back as was."""
    net = api_models.Kept()
    net.noise.fill_(0.5)
    images, labels = some(20)
    report = bench.evaluate(net, (images, labels), redraw=net.redraw, attacks=["pgd2"], eot=2, draws=12, **CPU)
    assert report.stochastic and len(set(map(tuple, report.votes["clean"].counts))) > 1
    assert (net.noise == 0.5).all()
    assert not bench.evaluate(net, (images, labels), attacks=(), **CPU).stochastic
    with torch.no_grad():
        base = api_models.Small.forward(net, images)
        draws = [net.redraw(torch.Generator().manual_seed(k)) or (base + net.noise) for k in range(400)]
    truth = float(np.mean([(one.argmax(1) == labels).float().mean() for one in draws]))
    assert report.clean.low <= truth <= report.clean.high
    folder = report.save(tmp_path)
    assert 'redraw = "redraw"' in (folder / "suite.toml").read_text()
    run = [sys.executable, "-m", "bench", "run", str(folder / "suite.toml"), "--root", str(folder), "--device", "cpu"]
    done = subprocess.run(run, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    for cell in report.remade.suite.cells():
        if cell.table == "report" and cell.attack == "clean":
            votes = Store(folder).find(cell.outcomes).read("votes.parquet")
            assert np.array_equal(counts_of(votes), report.votes["clean"].counts)


def counts_of(data: bytes):
    from bench.votes.votes import from_parquet

    return from_parquet(data).counts


def test_a_curve_and_an_eps_an_image():
    images, labels = some(16)
    net = api_models.Small()
    labels = net(images).argmax(1)
    curve = bench.evaluate(net, (images, labels), eps=[0, "1/255", 8 / 255], attacks=["pgd4"], n=None, **CPU)
    assert set(curve.attacks) == {"pgd4@0/255", "pgd4@1/255", "pgd4@8/255"}
    values = [number.value for _, number in curve.curve("pgd4")]
    assert values[0] == values[1] == 1.0 and values == sorted(values, reverse=True)
    each = np.array([0.0] * 8 + [8 / 255] * 8)
    report = bench.evaluate(net, (images, labels), eps=each, attacks=["pgd4"], n=None, **CPU)
    votes: Votes = report.votes["pgd4"]
    assert sorted(votes.index) == list(range(16)) and report.expected.n == 16
    far = dict(zip(votes.index.tolist(), votes.linf.tolist(), strict=True))
    assert all(far[i] == 0 for i in range(8)) and all(far[i] > 7 / 255 for i in range(8, 16))
    rows = report.images()
    assert len(rows) == 16


def test_attacks_by_name_by_recipe_and_by_hand():
    images, labels = some(10)

    def mine(model, x, y, eps):
        assert model(x).shape == (10, 8)
        return (x + eps).clamp(0, 1)

    own = Square(queries=5, draws=1)
    given_ = [PGD(steps=1, eps="1/255"), own, mine, "torchattacks.FGSM", "pgd2-margin"]
    report = bench.evaluate(api_models.Small(), (images, labels), eps="2/255", attacks=given_, **CPU)
    assert set(report.attacks) == {"pgd1", "square", "mine", "torchattacks.FGSM", "pgd2-margin"}
    assert report.attacks["pgd1"].eps == float(Fraction(1, 255)) and report.attacks["square"].eps == float(
        Fraction(2, 255)
    )
    assert np.allclose(report.votes["mine"].linf, 2 / 255, atol=1e-6)


def test_l1_and_an_l2_square_come_from_the_peers():
    assert recipes_of("square20", Fraction(1, 2), "L2", False)["square20"].kind == "autoattack"
    assert recipes_of("autoattack", Fraction(12), "L1", False)["autoattack"].norm == "L1"
    with pytest.raises(bench.UserError, match="works in L-inf and L2"):
        recipes_of("pgd20", Fraction(12), "L1", False)
    images, labels = some(6)
    report = bench.evaluate(api_models.Small(), (images, labels), eps=1, norm="L2", attacks=["square10"], **CPU)
    assert report.attacks["square10"].norm == "L2" and report.expected.value <= report.clean.value


def test_an_eps_as_a_float_is_its_fraction():
    assert (
        eps_of(8 / 255)
        == Fraction(8, 255)
        == eps_of("8/255")
        == eps_of(torch.tensor(8 / 255))
        == eps_of(np.float32(8 / 255))
    )
    assert eps_of(0.3) == Fraction(3, 10) and eps_of(3) == 3 and eps_of("0.5/255") == Fraction(1, 510)
    one, other = (recipes_of("pgd10", eps_of(eps), "Linf", False)["pgd10"].key for eps in (8 / 255, "8/255"))
    assert one == other == PGD(step="2/255").key


# -- the data -----------------------------------------------------------------------------


def test_one_set_of_images_however_it_is_given(tmp_path):
    """Tensors, arrays, a Dataset, a loader (shuffling or not), a file: one fingerprint, the same images chosen."""
    from torch.utils.data import DataLoader, TensorDataset

    images, labels = own_data.excerpt(30, 8)
    tensors = as_tensor(images), torch.from_numpy(labels)
    own_data.npz(tmp_path / "a.npz", images, labels)
    data = TensorDataset(*tensors)
    ways = [
        tensors, (images, labels), data, DataLoader(data, batch_size=7), DataLoader(data, batch_size=7, shuffle=True),
        (images.transpose(0, 3, 1, 2).astype(np.float32) / 255, labels),
    ]  # fmt: skip
    found = [given(way, 12).data for way in ways]
    assert len({one.fingerprint for one in found}) == 1 and found[0].size == 12
    assert given(tensors, None).data.size == 30


def test_a_model_given_is_given_back():
    net = api_models.Small().train()
    net.head.bias.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    torch.manual_seed(7)
    state = torch.get_rng_state()
    bench.evaluate(net, some(8), attacks=["pgd1"], **CPU)
    assert [module.training for module in net.modules()] == modes
    assert not net.head.bias.requires_grad and net.head.weight.requires_grad
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_training_mode_is_said_where_it_matters():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 8)
    )
    report = bench.evaluate(net.train(), some(8), attacks=(), **CPU)
    assert "it was in training mode: judged in eval mode" in report.flags and not report.stochastic
    assert net.training


def test_one_draw_of_a_randomised_model_says_nothing_of_others():
    """Of one shard: neither of its accuracy nor of what an attack believed. A deterministic model has one number."""
    labels = labels_of(np.arange(300))
    chances = np.full((300, 10), 0.03)
    chances[np.arange(300), labels] = 0.73
    noisy = numbers(votes_from(chances, np.arange(300), 1, 0, shard=300, claimed=0), True)
    for name in ("expected", "vote", "soft", "claimed"):
        found = getattr(noisy, name)
        assert (found.low, found.high) == (0, 1), name
    sure = numbers(votes_from(chances, np.arange(300), 1, 0, shard=300, claimed=0), False)
    assert sure.expected == sure.vote == sure.soft and sure.vote.high - sure.vote.low < 0.12
    assert sure.claimed.low > 0.9


def test_parts_of_the_images_are_joined_by_the_noise_that_they_met():
    """Parts by eps are judged by one seed: their shards of one number share every draw."""
    chances = np.full((50, 10), 0.1)
    parts = [votes_from(chances, np.arange(50) + 50 * k, 8, k, shard=20) for k in range(2)]
    whole = joined_(parts)
    check(whole)
    assert set(whole.shard) == {0, 1, 2} and (whole.draw_right == parts[0].draw_right + parts[1].draw_right).all()
    assert number(whole, "expected") is not None and joined_(parts[:1]) is parts[0]


# -- keys ---------------------------------------------------------------------------------


def test_a_module_is_known_by_its_numbers_its_source_and_its_answers():
    images = some(4)[0]
    from bench.api.model import asked

    def key(net, **more):
        return asked(net.eval(), images, **more).model.key

    net = api_models.Small()
    assert key(net) == key(api_models.Small())
    with torch.no_grad():
        net.head.bias += 1e-3
    assert key(net) != key(api_models.Small())

    class Other(api_models.Small):
        def forward(self, x):
            return super().forward(x) + 0

    assert key(Other()) != key(api_models.Small())
    scale = [1.0]
    function = lambda x, net=api_models.Small().eval(): net(x) * torch.tensor([scale[0], 1, 1, 1, 1, 1, 1, 1])  # noqa: E731
    first = asked(function, images).model.key
    scale[0] = -3.0
    assert asked(function, images).model.key != first


def test_what_no_suite_can_name_is_said():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 8))
    report = bench.evaluate(net, some(8), attacks=(), **CPU)
    assert report.suite().startswith("# images:") and "# missing: Sequential is a class of" in report.suite()


# -- what comes back ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def report():
    return bench.evaluate(api_models.Noisy(), some(20), attacks=["pgd2", "fgsm"], eot=2, draws=20, **CPU)


def test_it_prints_within_a_terminal(report):
    assert max(map(len, str(report).splitlines())) <= 80 and "pgd2" in str(report)
    assert isinstance(report.expected, bench.Number) and 0 <= float(report.expected) <= 1
    with pytest.raises(AttributeError):
        report.clean = None


def test_markdown_latex_and_html(report):
    from markdown_it import MarkdownIt

    html = MarkdownIt("commonmark").enable("table").render(report.to_markdown())
    assert html.count("<tr>") == 4
    tex = report.to_latex()
    assert tex.count("\\toprule") == tex.count("\\bottomrule") == 1 and "\\cite{madry2018towards,athalye2018" in tex
    rows = [line for line in tex.splitlines() if line.endswith("\\\\")]
    assert len({line.count("&") for line in rows}) == 1
    for key in ("madry2018towards", "athalye2018obfuscated"):
        assert f"{{{key}," in report.bibtex()
    assert "<svg" in report._repr_html_() and report._repr_html_().count("<tr>") == 4


def test_a_row_an_image(report):
    rows = report.images()
    assert len(rows) == 20 and abs(rows["clean.right"].mean() - report.clean.value) < 1e-9
    assert abs(rows["pgd2.right"].mean() - report.attacks["pgd2"].expected.value) < 1e-9


def test_two_reports_paired(report):
    other = bench.evaluate(api_models.Small(), some(20), attacks=["pgd2"], **CPU)
    found = bench.compare(report, other)
    assert set(found) == {"clean", "pgd2"} and found["clean"].n == 20
    assert abs(found["clean"].difference - (report.clean.value - other.clean.value)) < 1e-9
    mine = bench.compare(report, report)["clean"]
    assert (mine.difference, mine.p) == (0, 1)
    images, labels = some(20)
    with pytest.raises(bench.UserError, match="not the same images"):
        bench.compare(report, bench.evaluate(api_models.Small(), (images, 7 - labels), attacks=(), **CPU))


def test_out_goes_on_where_it_was(tmp_path):
    first = bench.evaluate(api_models.Small(), some(20), attacks=["pgd1"], out=tmp_path, **CPU)
    again = bench.evaluate(api_models.Small(), some(20), attacks=["pgd1", "fgsm"], out=tmp_path, **CPU)
    assert again.attacks["pgd1"] == first.attacks["pgd1"] and "fgsm" in again.attacks
    assert len(list(tmp_path.glob("results/records/*/*/votes.parquet"))) == 3


def test_an_interrupt_keeps_what_is_finished():
    calls = []

    def stops(model, images, labels, eps):
        calls.append(1)
        raise KeyboardInterrupt

    report = bench.evaluate(api_models.Small(), some(10), attacks=["pgd1", stops], **CPU)
    assert calls and report.attacks.keys() == {"pgd1"} and any("interrupted" in flag for flag in report.flags)


# -- the parts ----------------------------------------------------------------------------


def test_attack_and_judge_are_evaluate():
    images, labels = some(12)
    net = api_models.Small()
    made = bench.attack(net, (images, labels), "pgd2", device="cpu")
    assert made.images.shape == images.shape and (made.images - images).abs().max() <= 8 / 255 + 1e-6
    assert torch.equal(made.labels, labels) and made.index.tolist() == list(range(12))
    judged = bench.judge(net, (made.images, labels), **CPU)
    whole = bench.evaluate(net, (images, labels), attacks=["pgd2"], n=None, **CPU)
    assert judged.clean.n == 12 and 0 <= whole.expected.value <= 1
    assert torch.equal(made.claimed, net(made.images).argmax(1) != labels)


def test_diagnose_and_certify():
    net, (images, labels) = api_models.Small(), some(16)
    found = {
        one.check: one.verdict for one in bench.diagnose(net, (images, labels), "pgd5", n=16, queries=5, device="cpu")
    }
    assert found["gradients"] == found["randomness"] == "ok" and "large-eps" in found
    certified = bench.certify(net, (images, labels), 0.1, n0=10, draws=100, device="cpu")
    shares = [number.value for number in certified.accuracy.values()]
    assert shares == sorted(shares, reverse=True) and certified.accuracy[0.0].n == 16
    with pytest.raises(bench.UserError, match="cannot certify"):
        bench.certify(net, (images, labels), 0.1, n0=10, draws=5, device="cpu")


def test_peers_are_recipes_too():
    assert isinstance(recipes_of("foolbox.LinfPGD", Fraction(1, 255), "Linf", False)["foolbox.LinfPGD"], Peer)

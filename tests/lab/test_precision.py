"""`precision = "auto"`: one key everywhere, the faster arithmetic where it answers alike, and records that say so."""

import copy

import numpy as np
import pytest
import torch
from oracles import CPU, shard_of
from small import SUITE, go, session
from torch import nn

from bench.lab.attacks.losses import cross_entropy
from bench.lab.attacks.peers.fence import Drawn
from bench.lab.compute.head import restore, widen
from bench.lab.compute.passes import Compute
from bench.lab.compute.precision import IMAGES, WORTHWHILE, Fitting, answers_alike, gains, supported
from bench.lab.judge import judge
from bench.lab.streams import Streams
from bench.models.classifier import Plain
from bench.models.noise import ColoredNoise, Noisy
from bench.models.smoothing import Smoothed
from bench.models.wide_resnet import WideResNet
from bench.recipes import PGD, Examples, Model, Outcomes, Stopping, Trained
from bench.report.doubts import computed_in

AUTO = SUITE.replace("[protocol]", '[protocol]\nprecision = "auto"').replace("width = 1", "width = 2")
FAST = "bfloat16" if supported(CPU) else "float32"


def both(microbatch=512):
    return Compute(CPU, "float32", microbatch), Compute(CPU, "bfloat16", microbatch)


def linear():
    """A network whose answers to noise are of many classes."""
    torch.manual_seed(0)
    return Plain(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)), 10)


def test_a_network_that_answers_the_same_is_trusted():
    images = torch.rand(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert len(linear().net(images).argmax(1).unique()) > 4
    assert answers_alike(linear(), images, *both())


def test_both_precisions_see_one_draw():
    images = torch.rand(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model = Smoothed(linear(), 1.0)
    one, other = (model(images, torch.Generator().manual_seed(seed)).argmax(1) for seed in (0, 1))
    assert (one != other).sum() > IMAGES / 4
    assert answers_alike(model, images, *both())


def doubtful():
    """A network that lives by the last bits of its input, and images to show it."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2, bias=False))
    with torch.no_grad():
        net[1].weight.zero_()
        net[1].weight[0, 0] = net[1].weight[1, 1] = 1000
    return Plain(net, 2), 0.7 + 1e-4 * torch.rand(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_a_network_that_lives_by_the_last_bits_is_not():
    model, images = doubtful()
    assert not answers_alike(model, images, *both())


def test_where_it_gains():
    assert gains(CPU, WORTHWHILE) == supported(CPU)
    assert not gains(CPU, WORTHWHILE - 1) and not gains(torch.device("meta"), WORTHWHILE)


def records_of(root):
    """The outcomes of every cell, with the provenance of their records."""
    opened = session(root, AUTO)
    return [(cell.outcomes, opened.manifest(cell.outcomes)["provenance"]) for cell in opened.suite.cells()]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("auto")
    go(root, text=AUTO)
    return root


def test_the_record_says_what_auto_was(root):
    for outcomes, about in records_of(root):
        assert outcomes.precision == "auto" and about["precision"] == FAST
        if outcomes.examples.source is not None:
            assert about["crafting_precision"] == FAST
    text = (root / "results" / "small" / "tables.md").read_text()
    assert ("omputed in bfloat16, not float32" in text) == (FAST == "bfloat16")


def test_exact_is_float32_under_the_same_keys(tmp_path):
    go(tmp_path, text=AUTO, exact=True)
    found = records_of(tmp_path)
    assert found and all(about["precision"] == "float32" for _, about in found)
    assert "not float32" not in (tmp_path / "results" / "small" / "tables.md").read_text()


def test_the_precision_is_part_of_the_key_and_no_device_is():
    model = Model(weights=Trained())
    keys = {Outcomes(examples=Examples(), target=model, precision=word).key for word in ("float32", "bfloat16", "auto")}
    assert len(keys) == 3


def test_a_doubtful_model_is_computed_in_float32_and_that_is_said():
    notes = []
    model, images = doubtful()
    fitting, compute = Fitting(CPU, False, notes.append), Compute(CPU)
    fitting.settle("key", model)
    fitting._widest["key"] = WORTHWHILE
    fitting.suit(compute, "auto", "key", model, "data", lambda: images)
    assert compute.precision == "float32"
    assert any("otherwise in bfloat16" in note for note in notes) == supported(CPU)
    fitting.suit(compute, "bfloat16", "key", model, "data", lambda: images)
    assert compute.precision == "bfloat16", "what is declared is done"


def test_an_audit_of_auto_agrees(root):
    from bench.lab.examine.again import Again

    opened = session(root, AUTO)
    cell = next(c for c in opened.suite.cells() if c.source and not c.outcomes.target.stochastic)
    votes = opened.votes(cell.outcomes)
    rows = np.arange(5)
    record = opened.manifest(cell.outcomes)["provenance"]
    again = Again(opened.settings)
    assert again.mode(cell.outcomes, record) == "as recorded"
    assert again.votes(cell.outcomes, rows, record).counts.tolist() == votes.counts[rows].tolist()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_network_computes_the_same_with_one_graph(precision):
    """Draw after draw of noisy weights, parts of other sizes beside: one graph, the same logits and gradients."""
    import torch._dynamo
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    net = WideResNet(10, 1, generator=torch.Generator().manual_seed(0)).eval().requires_grad_(False)
    model = Noisy(net, ColoredNoise(net, generator=torch.Generator().manual_seed(1)).requires_grad_(False), 10)
    assert widen(model)  # its last layer in float32, compiled or not
    images = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(20) % 10

    def seen():
        compute, found = Compute(CPU, precision, microbatch=8), []
        for seed in range(3):
            realisation = model.realise(images.shape, torch.Generator().manual_seed(seed))
            found += [
                compute.logits(realisation, images),
                *compute.gradient(realisation, images, labels, cross_entropy),
            ]
        return found

    before, notes, counter = seen(), [], CompileCounterWithBackend("aot_eager")
    fitting = Fitting(CPU, False, notes.append)
    fitting.try_compiling(Compute(CPU, precision, microbatch=8), model, net, (20, 3, 32, 32), True, counter)
    after = seen()
    assert (after[0] != after[0].bfloat16().float()).any(), "no logits of 8 bits"
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 if precision == "float32" else 0.05, rtol=1e-4)
    assert counter.frame_count == 2 and not notes, "with and without a gradient"
    torch._dynamo.reset()


@pytest.mark.parametrize("when", ["forward", "backward"])
def test_a_compiler_that_fails_is_said_and_done_without(when):
    import torch._dynamo
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    torch._dynamo.reset()
    net = WideResNet(10, 1, generator=torch.Generator().manual_seed(0)).eval().requires_grad_(False)
    images, notes = torch.rand(2, 3, 32, 32), []
    before, plain = net(images), net.forward

    def broken(graph, inputs):
        raise OSError("no compiler here")

    def whole(graph, inputs):
        return make_boxed_func(graph.forward)

    backend = broken if when == "forward" else aot_autograd(fw_compiler=whole, bw_compiler=broken)
    Fitting(CPU, False, notes.append).try_compiling(Compute(CPU), Plain(net, 10), net, (2, 3, 32, 32), True, backend)
    assert len(notes) == 1 and "torch.compile failed" in notes[0]
    assert net.forward == plain
    torch.testing.assert_close(net(images), before)
    torch._dynamo.reset()


def test_a_record_of_two_precisions_says_both(tmp_path):
    """A run that began with --exact and goes on without: the parts differ, and so does what is said of them."""
    from runs import part_of_a_run

    part_of_a_run(tmp_path, 13, text=AUTO, exact=True)
    go(tmp_path, text=AUTO)
    said = {about["precision"] for _, about in records_of(tmp_path)}
    assert any("float32" in words for words in said) and any(FAST in words for words in said)


def test_a_number_of_two_precisions_is_marked_by_both():
    examples = Examples(source=Model(weights=Trained()), attack=PGD(), precision="auto")
    outcomes = Outcomes(examples=examples, target=Model(weights=Trained()), precision="auto")
    about = {"provenance": {"precision": "bfloat16, float32", "crafting_precision": "float32"}}
    assert computed_in(outcomes, about) == {"bfloat16", "float32"}
    assert computed_in(outcomes, None) == {"auto"}


def near_tie():
    """Images whose two best logits are closer than 8 bits of mantissa tell apart, the higher class ahead."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 64, bias=False), nn.ReLU(), nn.Linear(64, 10))
    with torch.no_grad():
        net[1].weight.fill_(1 / 3072)
        net[3].weight.fill_(0.01)
        net[3].bias.zero_()
        net[3].bias[7] = 2e-3
        net[3].weight[:] *= 16 / float(net[3](torch.full((1, 64), 0.5))[0, 0])
    return Plain(net.eval().requires_grad_(False), 10), torch.full((4, 3, 32, 32), 0.5)


@pytest.mark.parametrize("noisy", [False, True])
def test_logits_do_not_tie_in_bfloat16(noisy):
    """All ten logits round to one number in bfloat16, and class 0 won every image."""
    model, images = near_tie()
    source = Smoothed(model, 1e-6) if noisy else model
    fitting, compute = Fitting(CPU, False, pytest.fail), Compute(CPU)
    fitting.settle("m", source)
    tied = Compute(CPU, "bfloat16")
    draw = source.realise(images.shape, torch.Generator().manual_seed(0))
    assert (tied.logits(draw, images).argmax(1) == 0).all()
    fitting.suit(compute, "bfloat16", "m", source, "data", images=lambda: images)
    assert compute.precision == "bfloat16"
    logits = compute.logits(draw, images)
    assert (logits.argmax(1) == 7).all() and logits.dtype == torch.float32
    _, slope, said = compute.gradient(draw, images, torch.zeros(4, dtype=torch.long), cross_entropy)
    assert (said.argmax(1) == 7).all() and slope.isfinite().all()
    labels = torch.zeros(4, dtype=torch.long)
    lent = Drawn(source, Streams(0, 0, CPU), compute)  # what other libraries' attacks call
    assert (lent(images).argmax(1) == 7).all()
    votes = judge(source, shard_of(images, labels), 2, Stopping(), Streams(0, 0, CPU), compute)
    assert (votes.counts.argmax(1) == 7).all() and (votes.soft == 7).all()
    fitting.teach("m", source)  # training keeps its arithmetic
    assert (compute.logits(draw, images).argmax(1) == 0).all()


def test_only_the_last_layer_is_computed_in_float32():
    torch.manual_seed(0)
    net = WideResNet(10, 1).eval()
    model = Noisy(net, ColoredNoise(net), 10).eval().requires_grad_(False)
    seen = {}
    assert widen(model) and widen(model)
    for name in ("conv1", "fc"):
        net.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.dtype}))
    images = torch.rand(2, 3, 32, 32)
    draw = model.realise(images.shape, torch.Generator().manual_seed(0))
    assert Compute(CPU, "bfloat16").logits(draw, images).isfinite().all()
    assert seen == {"conv1": torch.bfloat16, "fc": torch.float32}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    restore(model)
    assert "forward" not in vars(net.fc) and before.keys() == model.state_dict().keys()


def test_a_copy_computes_with_its_own_last_layer():
    model, images = near_tie()
    assert widen(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.net[3].weight.zero_()
        other.net[3].bias.copy_(torch.arange(10.0))
    low = Compute(CPU, "bfloat16")
    assert (low.logits(other.realise(images.shape), images) == torch.arange(10.0)).all()
    assert (low.logits(model.realise(images.shape), images).argmax(1) == 7).all()
    restore(other)
    assert "forward" not in vars(other.net[3]) and "forward" in vars(model.net[3])


def test_a_network_that_ends_in_something_else_is_said_and_is_float32_where_it_may_be():
    notes = []
    pairs = nn.Unflatten(1, (10, 2)), nn.AvgPool1d(2), nn.Flatten()
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 20), *pairs)
    model = Plain(net.eval().requires_grad_(False), 10)
    fitting, compute = Fitting(CPU, False, notes.append), Compute(CPU)
    fitting.settle("m", model)
    fitting.suit(compute, "bfloat16", "m", model, "data", images=lambda: torch.rand(64, 3, 32, 32))
    assert compute.precision == "bfloat16" and "may tie" in notes[0]
    fitting.suit(compute, "auto", "m", model, "data", images=lambda: torch.rand(64, 3, 32, 32))
    assert compute.precision == "float32"

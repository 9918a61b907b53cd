"""The published defences: the laws that all keep, and each against its formula."""

import math
import os
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.adapters import slwta as published
from bench.models.classifier import Classifier, Plain
from bench.models.defences import (
    CTRW,
    RNA,
    RND,
    RPF,
    SAP,
    SLWTA,
    WCA,
    CropEnsemble,
    LWTAWideResNet,
    Mixture,
    RandomFeatures,
    RandomPrecision,
    ResizePad,
)
from bench.models.defences.base import PerImage, altered, fed
from bench.models.defences.precision import levels
from bench.models.defences.slwta import LWTA, compete
from bench.models.wide_resnet import WideResNet


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wrn(seed: int = 0) -> WideResNet:
    net = WideResNet(10, 1, generator=seeded(seed)).eval()
    for i, module in enumerate(net.modules()):  # statistics and slopes that are not those of a new network
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=seeded(seed + i))
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.2, generator=seeded(seed + i + 1))
    return net


MAKERS: dict[str, Callable[[], Classifier]] = {
    "rnd": lambda: RND(Plain(wrn(), 10)),
    "features": lambda: RandomFeatures(wrn(), 10, 0.3),
    "laplace": lambda: RandomFeatures(wrn(), 10, 0.3, law="laplace"),
    "resize-pad": lambda: ResizePad(Plain(wrn(), 10)),
    "crops": lambda: CropEnsemble(Plain(wrn(), 10)),
    "sap": lambda: SAP(wrn(), 10),
    "precision": lambda: RandomPrecision(wrn(), 10, 1, 3),
    "mixture": lambda: Mixture(Plain(wrn(), 10), Plain(wrn(50), 10), 0.5),
    "rna": lambda: RNA(wrn(), 10),
    "rpf": lambda: RPF(wrn(), 10),
    "ctrw": lambda: CTRW(wrn(), 10),
    "ctrw inside": lambda: CTRW(wrn(), 10, 2),
    "wca": lambda: WCA(wrn(), 10, generator=seeded(3)),
    "slwta": lambda: SLWTA(LWTAWideResNet(10, 1, generator=seeded(0)), 10),
    "input over weights": lambda: CropEnsemble(RPF(wrn(), 10)),
}
TRAINED = ["rna", "rpf", "ctrw", "ctrw inside", "wca", "slwta"]


def made(kind: str) -> Classifier:
    return MAKERS[kind]().eval().requires_grad_(False)


def pictures(n: int = 5, seed: int = 1) -> Tensor:
    return torch.rand(n, 3, 32, 32, generator=seeded(seed))


# -- what all of them keep -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS)
def test_a_draw_is_a_function_of_its_generator_alone(kind: str) -> None:
    defence, x = made(kind), pictures()
    before = torch.get_rng_state()
    draws = [defence(x, seeded(seed)) for seed in range(8)]
    assert torch.equal(torch.get_rng_state(), before), "the global generator was drawn from"
    assert torch.equal(defence(x, seeded(3)), draws[3])
    assert defence.stochastic and any((draw - draws[0]).abs().max() > 1e-4 for draw in draws[1:])
    with pytest.raises(ValueError, match="generator"):
        defence.realise(x.shape, None)


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_rows_meet_the_noise_that_they_meet_among_all(kind: str, data: st.DataObject) -> None:
    defence, x = made(kind), pictures()
    rows = data.draw(st.lists(st.integers(0, len(x) - 1), min_size=1, max_size=len(x), unique=True))
    realisation = defence.realise(x.shape, seeded(7))
    whole = realisation(x)
    torch.testing.assert_close(realisation(x[rows], torch.tensor(rows)), whole[rows], atol=1e-5, rtol=1e-5)
    cut = slice(rows[0] // 2, rows[0] + 1)
    torch.testing.assert_close(realisation(x[cut], cut), whole[cut], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", MAKERS)
def test_where_the_noise_lives_is_what_it_says(kind: str) -> None:
    """Two equal images of a batch meet one draw if the batch shares it, and two if it does not."""
    defence = made(kind)
    assert defence.where is not None
    twins = pictures(1).expand(2, -1, -1, -1)
    apart = max(float((defence(twins, seeded(s)).diff(dim=0)).abs().max()) for s in range(6))
    mixed = kind == "input over weights"
    assert (apart < 1e-4) == (defence.where.shared and not mixed)
    assert bool(defence.where.redraw) == defence.where.held


@pytest.mark.parametrize("kind", MAKERS)
def test_gradients_reach_the_images_and_the_network_is_as_it_was(kind: str) -> None:
    defence, x = made(kind), pictures().requires_grad_()
    state = {name: tensor.clone() for name, tensor in defence.state_dict().items()}
    (slope,) = torch.autograd.grad(defence(x, seeded(2)).logsumexp(1).sum(), x)
    assert slope.isfinite().all() and (slope.flatten(1).abs().amax(1) > 0).all()
    assert all(torch.equal(tensor, state[name]) for name, tensor in defence.state_dict().items())
    assert not any("forward" in vars(module) for module in defence.modules())


@pytest.mark.parametrize("kind", MAKERS)
def test_the_mean_network_is_deterministic_and_has_a_gradient(kind: str) -> None:
    mean, x = made(kind).mean(), pictures().requires_grad_()
    assert not mean.stochastic
    logits = mean(x)
    assert torch.equal(logits, mean(x)) and logits.shape == (5, 10)
    (slope,) = torch.autograd.grad(logits.logsumexp(1).sum(), x)
    assert slope.isfinite().all() and slope.abs().max() > 0


@pytest.mark.parametrize("kind", TRAINED)
def test_training_moves_what_the_defence_has_of_its_own_and_its_state_goes_round(kind: str) -> None:
    defence, x = MAKERS[kind]().train(), pictures(8)
    before = {name: p.detach().clone() for name, p in defence.named_parameters()}
    optimiser = torch.optim.SGD(defence.parameters(), lr=0.05)
    for step in range(8):
        loss = F.cross_entropy(defence(x, seeded(step)), torch.arange(8))
        extra = defence.penalty()
        (loss if extra is None else loss + 0.1 * extra).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    own = [name for name, _ in defence.named_parameters() if not name.startswith("net.")]
    assert all(not torch.equal(defence.get_parameter(name), before[name]) for name in own)
    assert own or kind in ("rpf", "slwta")
    other = MAKERS[kind]()
    other.load_state_dict(defence.state_dict())
    assert torch.equal(other.eval()(x, seeded(9)), defence.eval()(x, seeded(9)))


def test_an_error_inside_leaves_the_network_as_it_was() -> None:
    net = wrn()
    with pytest.raises(RuntimeError), altered(net, fed(net, ("conv1", "fc"), lambda h: h[:, :1])):
        net(pictures())
    assert not any("forward" in vars(module) for module in net.modules())


def test_an_image_has_numbers_of_its_own() -> None:
    noise = PerImage(6, seeded(0))
    like = torch.empty(6, 20_000)
    z, u = noise.stream(None).normal(like), noise.stream(None).uniform(like)
    assert abs(z.mean()) < 4.5 / math.sqrt(z.numel()) and abs(z.std() - 1) < 4.5 / math.sqrt(2 * z.numel())
    assert abs(u.mean() - 0.5) < 4.5 / math.sqrt(12 * u.numel()) and u.min() >= 0 and u.max() < 1
    assert torch.corrcoef(z).fill_diagonal_(0).abs().max() < 4.5 / math.sqrt(20_000)
    stream = noise.stream(slice(2, 4))
    first, second = stream.normal(like[:2]), stream.normal(like[:2])
    assert torch.equal(first, z[2:4]) and not torch.equal(first, second)


def test_stages_are_found_in_the_networks_of_the_field() -> None:
    from bench.models.adapters import autoattack_example

    assert RandomFeatures(WideResNet(16, 1), 10).sites == ("blocks.0", "blocks.2", "blocks.4")
    resnet = autoattack_example.load()
    assert RandomFeatures(resnet.net, 10).sites == ("layer1", "layer2", "layer3", "layer4")
    assert len(RandomPrecision(resnet.net, 10).sites) == 16  # two for each of eight blocks: no stem, no shortcut
    with pytest.raises(ValueError, match="no stages"):
        RandomFeatures(nn.Linear(2, 2), 2)
    with pytest.raises(ValueError, match="no module"):
        RandomFeatures(resnet.net, 10, sites=("layer9",))


# -- each against its formula ---------------------------------------------------------------------


class Pixels(nn.Module):
    """Logits that are the image."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images).flatten(1)


def moments(values: Tensor, mean: float, std: float, kurtosis: float = 3.0) -> None:
    """Mean and standard deviation within 4.5 of their standard errors."""
    n = values.numel()
    assert abs(values.mean().item() - mean) < 4.5 * std / math.sqrt(n)
    assert abs(values.var().item() / std**2 - 1) < 4.5 * math.sqrt((kurtosis - 1) / n)


@pytest.mark.parametrize("nu", [0.02, 0.05])
def test_rnd_adds_unclipped_gaussian_noise(nu: float) -> None:
    x = torch.ones(40, 3, 32, 32)
    noise = RND(Plain(Pixels(), 3072), nu)(x, seeded(0)) - 1
    moments(noise, 0, nu)
    assert noise.max() > nu, "the noise must not be clipped"
    assert torch.corrcoef(noise[:8]).fill_diagonal_(0).abs().max() < 4.5 / math.sqrt(3072)


@pytest.mark.parametrize("law, std, kurtosis", [("gaussian", 1.0, 3.0), ("laplace", math.sqrt(2), 6.0)])
def test_random_features_add_noise_of_their_law(law: str, std: float, kurtosis: float) -> None:
    x = pictures(60)
    defence = RandomFeatures(Pixels(), 3072, 0.1, ("inner",), law)  # type: ignore[arg-type]
    z = (defence(x, seeded(0)) - x.flatten(1)) / 0.1
    moments(z, 0, std, kurtosis)
    fourth = float((z / std).double().pow(4).mean())
    assert fourth == pytest.approx(kurtosis, abs=0.1 if law == "gaussian" else 0.6)


def test_random_features_enter_every_stage_and_nothing_else() -> None:
    net, x, entered = wrn(), pictures(2), list[str]()
    defence = RandomFeatures(net, 10, 0.5)
    for name in ("blocks.0", "blocks.1", "blocks.2", "bn"):
        net.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: entered.append(name))
    with torch.no_grad():
        h = net.conv1((x - net.mean) / net.std)
        stream = PerImage(2, seeded(4)).stream(None)
        for block in net.blocks:
            h = block(h + 0.5 * stream.normal(h))
        logits = net.fc(F.relu(net.bn(h)).mean((2, 3)))
        torch.testing.assert_close(defence(x, seeded(4)), logits)
    assert entered[-4:] == ["blocks.0", "blocks.1", "blocks.2", "bn"]


def test_resize_and_pad_by_hand() -> None:
    defence = ResizePad(Plain(Pixels(), 4800))
    x = pictures(2)
    placed = defence.placed(x, [32, 36], [[3, 7], [0, 3]])
    assert placed.shape == (2, 3, 40, 40)
    assert torch.equal(placed[0, :, 3:35, 7:39], x[0])
    expected = F.interpolate(x[1:], (36, 36), mode="bilinear", align_corners=False)[0]
    assert torch.equal(placed[1, :, 0:36, 3:39], expected)
    placed[0, :, 3:35, 7:39] = placed[1, :, 0:36, 3:39] = 0.5
    assert (placed == 0.5).all()


def test_resize_and_pad_draws_every_size_and_corner_of_its_law() -> None:
    seen: list[tuple[int, int, int]] = []

    class Watched(ResizePad):
        def placed(self, images: Tensor, sizes: list[int], corners: list[list[int]]) -> Tensor:
            seen.extend((size, *corner) for size, corner in zip(sizes, corners, strict=True))
            return torch.zeros(len(images), 3, 40, 40)

    Watched(Plain(Pixels(), 4800))(torch.zeros(8000, 3, 4, 4), seeded(0))
    sizes = torch.tensor([size for size, _, _ in seen])
    counts = torch.bincount(sizes, minlength=40)[32:].float()
    assert len(counts) == 8 and ((counts - 1000).abs() < 4.5 * math.sqrt(1000)).all()
    for size in range(32, 40):
        found = {(top, left) for s, top, left in seen if s == size}
        assert found == {(top, left) for top in range(40 - size) for left in range(40 - size)}


def test_crops_by_hand_and_by_law() -> None:
    exact = CropEnsemble(Plain(Pixels(), 3072), eight_bit=False)
    x = pictures(2)
    cropped = exact.cropped(x, [32, 24], [[0, 0], [8, 3]])
    assert torch.equal(cropped[0], x[0])
    expected = F.interpolate(x[1:, :, 8:32, 3:27], (32, 32), mode="bilinear", align_corners=False)[0]
    assert torch.equal(cropped[1], expected)
    seen: list[tuple[int, int, int]] = []

    class Watched(CropEnsemble):
        def cropped(self, images: Tensor, sizes: list[int], corners: list[list[int]]) -> Tensor:
            seen.extend((size, *corner) for size, corner in zip(sizes, corners, strict=True))
            return images

    Watched(Plain(Pixels(), 3072))(torch.zeros(9000, 1, 32, 32), seeded(0))
    counts = torch.bincount(torch.tensor([size for size, _, _ in seen]), minlength=33)[24:].float()
    assert len(counts) == 9 and ((counts - 1000).abs() < 4.5 * math.sqrt(1000)).all()
    for size in range(24, 33):
        tops, lefts = ({row[i] for row in seen if row[0] == size} for i in (1, 2))
        assert tops == lefts == set(range(33 - size))


def test_eight_bits_round_forward_and_pass_the_gradient_as_if_they_were_not_there() -> None:
    x, slopes = pictures(3), []
    for eight_bit in (True, False):
        defence, leaf = CropEnsemble(Plain(Pixels(), 3072), eight_bit=eight_bit), x.clone().requires_grad_()
        out = defence(leaf, seeded(1))
        assert torch.allclose(out * 255, (out * 255).round(), atol=1e-4) == eight_bit
        slopes.append(torch.autograd.grad((out * torch.arange(3072.0)).sum(), leaf)[0])
    assert torch.equal(*slopes)


def test_sap_keeps_with_its_probability_and_leaves_the_mean() -> None:
    defence = SAP(nn.Conv2d(1, 1, 1), 1)
    r = torch.randn(1, 3, 2, 2, generator=seeded(0))
    q = 1 - torch.exp(-2 * 12 * r.abs() / r.abs().sum())
    draws = 20_000
    found = defence.pruned(r.expand(draws, -1, -1, -1), PerImage(draws, seeded(1)).stream(None))
    kept = found != 0
    torch.testing.assert_close(found, torch.where(kept, r / (q + 1e-8), 0.0), atol=1e-5, rtol=1e-5)
    error = (q * (1 - q) / draws).sqrt()[0]
    assert ((kept.float().mean(0) - q[0]).abs() < 4.5 * error).all()
    assert ((found.mean(0) - r[0]).abs() < 4.5 * error * (r / q)[0].abs()).all()


def test_sap_differentiates_through_its_probabilities_or_past_them() -> None:
    r = torch.randn(2, 3, 4, 4, generator=seeded(0), dtype=torch.float64).requires_grad_()

    def pruned(r: Tensor, gradient: str) -> Tensor:
        defence = SAP(nn.Conv2d(1, 1, 1), 1, gradient=gradient)  # type: ignore[arg-type]
        return defence.pruned(r, PerImage(2, seeded(3)).stream(None))

    assert torch.autograd.gradcheck(lambda r: pruned(r, "exact"), (r,))
    assert torch.equal(pruned(r, "exact"), pruned(r, "straight")) or torch.allclose(
        pruned(r, "exact"), pruned(r, "straight"), atol=1e-12
    )
    (slope,) = torch.autograd.grad(pruned(r, "straight").sum(), r)
    assert torch.equal(slope, torch.ones_like(r))


@settings(max_examples=30, deadline=None)
@given(bits=st.integers(1, 12), seed=st.integers(0, 1000))
def test_levels_are_evenly_spaced_between_the_extremes(bits: int, seed: int) -> None:
    x = torch.randn(2, 3, 5, 5, generator=seeded(seed)).requires_grad_()
    rounded = levels(x, bits)
    for row, before in zip(rounded.detach(), x.detach(), strict=True):
        step = (before.max() - before.min()) / (2**bits - 1)
        assert (row - before).abs().max() <= step / 2 + 1e-5
        places = (row - before.min()) / step
        assert (places - places.round()).abs().max() < 0.02
        assert row.max() == pytest.approx(float(before.max()), abs=1e-5)
    assert torch.equal(torch.autograd.grad(rounded.sum(), x)[0], torch.ones_like(x))


def test_random_precision_has_thirteen_atoms_and_draws_them_alike() -> None:
    defence, x = RandomPrecision(wrn(), 10).eval(), pictures(2)
    assert defence.sites == tuple(f"blocks.{i}.conv{j}" for i in range(3) for j in (1, 2))
    atoms = defence.atoms()
    assert len(atoms) == 13 and sum(atom.chance for atom in atoms) == pytest.approx(1)
    with torch.no_grad():
        answers = torch.stack([atom.realisation(x) for atom in atoms])
        full = defence.mean()(x)
        assert (answers[-1] - full).abs().max() < 1e-2 * (answers[0] - full).abs().max()
        draws = [defence(x, seeded(seed)) for seed in range(260)]
    which = [int((answers - draw).abs().amax((1, 2)).argmin()) for draw in draws]
    assert all(torch.equal(answers[i], draw) for i, draw in zip(which, draws, strict=True))
    counts = torch.bincount(torch.tensor(which), minlength=13)
    assert ((counts - 20).abs() < 4.5 * math.sqrt(20)).all()


def test_precision_reaches_weights_and_inputs_but_not_stem_and_shortcuts() -> None:
    net, x = wrn(), pictures(2)
    with torch.no_grad():
        h = net.conv1((x - net.mean) / net.std)
        for block in net.blocks:
            active = F.relu(block.bn1(h))
            stride = block.conv1.stride
            inner = F.conv2d(levels(active, 3), levels(block.conv1.weight, 3), stride=stride, padding=1)
            inner = F.conv2d(levels(F.relu(block.bn2(inner)), 3), levels(block.conv2.weight, 3), padding=1)
            h = inner + (h if block.sc is None else block.sc(active))
        expected = net.fc(F.relu(net.bn(h)).mean((2, 3)))
        found = RandomPrecision(net, 10, 3, 3)(x, seeded(0))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_mixture_is_one_of_its_networks_and_its_mean_their_mean_softmax() -> None:
    first, second, x = Plain(wrn(), 10), Plain(wrn(50), 10), pictures(3)
    mixture = Mixture(first, second, 0.9).eval()
    with torch.no_grad():
        one, other = first(x), second(x)
        draws = [mixture(x, seeded(seed)) for seed in range(400)]
        assert all(torch.equal(draw, one) or torch.equal(draw, other) for draw in draws)
        share = sum(torch.equal(draw, one) for draw in draws) / 400
        assert abs(share - 0.9) < 4.5 * math.sqrt(0.09 / 400)
        assert [atom.chance for atom in mixture.atoms()] == pytest.approx([0.9, 0.1])
        assert torch.equal(mixture.atoms()[1].realisation(x), other)
        mean = mixture.mean()(x).softmax(1)
        torch.testing.assert_close(mean, 0.9 * one.softmax(1) + 0.1 * other.softmax(1), atol=1e-6, rtol=1e-5)
    nested = Mixture(mixture, RandomPrecision(wrn(), 10), 0.5)
    assert len(nested.atoms()) == 15 and sum(atom.chance for atom in nested.atoms()) == pytest.approx(1)
    assert Mixture(RND(first), second).atoms() == ()
    assert Mixture(first, second, 1.0).mean()(x).isfinite().all()


def test_rna_draws_a_path_of_batch_and_instance_normalisations() -> None:
    net, x = wrn(), pictures(3)
    defence = RNA(net, 10).eval()
    for i, other in enumerate(defence.others):
        other.weight.data.uniform_(0.5, 1.5, generator=seeded(i))
    atoms = defence.atoms()
    assert len(atoms) == 2**7 and sum(atom.chance for atom in atoms) == pytest.approx(1)
    with torch.no_grad():
        assert torch.equal(defence.path([False] * 7)(x), net(x))
        swapped = wrn()
        for name, other in zip(defence.sites, defence.others, strict=True):
            parent, _, leaf = name.rpartition(".")
            instance = nn.InstanceNorm2d(other.num_channels, affine=True)
            instance.load_state_dict(other.state_dict())
            setattr(swapped.get_submodule(parent), leaf, instance)
        torch.testing.assert_close(defence.path([True] * 7)(x), swapped(x), atol=1e-5, rtol=1e-4)
        answers = torch.stack([atom.realisation(x) for atom in atoms])
        draws = [defence(x, seeded(seed)) for seed in range(40)]
    assert all((answers == draw).all((1, 2)).any() for draw in draws)
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) > 25
    large = RNA(WideResNet(16, 1), 10)
    assert large.atoms() == (), "8,192 paths are not listed"


def test_rna_in_training_moves_the_statistics_of_what_was_drawn_alone() -> None:
    net = wrn()
    defence = RNA(net, 10).train()
    before = {name: net.get_submodule(name).running_mean.clone() for name in defence.sites}
    path = [False, True] * 3 + [False]
    defence.path(path)(pictures(4))
    moved = [not torch.equal(net.get_submodule(name).running_mean, before[name]) for name in defence.sites]
    assert moved == [not instance for instance in path]


def test_rpf_replaces_three_quarters_of_the_first_filters() -> None:
    net, x = wrn(), pictures(2)
    defence = RPF(net, 10).eval()
    assert defence.site == "conv1.weight" and defence.learned == 4
    seen: list[Tensor] = []
    handle = net.conv1.register_forward_pre_hook(lambda module, _: seen.append(module.weight.detach().clone()))
    with torch.no_grad():
        for seed in range(300):
            defence(x[:1, :, :4, :4], seeded(seed))
        handle.remove()
        stack = torch.stack(seen)
        own = net.conv1.weight[:4].detach()
        expected = own / (own.flatten(1).std(1) + 1e-5).view(-1, 1, 1, 1) / 3
        torch.testing.assert_close(stack[:, :4], expected.expand(300, -1, -1, -1, -1))
        moments(stack[:, 4:], 0, 1 / 3)
        zero = torch.cat([expected, torch.zeros(12, 3, 3, 3)])
        mean = defence.mean()(x)
        net.conv1.weight.copy_(zero)
        torch.testing.assert_close(mean, net(x))
    with pytest.raises(ValueError, match="filters to learn"):
        RPF(net, 10, 0.99)


def test_ctrw_multiplies_by_a_shared_factor() -> None:
    net, x = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.Flatten()), pictures(4) + 0.5
    nn.init.dirac_(net[0].weight)
    defence = CTRW(net, 3072).eval()
    with torch.no_grad():
        defence.noise["mu"].fill_(1.5)
        factors = torch.stack([defence(x, seeded(seed)) for seed in range(20)]) / x.flatten(1)
        assert (factors - factors[:, :1]).abs().max() < 1e-4, "one z for all images"
        moments(factors[:, 0], 1.5, 1.0)
        torch.testing.assert_close(defence.mean()(x), 1.5 * x.flatten(1))


def test_ctrw_stands_after_the_normalisation_of_a_network() -> None:
    net, x = wrn(), pictures(2)
    defence = CTRW(net, 10).eval()
    with torch.no_grad():
        factor = torch.rand(3, 32, 32, generator=seeded(0))
        found = defence.given(factor)(x)
        changed = ((x - net.mean) / net.std * factor) * net.std + net.mean
        torch.testing.assert_close(found, net(changed), atol=1e-4, rtol=1e-4)


def test_ctrw_lifts_what_is_below_its_floor() -> None:
    defence = CTRW(wrn(), 10)
    assert defence.floor == pytest.approx(2 / 3)
    inner = CTRW(WideResNet(10, 10), 10, 2)
    assert inner.noise["sigma"].shape == (160, 32, 32) and inner.floor == pytest.approx(0.0125)
    with torch.no_grad():
        sigma = defence.noise["sigma"]
        sigma.fill_(0.9)
        sigma[0, 0, :2] = 0.1
        sigma[0, 1, 0] = 0.3
        lifted = defence.spread()
    assert (lifted[0, 0, :2] - 2 / 3).abs().max() < 1e-6
    assert float(lifted[0, 1, 0]) == pytest.approx(0.3 + 2 / 3 - 0.1)
    assert float(lifted[1, 1, 1]) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="position"):
        CTRW(wrn(), 10, 4)


def test_wca_logits_have_the_declared_mean_and_covariance() -> None:
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), pictures(1)[:, :, :2, :2]
    defence = WCA(net, 4, 8, generator=seeded(0)).eval()
    with torch.no_grad():
        logits = torch.cat([defence(x, seeded(seed)) for seed in range(4000)]).double()
        mean = defence.mean()(x)[0].double()
        factor = defence.noise["factor"].double()
        assert torch.equal(factor, factor.tril()) and factor.min() >= 0 and factor.max() < 1
        spread = defence.out.weight.double() @ factor
        expected = spread @ spread.T
        assert ((logits.mean(0) - mean).abs() < 4.5 * (expected.diag() / 4000).sqrt()).all()
        error = ((torch.outer(expected.diag(), expected.diag()) + expected**2) / 4000).sqrt()
        assert ((logits.T.cov() - expected).abs() < 4.5 * error).all()
        assert float(defence.penalty()) == pytest.approx(-math.log(float(expected.trace())), rel=1e-5)
        by_hand = defence.out(F.relu(defence.squeeze(x.flatten(1))))
        torch.testing.assert_close(defence.mean()(x), by_hand)
    with pytest.raises(ValueError, match="linear layer"):
        WCA(nn.Flatten(), 4)


@pytest.mark.parametrize("tau", [0.67, 0.01])
def test_lwta_is_the_gumbel_softmax_over_pairs(tau: float) -> None:
    """One logistic number a pair has the law of the difference of two Gumbel variables."""
    from scipy.stats import ks_2samp

    n, pair = 6000, torch.tensor([0.8, -0.3])
    gumbel = -torch.log(-torch.log(torch.rand(n, 2, generator=seeded(0)).double()))
    theirs = ((pair + gumbel) / tau).softmax(1)[:, 0]
    h = pair.expand(n, 2).reshape(n, 2, 1, 1)
    noise = torch.logit(torch.rand(n, 1, 1, 1, generator=seeded(1)), 2.0**-25)
    ours = compete(h, noise, tau).flatten(1).double()
    assert ks_2samp(theirs.numpy().round(4), (ours[:, 0] / 0.8).numpy().round(4)).pvalue > 1e-3
    torch.testing.assert_close(ours[:, 1], -0.3 * (1 - ours[:, 0] / 0.8), atol=1e-6, rtol=1e-5)
    if tau == 0.01:  # the mean share tends to the logistic function of the difference
        share = float(torch.sigmoid(pair[0] - pair[1]))
        assert abs(float(ours[:, 0].mean()) / 0.8 - share) < 4.5 * math.sqrt(share * (1 - share) / n)
    gate = LWTA()(h[:1]).flatten()
    assert torch.allclose(gate, pair * torch.tensor([share := torch.sigmoid(torch.tensor(1.1)), 1 - share]))


def test_slwta_is_hotter_in_training_and_each_pixel_has_its_own_contest() -> None:
    defence, x = SLWTA(LWTAWideResNet(10, 1, generator=seeded(0)), 10).eval(), pictures(2)
    inside: list[Tensor] = []
    handle = defence.net.block1.layer[0].conv1.register_forward_pre_hook(lambda _, i: inside.append(i[0].detach()))
    defence(x, seeded(0))
    won = (inside[0].unflatten(1, (8, 2)).abs() > 1e-6).sum(2)
    assert (won == 1).float().mean() > 0.9, "at 0.01 nearly every contest has one winner"
    assert 0.2 < (inside[0][:, ::2].abs() > 1e-6).float().mean() < 0.8
    defence.train()(x, seeded(0))
    won = (inside[1].unflatten(1, (8, 2)).abs() > 1e-6).sum(2)
    assert (won == 2).float().mean() > 0.9
    handle.remove()


def test_the_plain_module_of_the_suite_is_the_same_defence() -> None:
    """suites/slwta_plain.py, with the weights of a new network: mean logits differ by no more than chance."""
    spec = spec_from_file_location("slwta_plain", Path(__file__).parents[2] / "suites" / "slwta_plain.py")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(module := module_from_spec(spec))
    ours, plain = LWTAWideResNet(34, 1, generator=seeded(0), spare=True), module.Net().eval()
    plain.load_state_dict(ours.state_dict())
    x, draws = pictures(1), 30
    defence, generator = SLWTA(ours, 10).eval(), seeded(1)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        theirs = torch.stack([plain(x) for _ in range(draws)])
        mine = torch.stack([defence(x, generator) for _ in range(draws)])
    error = ((theirs.var(0) + mine.var(0)) / draws).sqrt()
    assert ((theirs.mean(0) - mine.mean(0)).abs() < 4.5 * error).all() and (error > 0).all()
    assert torch.allclose(theirs.std(0).mean(), mine.std(0).mean(), rtol=0.4)


# -- the published checkpoint ----------------------------------------------------------------------


def layout() -> set[str]:
    """The names that the published checkpoint holds, as its documentation lists them."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = {"conv1.weight", "fc.weight", "fc.bias", "lwta.temp"} | {f"bn1.{part}" for part in norm}
    for group in ("block1", "sub_block1", "block2", "block3"):
        for i in range(5):
            block = f"{group}.layer.{i}"
            names |= {f"{block}.{part}" for part in ("conv1.weight", "conv2.weight", "lwta1.temp", "lwta2.temp")}
            names |= {f"{block}.{bn}.{part}" for bn in ("bn1", "bn2") for part in norm}
    return names | {f"{group}.layer.0.convShortcut.weight" for group in ("block2", "block3")}


def test_a_checkpoint_of_the_published_layout_is_read(tmp_path: Path) -> None:
    net = LWTAWideResNet(34, 1, generator=seeded(5), spare=True).eval()
    assert set(net.state_dict()) == layout()
    file = tmp_path / "ckpt.pt"
    torch.save({"model_state_dict": net.state_dict(), "epoch": 3}, file)
    loaded = published.load(file)
    assert loaded.classes == 10 and loaded.files == (file,) and isinstance(loaded.net, SLWTA)
    x = pictures(2)
    with torch.no_grad():
        assert torch.equal(loaded.net.mean()(x), net(x))
        assert (loaded.net(x, seeded(0)) - net(x)).abs().max() > 1e-3
    torch.save({"model_state_dict": {"conv1.weight": torch.zeros(1)}}, file)
    with pytest.raises(ValueError, match="no checkpoint of a wide residual network"):
        published.load(file)
    state = net.state_dict() | {"conv1.weight": torch.zeros(16, 3, 5, 5)}
    torch.save(state, file)
    with pytest.raises(ValueError, match="does not fit"):
        published.load(file)
    for missing in (None, tmp_path / "nowhere.pt"):
        with pytest.raises(FileNotFoundError, match="konpanousis"):
            published.load(missing)


@pytest.mark.skipif(
    "BENCH_SLWTA" not in os.environ,
    reason="BENCH_SLWTA does not name a copy of the authors' checkpoint (see the model card of slwta)",
)
def test_the_authors_weights_are_as_accurate_as_they_say_and_fall_without_noise() -> None:
    """86.56 % clean in their log; PGD-20 on the network without its noise leaves next to nothing on fresh draws."""
    from bench.lab.images import load

    model = published.load(Path(os.environ["BENCH_SLWTA"])).net.requires_grad_(False)
    assert isinstance(model, SLWTA)
    images = load.load("cifar10", "test", None)
    x = load.as_tensor(images.images[:500])
    y = torch.from_numpy(images.labels[:500])
    right = torch.cat([model(part, seeded(0)).argmax(1) for part in x.split(50)]) == y
    assert abs(float(right.float().mean()) - 0.867) < 2.6 * math.sqrt(0.867 * 0.133 / 500)
    few, labels, mean = x[:50], y[:50], model.mean()
    moved = few.clone()
    for _ in range(20):
        moved.requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(mean(moved), labels), moved)
        moved = (moved.detach() + 2 / 255 * slope.sign()).clamp(few - 8 / 255, few + 8 / 255).clamp(0, 1)
    fresh = [float((model(moved, seeded(seed)).argmax(1) == labels).float().mean()) for seed in range(4)]
    assert sum(fresh) / 4 < 0.05

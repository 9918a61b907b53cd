import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.classifier import Plain
from bench.models.noise import ColoredNoise, Noisy
from bench.models.smoothing import Smoothed
from bench.models.wide_resnet import CIFAR10_MEAN, CIFAR10_STD, WideResNet


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def expected_parameters(depth: int, width: int, classes: int) -> int:
    """Counted by hand: 3x3 convolutions, 1x1 shortcuts where channels change, 2 numbers a norm channel."""
    n, total, inputs = (depth - 4) // 6, 3 * 16 * 9, 16
    for outputs in (16 * width, 32 * width, 64 * width):
        total += 9 * inputs * outputs + 9 * outputs**2 + 2 * inputs + 2 * outputs
        total += inputs * outputs if inputs != outputs else 0
        total += (n - 1) * (18 * outputs**2 + 4 * outputs)
        inputs = outputs
    return total + 2 * inputs + inputs * classes + classes


@pytest.mark.parametrize("depth, width, classes", [(10, 1, 10), (16, 2, 7), (28, 4, 10), (28, 10, 10)])
def test_parameter_count(depth: int, width: int, classes: int) -> None:
    with torch.device("meta"):
        net = WideResNet(depth, width, classes)
    assert sum(p.numel() for p in net.parameters()) == expected_parameters(depth, width, classes)


def test_parameter_count_of_the_literature() -> None:
    assert expected_parameters(28, 10, 10) == 36_479_194
    assert expected_parameters(28, 4, 10) == 5_849_050


def test_names_and_shapes_of_checkpoints() -> None:
    state = WideResNet(28, 4).state_dict()
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"mean", "std", "conv1.weight", "fc.weight", "fc.bias"} | {f"bn.{part}" for part in norm}
    for i in range(12):
        expected |= {f"blocks.{i}.{name}.weight" for name in ("conv1", "conv2")}
        expected |= {f"blocks.{i}.{name}.{part}" for name in ("bn1", "bn2") for part in norm}
    expected |= {f"blocks.{i}.sc.weight" for i in (0, 4, 8)}
    assert set(state) == expected
    assert state["mean"].shape == state["std"].shape == (1, 3, 1, 1)
    assert state["blocks.4.sc.weight"].shape == (128, 64, 1, 1)


@pytest.mark.parametrize("depth, width, classes", [(4, 1, 10), (11, 1, 10), (27, 4, 10), (10, 0, 10), (10, 1, 0)])
def test_impossible_networks_are_refused(depth: int, width: int, classes: int) -> None:
    with pytest.raises(ValueError):
        WideResNet(depth, width, classes)


def reference_forward(state: dict[str, Tensor], images: Tensor, blocks: int) -> Tensor:
    """The network of the paper written a second time, over its state, in evaluation mode."""

    def active(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * weight + bias).clamp_min(0)

    mean, std = (torch.tensor(values)[:, None, None] for values in (CIFAR10_MEAN, CIFAR10_STD))
    x = F.conv2d((images - mean) / std, state["conv1.weight"], padding=1)
    for i in range(3 * blocks):
        stride = 2 if i in (blocks, 2 * blocks) else 1
        inner = active(x, f"blocks.{i}.bn1")
        short = state.get(f"blocks.{i}.sc.weight")
        out = F.conv2d(inner, state[f"blocks.{i}.conv1.weight"], stride=stride, padding=1)
        out = F.conv2d(active(out, f"blocks.{i}.bn2"), state[f"blocks.{i}.conv2.weight"], padding=1)
        x = out + (x if short is None else F.conv2d(inner, short, stride=stride))
    return active(x, "bn").mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize("depth, width", [(10, 1), (16, 2)])
def test_forward_is_the_papers_network(depth: int, width: int) -> None:
    net = WideResNet(depth, width, generator=seeded(0))
    images = torch.rand(16, 3, 32, 32, generator=seeded(1))
    with torch.no_grad():
        for _ in range(3):
            net(images)  # in training mode, so that the running statistics differ from their start
        for name, tensor in net.named_parameters():
            if "bn" in name:
                tensor.add_(torch.randn(tensor.shape, generator=seeded(len(name))), alpha=0.1)
        net.eval()
        torch.testing.assert_close(
            net(images), reference_forward(net.state_dict(), images, (depth - 4) // 6), rtol=1e-4, atol=1e-4
        )


def test_initialisation_is_he_normal_and_a_function_of_the_generator() -> None:
    one, two = (WideResNet(16, 4, generator=seeded(3)).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    for name, fan_out in (("blocks.3.conv1", 9 * 128), ("blocks.4.sc", 256), ("blocks.5.conv2", 9 * 256)):
        assert one[f"{name}.weight"].std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.02)


def test_plain_is_the_network() -> None:
    net = WideResNet(10, 1, generator=seeded(0)).eval()
    images = torch.rand(4, 3, 32, 32, generator=seeded(1))
    plain = Plain(net, 10)
    assert not plain.stochastic
    assert torch.equal(plain(images), net(images))


def smoothed_noisy(seed: int, sigma: float = 0.1) -> Smoothed:
    net = WideResNet(10, 1, generator=seeded(seed))
    return Smoothed(Noisy(net, ColoredNoise(net, generator=seeded(seed)), 10), sigma).eval().requires_grad_(False)


MODEL = smoothed_noisy(0)
IMAGES = torch.rand(12, 3, 32, 32, generator=seeded(2))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 11), min_size=1, max_size=12, unique=True), st.integers(1, 12), st.integers(0, 2**63 - 1)
)
def test_noise_belongs_to_the_image_whatever_the_microbatch(rows: list[int], size: int, seed: int) -> None:
    """Any rows in any order and microbatch meet the noise of the whole batch."""
    realisation = MODEL.realise(IMAGES.shape, seeded(seed))
    whole = realisation(IMAGES)
    for start in range(0, len(rows), size):
        part = torch.tensor(rows[start : start + size])
        torch.testing.assert_close(realisation(IMAGES[part], part), whole[part], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(realisation(IMAGES[3:7], slice(3, 7)), whole[3:7], rtol=1e-4, atol=1e-4)
    assert torch.equal(MODEL(IMAGES, seeded(seed)), whole)
    assert not torch.allclose(MODEL(IMAGES, seeded(seed ^ 1)), whole, atol=1e-2)


class Identity(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


STD = (0.2, 0.3, 0.5)


@pytest.mark.parametrize("unit, scale", [("pixels", (1.0, 1.0, 1.0)), ("normalised", STD)])
def test_input_noise_is_gaussian_in_the_unit_given(unit: str, scale: tuple[float, ...]) -> None:
    sigma, shape = 0.25, (4000, 3, 5, 5)
    smoothed = Smoothed(Plain(Identity(), 75), sigma, unit, STD)  # type: ignore[arg-type]
    images = torch.full(shape, 0.9)
    noise = smoothed(images, seeded(5)).view(shape) - images
    n = 4000 * 25
    for channel, factor in enumerate(scale):
        values = noise[:, channel] / (sigma * factor)
        assert abs(values.mean().item()) < 4 / math.sqrt(n)
        assert abs(values.std().item() - 1) < 4 / math.sqrt(2 * n)
        assert abs((values**4).mean().item() - 3) < 4 * math.sqrt(96 / n)
    # Independent between channels, and not clamped to [0, 1].
    assert abs(torch.corrcoef(noise.permute(1, 0, 2, 3).flatten(1))[0, 1].item()) < 4 / math.sqrt(n)
    assert noise.max() > 0.1


def test_no_input_noise_at_sigma_zero() -> None:
    net = WideResNet(10, 1, generator=seeded(0)).eval()
    plain = Smoothed(Plain(net, 10), 0.0)
    assert not plain.stochastic and plain.classes == 10
    assert torch.equal(plain(IMAGES), net(IMAGES))
    noisy = smoothed_noisy(0, sigma=0.0)
    assert noisy.stochastic
    generator, base = seeded(8), seeded(8)
    assert torch.equal(noisy(IMAGES, generator), noisy.base(IMAGES, base))
    assert torch.equal(generator.get_state(), base.get_state())


@pytest.mark.parametrize("sigma", [0.1, 0.5])
@pytest.mark.parametrize("unit", ["pixels", "normalised"])
def test_vote_share_of_a_linear_classifier(sigma: float, unit: str) -> None:
    """P(class 0) is Phi(margin / (sigma ||w||)), with w in units of std where sigma is."""
    w = torch.randn(12, generator=seeded(1))
    linear = nn.Linear(12, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.stack([w, torch.zeros(12)]))
        linear.bias.zero_()
    image = torch.rand(3, 2, 2, generator=seeded(2))
    margin = 0.4 * sigma * w.norm().item()
    with torch.no_grad():
        linear.bias[0] = margin - (w @ image.flatten()).item()
    scale = torch.ones(3) if unit == "pixels" else torch.tensor(STD)
    norm = (w.view(3, 4) * scale[:, None]).norm().item()
    expected = 0.5 * (1 + math.erf(margin / (sigma * norm) / math.sqrt(2)))
    smoothed = Smoothed(Plain(nn.Sequential(nn.Flatten(), linear), 2), sigma, unit, STD)  # type: ignore[arg-type]
    n = 40_000
    with torch.no_grad():
        share = (smoothed(image.expand(n, 3, 2, 2), seeded(3)).argmax(1) == 0).float().mean().item()
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_smoothing_refuses_what_has_no_meaning() -> None:
    base = Plain(Identity(), 75)
    for sigma in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="sigma"):
            Smoothed(base, sigma)
    with pytest.raises(ValueError, match="needs std"):
        Smoothed(base, 0.1, "normalised")
    with pytest.raises(ValueError, match="unit"):
        Smoothed(base, 0.1, "percent")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="generator"):
        Smoothed(base, 0.1)(IMAGES)

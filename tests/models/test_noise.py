import math
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from bench.models.noise import ColoredNoise, Noisy
from bench.models.wide_resnet import WideResNet

LAWS = ("reference", "relative")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(net: nn.Module) -> dict[str, Tensor]:
    return dict(net.named_parameters())


def small_net(**law: Any) -> tuple[nn.Module, ColoredNoise]:
    """Two small convolutions and a linear layer, under a noise of uneven diag (signs too) and factor."""
    net = nn.Sequential(
        OrderedDict(
            first=nn.Conv2d(1, 2, 2, bias=False), second=nn.Conv2d(2, 3, 1), flat=nn.Flatten(), fc=nn.Linear(3, 2)
        )
    )
    noise = ColoredNoise(net, generator=seeded(0), **law)
    with torch.no_grad():
        for i, parameter in enumerate([*net.parameters(), noise.diag, noise.factor]):
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(i)) * 0.5)
    return net, noise


@pytest.mark.parametrize("depth, width, rank", [(10, 1, 5), (16, 2, 3), (28, 4, 0)])
def test_parameter_count_is_n_plus_n_times_rank(depth: int, width: int, rank: int) -> None:
    net = WideResNet(depth, width)
    noise = ColoredNoise(net, rank=rank)
    sizes = {name: p.numel() for name, p in net.named_parameters() if p.ndim == 4}
    assert set(noise.names) == set(sizes)
    assert sum(p.numel() for p in noise.parameters()) == sum(n + n * rank for n in sizes.values())
    for name, (diag, factor) in noise.layers().items():
        assert diag.shape == (sizes[name],) and factor.shape == (sizes[name], rank)
    linear = ColoredNoise(net, rank=rank, linear="elementwise")
    extra = sum(p.numel() for p in linear.parameters()) - sum(p.numel() for p in noise.parameters())
    assert extra == net.fc.weight.numel() and linear.names[-1] == "fc.weight"


def test_initial_values() -> None:
    net = WideResNet(16, 2)
    reference = ColoredNoise(net, scale="reference", factor_init=0.01, linear="elementwise")
    assert (reference.diag == 0.0625).all() and (reference.factor == torch.tensor(0.01)).all()
    assert reference.alpha is not None and (reference.alpha == 0.25).all()
    relative = ColoredNoise(net, generator=seeded(1))
    n = relative.factor.numel()
    assert (relative.diag == 0.0625).all()
    assert abs(relative.factor.std().item() / 0.05 - 1) < 4 / math.sqrt(2 * n)
    assert abs(relative.factor.mean().item()) < 4 * 0.05 / math.sqrt(n)
    assert torch.equal(relative.factor, ColoredNoise(net, generator=seeded(1)).factor)


def covariance(law: str, weight: Tensor, diag: Tensor, factor: Tensor) -> Tensor:
    """The declared law, in float64."""
    spread, diag, factor = weight.double().std(), diag.double().abs(), factor.double()
    if law == "reference":
        return torch.diag(spread * diag) + factor @ factor.T
    return spread**2 * (torch.diag(diag + 1e-8) + factor @ factor.T)


@pytest.mark.parametrize("law", LAWS)
def test_mean_and_covariance_of_the_draws(law: str) -> None:
    net, noise = small_net(scale=law, rank=2, linear="elementwise")
    net.requires_grad_(False), noise.requires_grad_(False)
    generator, draws = seeded(11), 20_000
    flat: dict[str, list[Tensor]] = {name: [] for name in noise.names}
    for _ in range(draws):
        for name, value in noise.draw(weights(net), generator).items():
            flat[name].append(value.flatten())
    laws = {name: covariance(law, weights(net)[name], diag, factor) for name, (diag, factor) in noise.layers().items()}
    fc = weights(net)["fc.weight"].double()
    laws["fc.weight"] = torch.eye(6, dtype=torch.float64) * (0.25 * fc.std()) ** 2
    assert set(laws) == set(noise.names)
    for name, expected in laws.items():
        m = torch.stack(flat[name]).double() - weights(net)[name].flatten()
        variance = expected.diag()
        assert (m.mean(0).abs() < 4.5 * (variance / draws).sqrt()).all()
        # Wick: Var(m_i m_j) = C_ii C_jj + C_ij^2
        error = ((torch.outer(variance, variance) + expected**2) / draws).sqrt()
        assert ((m.T @ m / draws - expected).abs() < 4.5 * error).all()
        assert (expected - torch.diag(variance)).abs().max() > 10 * error.max() or name == "fc.weight"
    # Layers are independent of each other.
    first, second = (torch.stack(flat[f"{name}.weight"])[:, 0] for name in ("first", "second"))
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1].item()) < 4.5 / math.sqrt(draws)


class Drawn(nn.Module):
    """One draw as a function of all it depends on."""

    def __init__(self, net: nn.Module, noise: ColoredNoise) -> None:
        super().__init__()
        self.net, self.noise = net, noise

    def forward(self, seed: int) -> tuple[Tensor, ...]:
        return tuple(self.noise.draw(weights(self.net), seeded(seed)).values())


@pytest.mark.parametrize("law", LAWS)
def test_gradients_reach_weights_and_noise(law: str) -> None:
    """Against finite differences: through std(W), |d| and F, and for the linear layer's alpha."""
    module = Drawn(*small_net(scale=law, rank=2, linear="elementwise")).double()
    names = ["net.first.weight", "net.fc.weight", "noise.diag", "noise.factor", "noise.alpha"]
    values = [module.get_parameter(name).detach().clone().requires_grad_() for name in names]

    def draw(*inputs: Tensor) -> tuple[Tensor, ...]:
        drawn: tuple[Tensor, ...] = functional_call(module, dict(zip(names, inputs, strict=True)), (7,))
        return drawn

    assert torch.autograd.gradcheck(draw, values)
    gradients = torch.autograd.grad(sum(part.pow(2).sum() for part in draw(*values)), values)
    assert all((gradient != 0).all() for gradient in gradients)


@pytest.mark.parametrize("law", LAWS)
def test_rank_zero_leaves_the_white_part(law: str) -> None:
    """Without a factor, noise over its standard deviation is N(0, 1) elementwise, for all layers together."""
    net = WideResNet(16, 2, generator=seeded(0))
    noise = ColoredNoise(net, scale=law, rank=0)  # type: ignore[arg-type]
    drawn = noise.draw(weights(net), seeded(1))
    z = []
    for name, value in drawn.items():
        weight = net.get_parameter(name)
        deviation = 0.25 * (weight.std().sqrt() if law == "reference" else weight.std())
        z.append(((value - weight) / deviation).flatten())
    values = torch.cat(z)
    assert abs(values.mean().item()) < 4.5 / math.sqrt(len(values))
    assert abs(values.std().item() - 1) < 4.5 / math.sqrt(2 * len(values))


@pytest.mark.parametrize("law", LAWS)
def test_gradient_is_finite_where_diag_is_zero(law: str) -> None:
    net, noise = small_net(scale=law)
    nn.init.zeros_(noise.diag)
    sum(value.sum() for value in noise.draw(weights(net), seeded(0)).values()).backward()
    assert noise.diag.grad is not None and noise.diag.grad.isfinite().all()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("training", [True, False])
def test_a_draw_is_a_function_of_its_generator_in_every_mode(law: str, training: bool) -> None:
    net = WideResNet(10, 1, generator=seeded(0))
    noisy = Noisy(net, ColoredNoise(net, scale=law, generator=seeded(0)), 10).train(training)  # type: ignore[arg-type]
    images = torch.rand(8, 3, 32, 32, generator=seeded(1))
    before = torch.get_rng_state()
    generator = seeded(4)
    one, two, again = noisy(images, generator), noisy(images, generator), noisy(images, seeded(4))
    assert noisy.stochastic
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, again)
    assert (one - two).abs().max() > 1e-3
    assert (one - net(images)).abs().max() > 1e-3
    # The same draw, whatever the number of images it was made for.
    fewer = noisy.realise((2, 3, 32, 32), seeded(4)), noisy.realise((8, 3, 32, 32), seeded(4))
    assert torch.equal(fewer[0](images), fewer[1](images))


def test_noise_without_a_generator_is_refused() -> None:
    net = WideResNet(10, 1)
    with pytest.raises(ValueError, match="generator"):
        Noisy(net, ColoredNoise(net), 10)(torch.zeros(1, 3, 32, 32))


def test_frozen_draws_keep_no_graph_but_pass_gradients_to_the_images() -> None:
    net = WideResNet(10, 1, generator=seeded(0))
    noise = ColoredNoise(net, generator=seeded(0))
    with torch.no_grad():
        assert not any(value.requires_grad for value in noise.draw(weights(net), seeded(1)).values())
    assert all(value.requires_grad for value in noise.draw(weights(net), seeded(1)).values())
    noisy = Noisy(net, noise, 10).eval().requires_grad_(False)
    assert not any(value.requires_grad for value in noise.draw(weights(net), seeded(1)).values())
    images = torch.rand(2, 3, 32, 32, generator=seeded(1)).requires_grad_()
    noisy(images, seeded(1)).square().sum().backward()
    assert images.grad is not None and images.grad.abs().max() > 0


def test_training_step_moves_network_noise_and_running_statistics() -> None:
    net = WideResNet(10, 1, generator=seeded(0))
    noisy = Noisy(net, ColoredNoise(net, generator=seeded(0)), 10)
    before = {name: tensor.clone() for name, tensor in noisy.state_dict().items()}
    optimizer = torch.optim.SGD(noisy.parameters(), lr=0.1)
    images, labels = torch.rand(8, 3, 32, 32, generator=seeded(1)), torch.arange(8)
    nn.functional.cross_entropy(noisy(images, seeded(2)), labels).backward()
    optimizer.step()
    same = {name for name, tensor in noisy.state_dict().items() if torch.equal(tensor, before[name])}
    assert same == {"net.mean", "net.std"}


def test_draws_ignore_autocast_and_keep_the_memory_layout() -> None:
    net = WideResNet(10, 1, generator=seeded(0))
    noise = ColoredNoise(net, generator=seeded(0))
    plain = noise.draw(weights(net), seeded(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for name, value in noise.draw(weights(net), seeded(1)).items():
            assert value.dtype == torch.float32 and torch.equal(value, plain[name])
    net.to(memory_format=torch.channels_last)
    for name, value in noise.draw(weights(net), seeded(1)).items():
        assert value.stride() == net.get_parameter(name).stride()
        torch.testing.assert_close(value, plain[name])


def test_state_round_trip() -> None:
    net = WideResNet(10, 1, generator=seeded(0))
    one = Noisy(net, ColoredNoise(net, linear="elementwise", generator=seeded(0)), 10).eval()
    other = WideResNet(10, 1, generator=seeded(5))
    two = Noisy(other, ColoredNoise(other, linear="elementwise", generator=seeded(5)), 10).eval()
    images = torch.rand(2, 3, 32, 32, generator=seeded(1))
    assert not torch.equal(one(images, seeded(1)), two(images, seeded(1)))
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(images, seeded(1)), two(images, seeded(1)))


def test_laws_that_make_no_sense_are_refused() -> None:
    net = WideResNet(10, 1)
    with pytest.raises(ValueError, match="unknown law"):
        ColoredNoise(net, scale="absolute")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        ColoredNoise(net, rank=-1)
    with pytest.raises(ValueError, match="negative"):
        ColoredNoise(net, diag_init=-1.0)
    with pytest.raises(ValueError, match="no convolution"):
        ColoredNoise(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="one element"):
        ColoredNoise(nn.Conv2d(1, 1, 1))
    assert ColoredNoise(nn.Conv2d(1, 2, 1)).names == ("weight",)

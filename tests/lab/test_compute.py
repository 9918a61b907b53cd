"""Compute against whole-batch PyTorch: parts, memory, layout and precision change what it costs, not what it says."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import CPU
from torch import nn
from torch.nn import functional

from bench import UserError
from bench.lab.attacks.losses import cross_entropy, margin
from bench.lab.compute.device import pick_device
from bench.lab.compute.memory import out_of_memory
from bench.lab.compute.passes import CACHE, LEAST, Compute, laid_out, widest
from bench.models.classifier import Plain
from bench.models.noise import ColoredNoise, Noisy
from bench.models.smoothing import Smoothed
from bench.models.wide_resnet import WideResNet


def network(seed=0, width=1):
    generator = torch.Generator().manual_seed(seed)
    net = WideResNet(10, width, generator=generator)
    with torch.no_grad():  # running statistics of a network that has seen data
        net.train()(torch.rand(64, 3, 32, 32, generator=generator))
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model():
    return Plain(network(), 10).eval()


def batch(n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, 32, 32, generator=generator), torch.randint(10, (n,), generator=generator)


@settings(max_examples=12, deadline=None)
@given(n=st.integers(1, 20), size=st.integers(1, 24))
def test_parts_add_up_to_the_whole(model, n, size):
    images, labels = batch(n)
    realisation, compute = model.realise(images.shape), Compute(CPU, microbatch=size)
    leaf = images.clone().requires_grad_(True)
    logits = model.net(leaf)
    loss = functional.cross_entropy(logits, labels, reduction="none")
    (slope,) = torch.autograd.grad(loss.sum(), leaf)
    value, turn, seen = compute.gradient(realisation, images, labels, cross_entropy)
    torch.testing.assert_close(value, loss.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(turn, slope, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(seen, logits.detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(compute.logits(realisation, images), seen, atol=1e-4, rtol=1e-4)
    assert (compute.forwards, compute.backwards) == (2 * n, n)
    assert not value.requires_grad and not seen.requires_grad and not turn.requires_grad and not images.requires_grad


def test_rows_keep_their_noise_in_any_microbatch(model):
    images, labels = batch(9)
    noisy = Smoothed(model, 0.5)
    realisation = noisy.realise(images.shape, torch.Generator().manual_seed(3))
    whole = realisation(images)
    rows = torch.tensor([7, 2, 5, 8, 0])
    for size in (1, 2, 9):
        compute = Compute(CPU, microbatch=size)
        torch.testing.assert_close(compute.logits(realisation, images), whole, atol=1e-4, rtol=1e-4)
        some = compute.logits(realisation, images[rows], rows)
        torch.testing.assert_close(some, whole[rows], atol=1e-4, rtol=1e-4)
        _, _, logits = compute.gradient(realisation, images[rows], labels[rows], margin, rows)
        torch.testing.assert_close(logits, whole[rows], atol=1e-4, rtol=1e-4)


def test_too_little_memory_makes_parts_smaller_and_says_so(model):
    images, labels = batch(21)
    notes, sizes = [], []

    def small(images, rows=None):
        sizes.append(len(images))
        if len(images) > 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return model.net(images)

    compute = Compute(CPU, microbatch=16, note=notes.append)
    torch.testing.assert_close(compute.logits(small, images), model.net(images), atol=1e-4, rtol=1e-4)
    assert sizes == [11, 5, 4, 4, 4, 4] and compute.microbatch == 5
    assert len(notes) == 1 and "going on with 5 images" in notes[-1]
    _, slope, _ = compute.gradient(small, images, labels, cross_entropy)
    _, whole, _ = Compute(CPU).gradient(model.realise(images.shape), images, labels, cross_entropy)
    torch.testing.assert_close(slope, whole, atol=1e-5, rtol=1e-3)

    def never(images, rows=None):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        Compute(CPU, microbatch=4).logits(never, images)

    def broken(images, rows=None):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        Compute(CPU, microbatch=4, note=notes.append).logits(broken, images)
    assert len(notes) == 1 and not out_of_memory(RuntimeError("mat1"))


def test_bfloat16_is_near_and_handed_back_as_float32(model):
    images, labels = batch(64)
    realisation = model.realise(images.shape)
    full, half = Compute(CPU), Compute(CPU, "bfloat16")
    expected, found = full.logits(realisation, images), half.logits(realisation, images)
    assert found.dtype == torch.float32
    difference = (found - expected).norm() / expected.norm()
    assert 0 < difference < 0.05
    _, slope, _ = half.gradient(realisation, images, labels, cross_entropy)
    _, exact, _ = full.gradient(realisation, images, labels, cross_entropy)
    assert slope.dtype == torch.float32 and (slope.sign() == exact.sign()).double().mean() > 0.9


# -- layout and microbatch ------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2])
def test_widest_layer_of_a_wide_resnet(width):
    net = WideResNet(10, width).eval().requires_grad_(False)
    groups = {1: 16 * 32 * 32, 2: 32 * 32 * 32}  # the first group: 16 k channels of 32 x 32
    noisy = Noisy(net, ColoredNoise(net), 10)
    assert widest(Plain(net, 10)) == widest(noisy) == widest(Smoothed(noisy, 0.1)) == groups[width]


@settings(max_examples=200, deadline=None)
@given(numbers=st.integers(0, 10**8), limit=st.integers(1, 4096))
def test_a_cpu_takes_what_its_cache_holds(numbers, limit):
    full, half = Compute(CPU, microbatch=limit), Compute(CPU, "bfloat16", microbatch=limit)
    full.suit(numbers)
    half.suit(numbers)
    assert min(limit, LEAST) <= full.microbatch <= half.microbatch <= limit
    for compute, size in ((full, 4), (half, 2)):
        if compute.microbatch > LEAST:
            assert compute.microbatch * numbers * size <= CACHE
        if compute.microbatch < limit and compute.microbatch > LEAST:
            assert (compute.microbatch + 1) * numbers * size > CACHE
    gpu = Compute(torch.device("cuda"), microbatch=limit)
    gpu.suit(numbers)
    assert gpu.microbatch == limit


def test_channels_last_changes_the_layout_and_not_the_answers():
    images, labels = batch(12)
    before, after = Plain(network(5), 10).eval(), Plain(network(5), 10).eval()
    assert laid_out(after) == widest(before)
    assert after.net.blocks[0].conv2.weight.is_contiguous(memory_format=torch.channels_last)
    for compute in (Compute(CPU), Compute(CPU, microbatch=5)):
        _, old, _ = compute.gradient(before.realise(images.shape), images, labels, cross_entropy)
        _, new, logits = compute.gradient(after.realise(images.shape), images, labels, cross_entropy)
        torch.testing.assert_close(new, old, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(logits, before.net(images), atol=1e-4, rtol=1e-4)
        assert new.is_contiguous()  # as the images are


class Views(nn.Module):
    """A network that can only see contiguous feature maps, as many published ones do."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, stride=8), nn.Linear(64, 10)

    def forward(self, images):
        return self.fc(self.conv(images).view(-1, 64))


def test_a_network_that_cannot_take_the_layout_keeps_its_own():
    model = Plain(Views(), 10).eval().requires_grad_(False)
    images = torch.rand(3, 3, 32, 32)
    before = model(images)
    assert laid_out(model) == 64
    assert torch.equal(model(images), before) and model.net.conv.weight.is_contiguous()


def test_a_network_that_takes_no_single_image_is_left_to_fail_where_it_is_used():
    class Picky(nn.Linear):
        def forward(self, images):
            if len(images) == 1:
                raise ValueError("I want a batch")
            return super().forward(images.flatten(1))

    model = Plain(Picky(3072, 10), 10).eval().requires_grad_(False)
    assert laid_out(model) == 0
    compute = Compute(CPU, microbatch=7)
    compute.suit(0)
    assert compute.microbatch == 7 and model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_measuring_a_model_leaves_no_hook_and_no_draw_behind():
    net = network()
    noisy = Noisy(net, ColoredNoise(net), 10).eval().requires_grad_(False)
    state = torch.random.get_rng_state()
    laid_out(noisy)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not any(module._forward_hooks for module in noisy.modules())


# -- noise whose constants are kept ---------------------------------------------------------------


@pytest.mark.parametrize("scale", ["relative", "reference"])
@pytest.mark.parametrize("linear", ["none", "elementwise"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_settled_noise_draws_the_same_bits(scale, linear, layout):
    net = network().to(memory_format=layout)
    noise = ColoredNoise(net, scale=scale, linear=linear, generator=torch.Generator().manual_seed(2))
    noisy = Noisy(net, noise, 10).eval().requires_grad_(False)
    weights = {name: net.get_parameter(name) for name in noise.names}

    def drawn():
        with torch.no_grad():
            return noise.draw(weights, torch.Generator().manual_seed(4))

    with torch.enable_grad():
        free = noise.draw(weights, torch.Generator().manual_seed(4))
    before = drawn()
    noisy.settle()
    after = drawn()
    for name in noise.names:
        assert torch.equal(before[name], after[name]) and torch.equal(before[name], free[name])
    with torch.no_grad():
        noise.diag.mul_(4)
    stale = drawn()
    noisy.settle()
    assert not torch.equal(stale["conv1.weight"], drawn()["conv1.weight"])
    noisy.settle(False)
    fresh = drawn()
    noisy.settle()
    assert all(torch.equal(fresh[name], drawn()[name]) for name in noise.names)


def test_devices_are_named_or_refused():
    assert pick_device("cpu") == CPU and pick_device("auto").type in ("cpu", "cuda")
    with pytest.raises(UserError, match="no device is called 'tpuu'"):
        pick_device("tpuu")
    with pytest.raises(UserError, match="this machine has no cuda:99"):
        pick_device("cuda:99")


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="glibc's own habit")
def test_memory_of_freed_layers_is_kept_for_the_next():
    """In a process of its own, which it is set for: a second use of the same sizes asks the system for no page.

    glibc itself decides by what it has seen; told to give everything back, it does so each time.
    """
    code = """
import resource, sys, torch
from bench.lab.compute.memory import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        layers = [torch.ones(2_000_000) for _ in range(4)]
        del layers
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    keep_memory(torch.device("cpu"))
faults()
print(faults())
"""

    def faults(how: str) -> int:
        told = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
        return int(subprocess.check_output([sys.executable, "-c", code, how], env=told, text=True))

    assert faults("kept") < 100 < faults("given back")

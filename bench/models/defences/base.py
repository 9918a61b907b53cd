"""What several defences are built from: noise for each image, and a network some of whose modules act otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bench.models.classifier import Classifier, Realisation

Change = Callable[[Tensor], Tensor]
STAGES = (("layer1", "layer2", "layer3", "layer4"), ("block1", "block2", "block3"))
"""How residual networks name their stages: torchvision's and most ResNets; most wide ResNets."""


class Fixed(Classifier):
    """A deterministic function of the images, beside the classifier whose tensors it reads."""

    stochastic = False
    alters = True

    def __init__(self, owner: Classifier, answer: Change) -> None:
        super().__init__()
        self.owner, self.classes, self.answer = owner, owner.classes, answer

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None = None) -> Realisation:
        return lambda images, rows=None: self.answer(images)


class PerImage:
    """Random numbers of each image of a batch: the same whichever rows are asked for, and in whatever parts.

    On a CPU each image has a generator of its own, so that a few rows cost a few rows; elsewhere, where the
    number of calls counts, the whole batch is drawn and its rows are taken.
    """

    def __init__(self, n: int, generator: torch.Generator | None) -> None:
        generator = needed(generator)
        self.n, self.device = n, generator.device
        count = n if self.device.type == "cpu" else 1
        self.seeds = torch.randint(2**62, (count,), generator=generator, device=self.device).tolist()

    def stream(self, rows: Tensor | slice | None) -> Stream:
        """The numbers for these rows, from their first on: what one forward pass draws, layer after layer."""
        if self.device.type != "cpu":
            return Stream([seeded(self.seeds[0], self.device)], slice(None) if rows is None else rows, self.n)
        chosen = self.seeds[rows] if isinstance(rows, slice) else self.seeds
        if isinstance(rows, Tensor):
            chosen = [self.seeds[row] for row in rows.tolist()]
        return Stream([seeded(seed, self.device) for seed in chosen])


class Stream:
    """Draws in the shape of what they are for (m, ...), row i from the numbers of image i, in float32."""

    def __init__(
        self, generators: list[torch.Generator], rows: Tensor | slice | None = None, n: int | None = None
    ) -> None:
        self.generators, self.rows, self.n = generators, rows, n

    def normal(self, like: Tensor) -> Tensor:
        """N(0, 1) elementwise."""
        return self._fill(like.shape, Tensor.normal_, like.device)

    def uniform(self, like: Tensor) -> Tensor:
        """U[0, 1) elementwise."""
        return self._fill(like.shape, Tensor.uniform_, like.device)

    def _fill(self, shape: torch.Size, draw: Callable[..., Tensor], device: torch.device) -> Tensor:
        if self.n is not None:
            (generator,) = self.generators
            whole = draw(torch.empty((self.n, *shape[1:]), device=device), generator=generator)
            return whole if self.rows is None else whole[self.rows]
        found = torch.empty(shape, device=device)
        for row, generator in zip(found, self.generators, strict=True):
            draw(row, generator=generator)
        return found


def seeded(seed: int, device: torch.device) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator(device).manual_seed(seed)


def needed(generator: torch.Generator | None) -> torch.Generator:
    """The generator; ValueError for None."""
    if generator is None:
        raise ValueError("noise needs a generator: it is never drawn from the global one")
    return generator


@contextmanager
def altered(net: nn.Module, forwards: Mapping[str, Change]) -> Iterator[None]:
    """Inside, the submodules of these names compute what they are given; outside, what they did.

    Names, parameters and state stay as they are, and modules need no wrapping, so that weights of any network load.
    """
    before: dict[str, Change | None] = {}
    try:
        for name, forward in forwards.items():
            module = net.get_submodule(name)
            before[name] = module.__dict__.get("forward")
            module.forward = forward
        yield
    finally:
        for name, forward_before in before.items():
            module = net.get_submodule(name)
            if forward_before is None:
                del module.forward
            else:
                module.forward = forward_before


def fed(net: nn.Module, names: tuple[str, ...], change: Change) -> dict[str, Change]:
    """For `altered`: these modules compute what they did, of an input that `change` has changed."""

    def one(forward: Change) -> Change:
        return lambda x: forward(change(x))

    return {name: one(net.get_submodule(name).forward) for name in names}


def followed(net: nn.Module, names: tuple[str, ...], change: Change) -> dict[str, Change]:
    """For `altered`: these modules compute what they did, and `change` changes it."""

    def one(forward: Change) -> Change:
        return lambda x: change(forward(x))

    return {name: one(net.get_submodule(name).forward) for name in names}


def convolutions(net: nn.Module) -> tuple[str, ...]:
    """The names of all two-dimensional convolutions, in the network's order; ValueError if there is none."""
    names = tuple(name for name, module in net.named_modules() if isinstance(module, nn.Conv2d))
    if not names:
        raise ValueError("the network has no convolution")
    return names


def stages(net: nn.Module) -> tuple[str, ...]:
    """The modules that begin the stages of a residual network, in order; ValueError for a network without any."""
    names = [name for name, _ in net.named_modules()]
    for known in STAGES:
        found = tuple(name for part in known for name in names if name.split(".")[-1] == part)
        if len(found) == len(known):
            return found
    for name, module in net.named_modules():
        if name.split(".")[-1] == "blocks" and isinstance(module, nn.Sequential) and len(module) % 3 == 0:
            return tuple(f"{name}.{start}" for start in range(0, len(module), len(module) // 3))
    raise ValueError("the network has no stages that are known here (layer1.., block1.., blocks): name the modules")

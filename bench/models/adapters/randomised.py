"""A third party's randomised network, whose noise comes from where it likes: each draw runs it fenced.

What a network draws belongs to the batch it is given. So that an image meets the same noise in any
microbatch, torch's random operations are drawn row by row where their first extent is the batch's, each row from
a seed of its own, and once for all rows where it is not (noise in weights). What cannot be told apart in this
way (NumPy's noise for a batch) runs image by image. A network that seeds a generator itself keeps what that gives.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.models.classifier import Classifier, Realisation

Held = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


class GlobalRandom(Classifier):
    """A network that draws from the global generators, or from generators that it holds.

    A draw is a seed: the same realisation gives the same rows the same logits, in whatever microbatch, and the
    global state (torch, NumPy, random) is as before afterwards. `learn` finds out which noise is by row;
    with `apart` each image is a batch of its own, slow and always right.
    """

    stochastic = True

    def __init__(self, net: nn.Module, classes: int, held: Sequence[Held] = ()) -> None:
        super().__init__()
        self.net, self.classes, self.apart = net, classes, False
        self.rows: tuple[int, ...] | None = None
        self._held = tuple({id(one): one for one in [*generators(net), *held]}.values())

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        if generator is None:
            raise ValueError("noise needs a generator: it is never drawn from the global one")
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            index = _index(rows, len(images))
            if not self.apart or len(index) == 0:
                return self._run(images, seed, index)
            single = [self._run(images[i : i + 1], mixed(seed, row), [row]) for i, row in enumerate(index)]
            return torch.cat(single)

        return realisation

    def _run(self, images: Tensor, seed: int, index: list[int]) -> Tensor:
        with seeded(seed, self._held), ByRow(seed, index, self.rows, self._held):
            logits: Tensor = self.net(images)
        return logits

    def learn(self, images: Tensor) -> None:
        """Find out, on batches of two sizes, which random operations draw a row an image: `images` (n, 3, h, w)."""
        seen = []
        for size in (7, 5):  # sizes that a layer is not likely to have
            batch = images[torch.arange(size, device=images.device) % len(images)]
            with torch.no_grad(), seeded(0, self._held), ByRow(0, list(range(size)), None, self._held) as watched:
                self.net(batch)
            seen.append(watched.extents)
        if len(seen[0]) == len(seen[1]):
            self.rows = tuple(a // 7 if a % 7 == 0 and a // 7 * 5 == b else 0 for a, b in zip(*seen, strict=True))


class ByRow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Draws torch's random numbers by row: the k-th random operation of a pass has `rows[k]` rows an image.

    0: all images share what it draws. `rows` of None: as many as the first extent tells. `index` are the images' rows
    in the batch that the draw was made for.
    """

    def __init__(self, seed: int, index: list[int], rows: tuple[int, ...] | None, held: Sequence[Held] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seed, self.index, self.rows = seed, index, rows
        self.extents: list[int] = []
        self.cut = False
        ours = [torch.default_generator, *torch.cuda.default_generators, *held]
        # By their seeds, because a generator comes here as another object.
        self.given = {one.initial_seed() for one in ours if isinstance(one, torch.Generator)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        k, n, extent = len(self.extents), len(self.index), _extent(args)
        self.extents.append(extent)
        used = _used(args, kwargs)
        if used is None or used.initial_seed() not in self.given:  # the network has seeded it, or made it
            return func(*args, **kwargs)
        each = extent // n if self.rows is None and extent % n == 0 else 0
        if self.rows is not None and k < len(self.rows) and self.rows[k] * n == extent:
            each = self.rows[k]
        if not each:
            if self.cut:  # rows have been drawn since: where the stream is now depends on how many
                self._seed(used, k)
            return func(*args, **kwargs)
        self.cut = True
        parts = []
        for i, row in enumerate(self.index):
            self._seed(used, k, row)
            cut = [_cut(one, extent, i * each, each) for one in args]
            parts.append(func(*cut, **{name: _cut(one, extent, i * each, each) for name, one in kwargs.items()}))
        if func._schema.name.endswith("_"):
            return args[0]
        if isinstance(parts[0], tuple):
            return tuple(torch.cat(part) for part in zip(*parts, strict=True))
        return torch.cat(parts)

    def _seed(self, generator: torch.Generator, *numbers: int) -> None:
        generator.manual_seed(mixed(self.seed, *numbers))
        self.given.add(generator.initial_seed())


def generators(net: nn.Module) -> list[Held]:
    """The generators that a network or a part of it holds on to."""
    found: list[Held] = []
    for module in net.modules():
        with contextlib.suppress(TypeError):
            found += held_in([*vars(module).values(), *vars(type(module)).values()])
    return found


def held_in(values: Any) -> list[Held]:
    """The generators among some values, and one level down: in containers, and in what functions close over."""
    found: list[Held] = []
    for value in list(values):
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        if inspect.isfunction(value):
            with contextlib.suppress(ValueError):  # a cell that is not filled yet
                inside = [cell.cell_contents for cell in value.__closure__ or ()]
        found += [one for one in inside if isinstance(one, Held) and not isinstance(one, random.SystemRandom)]
    return found


def mixed(*numbers: int) -> int:
    """A seed of 63 bits made of several numbers."""
    digest = hashlib.blake2b(",".join(map(str, numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextlib.contextmanager
def seeded(seed: int, held: Sequence[Held] = ()) -> Iterator[None]:
    """Seed all global generators inside, and give them back as they were; `held` ones are seeded, too."""
    python, numpy = random.getstate(), np.random.get_state()
    # Asking a GPU for its generator's state would start CUDA on it, in a run that computes on the CPU too.
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        for k, one in enumerate(held):
            _reseed(one, mixed(seed, k))
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _reseed(one: Held, seed: int) -> None:
    match one:
        case torch.Generator():
            one.manual_seed(seed)
        case np.random.Generator():
            one.bit_generator.state = type(one.bit_generator)(seed).state
        case np.random.RandomState():
            one.seed(seed % 2**32)
        case random.Random():
            one.seed(seed)


def _used(args: Any, kwargs: Any) -> torch.Generator | None:
    """The generator that a random operation draws from; None if that is not known."""
    given = next((one for one in (*args, *kwargs.values()) if isinstance(one, torch.Generator)), None)
    if given is not None:
        return given
    place = next((one.device for one in args if isinstance(one, Tensor)), kwargs.get("device"))
    device = torch.device("cpu" if place is None else place)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator if device.type == "cpu" else None


def _index(rows: Tensor | slice | None, n: int) -> list[int]:
    if rows is None:
        return list(range(n))
    if isinstance(rows, slice):
        start = rows.start or 0
        return list(range(start, start + n))
    return [int(row) for row in rows.tolist()]


def _extent(args: Any) -> int:
    """The first extent of what a random operation draws; 0 for a number."""
    for one in args:
        if isinstance(one, Tensor):
            return len(one) if one.dim() else 0
        if isinstance(one, list | tuple) and all(isinstance(size, int) for size in one):
            return one[0] if one else 0
    return 0


def _cut(one: Any, extent: int, start: int, size: int) -> Any:
    """The part of an argument that is about some rows."""
    if isinstance(one, Tensor) and one.dim() and len(one) == extent:
        return one[start : start + size]
    if isinstance(one, list | tuple) and one and all(isinstance(i, int) for i in one) and one[0] == extent:
        return [size, *one[1:]]
    return one

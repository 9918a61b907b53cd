"""A network that a program holds in memory: what it is known by, and how another program meets it again."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import linecache
import re
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import UserError
from bench.lab.foreign.held import of_network
from bench.lab.foreign.theirs import Foreign, precision_of, theirs
from bench.lab.streams import fenced
from bench.lab.weights import files
from bench.models.adapters import python
from bench.models.adapters.checkpoint import Loaded
from bench.models.adapters.held import Redrawn
from bench.models.classifier import Classifier
from bench.recipes import Fetched

NOTE = "fetched.json"
PROBES = 16
LEVELS = 16
"""In how many steps of the largest logit the probes' answers are told apart: their last bits differ by machine."""


def identity(net: nn.Module, shape: tuple[int, int, int], where: str = "the network") -> str:
    """What a network is known by: see `known_by`."""
    return known_by(net, shape, where)[0]


def known_by(net: nn.Module, shape: tuple[int, int, int], where: str) -> tuple[str, dict[str, str]]:
    """SHA-256 over a network's state dict, the source of its classes and functions, the numbers that these hold on to
    and that no pass changes (also returned), and its logits on 16 probes.

    The probes are fixed images of `shape` (channels, height, width); noise is drawn from fixed seeds. Refused, by
    `where`, where it does not answer them.
    """
    digest = hashlib.sha256()
    if isinstance(net, Redrawn):
        with theirs(where, "its noise was drawn (redraw)"):
            net.settle()
    for name, tensor in sorted(net.state_dict().items()):
        if isinstance(tensor, Tensor):
            digest.update(f"{name!r} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(_bytes(tensor))
    for text in sources(net):
        digest.update(text.encode() + b"\0")
    before = of_network(net)
    answers(net, shape, where, PROBES // 2)
    between = of_network(net)
    logits = answers(net, shape, where).double()
    after = of_network(net)
    still = {name: said for name, said in after.items() if before.get(name) == between.get(name) == said}
    for name, text in sorted(still.items()):
        digest.update(f"{name} = {text}\n".encode())
    top = logits.abs().amax().clamp_min(1e-30)
    digest.update((logits / top * LEVELS).round().to(torch.int16).numpy().tobytes())
    return digest.hexdigest(), still


def answers(net: nn.Module, shape: tuple[int, int, int], where: str = "the network", count: int = PROBES) -> Tensor:
    """Logits (count, classes) on the probes, float32 on the CPU. Refused, by `where`, where it does not answer."""
    place = next((tensor.device for tensor in net.parameters()), torch.device("cpu"))
    dice = torch.Generator().manual_seed(0)
    probes = torch.rand(count, *shape, generator=dice).to(place, precision_of(net))
    with fenced(0), torch.no_grad(), theirs(where, f"{count} images went through it"):
        if isinstance(net, Classifier):
            said = net.realise(probes.shape, torch.Generator(device=place).manual_seed(0))(probes)
        else:
            said = net(probes)
    return said.detach().float().cpu()


def sources(net: nn.Module) -> Iterator[str]:
    """The source of every class of a network's parts that is no library's, and of the functions it calls."""
    seen: dict[Any, None] = {type(module): None for module in net.modules()}
    seen |= {function_of(module): None for module in net.modules() if function_of(module) is not None}
    for one in seen:
        with contextlib.suppress(OSError, TypeError):
            if own(inspect.getsourcefile(one)):
                yield source(one) if inspect.isclass(one) else inspect.getsource(one)


def source(kind: type) -> str:
    """The text of a class. (inspect builds the whole file's syntax tree, which Python 3.11 cannot do twice at once.)"""
    file = inspect.getsourcefile(kind)
    lines = linecache.getlines(file or "")
    begins = [i for i, line in enumerate(lines) if re.match(rf"\s*class\s+{re.escape(kind.__name__)}\b", line)]
    if not begins:
        raise OSError(f"no class {kind.__name__} in {file}")
    return "".join(inspect.getblock(lines[begins[-1] :]))


@functools.cache
def _libraries() -> tuple[Path, ...]:
    named = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return (*(Path(folder).resolve() for folder in named if folder), Path(__file__).resolve().parents[2])


def own(file: str | None) -> bool:
    """Whether a source file is the user's: neither Python's, nor an installed library's, nor the harness's."""
    return file is not None and not any(Path(file).resolve().is_relative_to(folder) for folder in _libraries())


def describe(recipe: Fetched, folder: Path) -> dict[str, Any]:
    """Write into `folder` what the held network is known by, as `fetch.describe` does of others."""
    note = {"source": "memory", "classes": recipe.classes, "sha256": {"identity": recipe.sha256}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    return {"fetched": note}


def load(recipe: Fetched, root: Path) -> Loaded:
    """The network, built and filled anew; ValueError and FileNotFoundError where it cannot be, or is another."""
    assert recipe.shape is not None
    if not recipe.build:
        what = f"the network {recipe.name} was in the memory of another program"
        raise ValueError(f"{what}. Name what builds it: build = 'file.py:function'.")
    loaded = python.load(recipe.build, recipe.classes, root=root, arguments=dict(recipe.arguments))
    if recipe.state:
        place = root / recipe.state
        state = files.read_shards(place)
        try:
            loaded.net.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(str(place), f"is not the state of {recipe.build}: {error}", "save it anew") from None
    net: nn.Module = loaded.net.eval()
    redraw = method(net, recipe.redraw) if recipe.redraw else None
    where = f"your model {recipe.name}"
    found = identity(net if redraw is None else Redrawn(net, redraw, recipe.classes), recipe.shape, where)
    if found != recipe.sha256:
        what = f"{recipe.build} with the state {recipe.state or 'that it builds'} is another network than was judged"
        raise ValueError(f"{what}: {found}, not {recipe.sha256}. Restore source and state, or judge it anew.")
    if not isinstance(net, Classifier):
        net = Foreign(net, where, recipe.classes)
    return loaded._replace(net=net if redraw is None else Redrawn(net, redraw, recipe.classes))


def function_of(module: nn.Module) -> Any:
    """The function behind a module that stands for one, None of others."""
    function = module.function if isinstance(module, python.Function) else None
    return getattr(function, "func", function)


def method(net: nn.Module, name: str) -> Callable[[torch.Generator], Any]:
    """The network's method of that name."""
    found = getattr(net, name, None)
    if not callable(found):
        raise ValueError(f"The network has no method {name} that draws its noise.")
    redraw: Callable[[torch.Generator], Any] = found
    return redraw


def _bytes(tensor: Tensor) -> Any:
    whole = tensor.detach().cpu().contiguous().reshape(-1)
    try:
        return whole.view(torch.uint8).numpy().data
    except RuntimeError:  # layouts that have no plain bytes
        return repr(tensor).encode()

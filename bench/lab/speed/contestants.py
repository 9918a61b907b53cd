"""The same work done by our code, by other libraries, and bare: what `speed` lets run against each other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bench.lab.attacks.peers import autoattack
from bench.lab.attacks.peers.fence import fence
from bench.lab.compute.passes import Compute, widest
from bench.lab.compute.precision import supported
from bench.lab.craft import craft
from bench.lab.judge import Judged, judge
from bench.lab.streams import Streams
from bench.models.classifier import Classifier
from bench.models.noise import Noisy
from bench.recipes import PGD, Peer, Stopping
from bench.votes.votes import Votes


def precisions(device: torch.device) -> tuple[str, ...]:
    """What ours computes in on this device: bfloat16 too, unless it were emulated, minutes slower than float32."""
    return ("float32", "bfloat16") if supported(device) else ("float32",)


Result = Tensor | Votes


class Way(NamedTuple):
    """One way of doing a case's work: `run(images, labels)` is what is timed."""

    name: str
    library: str
    precision: str
    run: Callable[[Tensor, Tensor], Result | None]
    note: str = ""


class Drawing(nn.Module):
    """A classifier as another library sees it: images to logits, every call a fresh draw."""

    def __init__(self, model: Classifier, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self.generator = torch.Generator(device=device).manual_seed(0)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images, self.generator if self.model.stochastic else None)
        return logits


def seen(model: Classifier, device: torch.device) -> Drawing:
    """What other libraries get: parameters frozen, in PyTorch's own memory layout, as their documentation shows."""
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    for module in plain.modules():
        if isinstance(module, Noisy):
            module.settle()
    return Drawing(plain, device)


def suited(model: Classifier, device: torch.device, precision: str) -> Compute:
    """The compute that a run would use."""
    compute = Compute(device, precision)
    compute.suit(widest(model))
    return compute


# -- attacks ---------------------------------------------------------------------------------


def pgd(attack: PGD, model: Classifier, device: torch.device) -> list[Way]:
    """Ours in both precisions."""
    stops = ", early stop" if attack.early_stop else ""
    return [
        Way(f"bench {precision}{stops}", "bench", precision, partial(_ours, attack, model, device, precision))
        for precision in precisions(device)
    ]


def _ours(
    attack: PGD, model: Classifier, device: torch.device, precision: str, images: Tensor, labels: Tensor
) -> Tensor:
    compute = suited(model, device, precision)
    return craft(attack, model, images, labels, Streams(0, 0, device), compute).images


def rivals(attack: PGD, model: Classifier, device: torch.device) -> list[Way]:
    """The same PGD by every library that is installed and has it, each in one batch of float32."""
    net = seen(model, device)
    ways = []
    if _installed("torchattacks"):
        ways.append(Way("torchattacks", "torchattacks", "float32", partial(_torchattacks, attack, net)))
    if attack.eot == 1 and _installed("foolbox"):
        ways.append(Way("foolbox", "foolbox", "float32", partial(_foolbox, attack, net, device)))
    if _installed("pyautoattack"):
        run, note = partial(_apgd, attack, net, model, device), "another algorithm; skips images that are wrong already"
        ways.append(Way("AutoAttack's APGD", "autoattack", "float32", run, note))
    return ways


def _installed(library: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(library) is not None


def _torchattacks(attack: PGD, net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    import torchattacks

    eps, step = float(attack.eps), float(attack.step)
    made: Any
    if attack.eot > 1:
        made = torchattacks.EOTPGD(net, eps=eps, alpha=step, steps=attack.steps, eot_iter=attack.eot)
    else:
        made = torchattacks.PGD(net, eps=eps, alpha=step, steps=attack.steps)
    with fence(0):
        crafted: Tensor = made(images, labels)
    return crafted


def _foolbox(attack: PGD, net: nn.Module, device: torch.device, images: Tensor, labels: Tensor) -> Tensor:
    import foolbox
    from foolbox.models import PyTorchModel  # type: ignore[attr-defined]

    made = foolbox.attacks.LinfPGD(abs_stepsize=float(attack.step), steps=attack.steps)
    with fence(0):
        framed = PyTorchModel(net, bounds=(0, 1), device=device)
        _, clipped, _ = made(framed, images, labels, epsilons=float(attack.eps))
    crafted: Tensor = clipped
    return crafted


def _apgd(
    attack: PGD, net: nn.Module, model: Classifier, device: torch.device, images: Tensor, labels: Tensor
) -> Tensor:
    settings = {"n_iter": attack.steps, "n_restarts": 1, "eot_iter": attack.eot}
    peer = Peer(kind="autoattack", name="custom", eps=attack.eps, arguments={"attacks": ["apgd-ce"], "apgd": settings})
    with fence(0):
        made = autoattack.build(peer, net, model.classes, device, 0)
        crafted, _ = made.run_standard_evaluation(images, labels, batch_size=len(images))
    result: Tensor = crafted
    return result


# -- predictions -----------------------------------------------------------------------------


def judged(model: Classifier, device: torch.device, draws: int, rule: Stopping, precision: str, name: str) -> Way:
    """Our judge's votes."""
    return Way(name, "bench", precision, partial(votes_of, model, device, draws, rule, precision=precision))


def votes_of(
    model: Classifier,
    device: torch.device,
    draws: int,
    rule: Stopping,
    images: Tensor,
    labels: Tensor,
    *,
    precision: str,
) -> Votes:
    n = len(images)
    shard = Judged(images, labels, np.arange(n), np.zeros(n, np.float32), np.full(n, -1, np.int8))
    return judge(model, shard, draws, rule, Streams(0, 0, device), suited(model, device, precision))


def looped(model: Classifier, device: torch.device, draws: int) -> Way:
    """What a user would write: one batch, float32, a loop over the draws."""
    return Way("eager PyTorch", "PyTorch", "float32", partial(_looped, seen(model, device), draws))


def _looped(net: Drawing, draws: int, images: Tensor, labels: Tensor) -> Tensor:
    counts = torch.zeros(len(images), net.model.classes, device=images.device)
    rows = torch.arange(len(images), device=images.device)
    with torch.no_grad():
        for _ in range(draws):
            counts[rows, net(images).argmax(1)] += 1
    return counts.argmax(1)

"""What a model shows before it is attacked: outputs and modes that no honest defence has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bench.lab.attacks import losses
from bench.lab.attacks.view import View
from bench.lab.compute.passes import Compute
from bench.lab.examine.rules import LEAST, Finding, chance, tested
from bench.lab.foreign.ask import distances
from bench.lab.streams import Streams
from bench.models.classifier import Classifier, Realisation
from bench.models.wide_resnet import CIFAR10_MEAN, CIFAR10_STD

JITTER = 1e-3
"""Difference of unit-length logits that batch sizes and kernels may cause: AutoAttack's 1e-4, and room for bf16."""


@dataclass(frozen=True)
class Case:
    """A model and the images (n, 3, h, w) in [0, 1] with labels (n,) that it is examined on."""

    model: Classifier
    images: Tensor
    labels: Tensor
    streams: Streams
    compute: Compute

    @property
    def view(self) -> View:
        return View(self.model, self.images.shape, self.streams, self.compute)

    def asked(self) -> Tensor:
        """The first question: logits (n, classes) of one draw."""
        return self.view.logits(self.images, None, "select", 80)

    def few(self, images: int) -> Case:
        """The same with the first images alone."""
        return replace(self, images=self.images[:images], labels=self.labels[:images])


class Anchored(Classifier):
    """A model whose output has a gradient to the input, of zero where there was none to take."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model, self.classes, self.stochastic = model, model.classes, model.stochastic

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        inner = self.model.realise(shape, generator)
        return lambda images, rows=None: inner(images, rows) + 0 * images.flatten(1).sum(1, keepdim=True)


class Frozen(Classifier):
    """One draw of a stochastic model, the same at every call: deterministic from here on."""

    stochastic = False

    def __init__(self, model: Classifier, seed: int) -> None:
        super().__init__()
        self.model, self.classes, self.seed = model, model.classes, seed

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        return self.model.realise(shape, torch.Generator(device=device).manual_seed(self.seed))


def modes(case: Case) -> Finding:
    """Dropout and batch normalisation must be in evaluation mode, and stay in it over a forward pass."""
    before = [(module, module.training) for module in case.model.modules()]
    left = _training(case.model)
    case.view.logits(case.images[:2], torch.arange(2, device=case.images.device), "select", 90)
    switched = [name for name in _training(case.model) if name not in left]
    for module, mode in before:
        module.training = mode
    if left:
        return Finding("mode", f"{len(left)} modules in training mode", "suspicious", f"call eval(): {left[0]}")
    if switched:
        advice = f"a forward pass must not change the mode: {switched[0]}"
        return Finding("mode", f"{len(switched)} modules switch to training mode", "suspicious", advice)
    return Finding("mode", "all modules in evaluation mode", "ok")


def _training(model: Classifier) -> list[str]:
    # A Classifier itself is the same in both modes; what it wraps may not be.
    parts = ((name, module) for name, module in model.named_modules() if not isinstance(module, Classifier))
    return [name for name, module in parts if module.training]


def batch_mates(case: Case, first: Tensor | None = None) -> Finding:
    """An image's output must depend neither on the images beside it nor on how many they are.

    `first` (n, classes) is what was answered to the first question, in the batch of all.
    """
    view, few = case.view, min(16, len(case.images))
    draw, whole = view.draw("select", 80), case.asked() if first is None else first

    def answers(rows: Tensor) -> Tensor:
        rows = rows.to(case.images.device)
        return view.compute.logits(draw, case.images[rows], rows)

    beside = [torch.arange(1), torch.arange(few // 2), torch.arange(few - 1, -1, -1)]
    worst = max(distance(whole[rows.to(whole.device)], answers(rows)) for rows in beside)
    figure = f"outputs move by {worst:.2g} when the batch changes"
    if worst > JITTER and distance(answers(beside[1]), answers(beside[1])) > JITTER:
        return Finding("batch-mates", figure, "cannot tell", "outputs vary even where the batch does not")
    if worst > JITTER:
        advice = "the attack shapes the batch it is judged in: make each output a function of its own image"
        return Finding("batch-mates", figure, "suspicious", advice)
    return Finding("batch-mates", figure, "ok")


def encoding(case: Case) -> Finding:
    """Images in [0, 1], RGB, must be what the model understands best among the usual encodings."""
    case = case.few(32)
    view, n = case.view, len(case.images)
    shape = (1, -1, 1, 1)
    others = {"0 to 255": case.images * 255, "-1 to 1": case.images * 2 - 1}
    if case.images.shape[1] == 3:
        # CIFAR-10's own: those of other natural images differ by less than matters to which encoding is understood.
        mean, std = (torch.tensor(v, device=case.images.device).view(shape) for v in (CIFAR10_MEAN, CIFAR10_STD))
        others |= {"normalised": (case.images - mean) / std, "BGR": case.images.flip(1)}

    def right(images: Tensor) -> Any:
        return (~losses.wrong(view.logits(images, None, "select", 94), case.labels)).double().cpu().numpy()

    own = right(case.images)
    best, better = max(((name, right(images)) for name, images in others.items()), key=lambda item: item[1].mean())
    figure = f"{100 * own.mean():.0f} % right on images in [0, 1], {100 * better.mean():.0f} % as {best}"
    p = min(1.0, len(others) * chance(better, own))  # the best of several
    advice = f"the model expects {best}: convert inside the model"
    found = tested("encoding", figure, p, advice, float(better.mean() - own.mean()) > LEAST)
    if found.verdict != "ok":
        return found
    guess = 1 / case.model.classes
    if own.mean() <= guess + 2 * (guess * (1 - guess) / n) ** 0.5:
        return Finding("encoding", figure, "cannot tell", "no better than chance on clean images", found.p)
    return found


def softmax(out: Tensor) -> Finding:
    """Outputs (n, classes) must be logits: a softmax inside the model shrinks the gradients of a loss with its own."""
    sums = float((out.sum(1) - 1).abs().max())
    if float(out.min()) > -1e-5 and float(out.max()) < 1 + 1e-5 and sums < 1e-3:
        return Finding("softmax", "outputs are probabilities", "suspicious", "return what is before the softmax")
    return Finding("softmax", f"outputs from {float(out.min()):.3g} to {float(out.max()):.3g}", "ok")


def optimises(case: Case) -> Finding:
    """A forward pass that takes gradients of its own is not differentiated by a plain attack (AutoAttack's check)."""
    with _counted_autograd() as calls, torch.enable_grad():
        case.view.draw("select", 96)(case.images[:2], torch.arange(2, device=case.images.device))
    if calls:
        advice = "differentiate through it, or attack it by transfer and black-box"
        return Finding("optimises", f"{len(calls)} gradient calls in a forward pass", "suspicious", advice)
    return Finding("optimises", "no gradient calls in a forward pass", "ok")


def distance(one: Tensor, other: Tensor) -> float:
    """The largest of `distances`; infinite where an answer is no number."""
    return float(torch.nan_to_num(distances(one, other), nan=torch.inf).max())


@contextlib.contextmanager
def _counted_autograd() -> Iterator[list[str]]:
    calls: list[str] = []
    grad, backward = torch.autograd.grad, torch.autograd.backward

    def counted(name: str, call: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return call(*args, **kwargs)

        return run

    torch.autograd.grad, torch.autograd.backward = counted("grad", grad), counted("backward", backward)
    try:
        yield calls
    finally:
        torch.autograd.grad, torch.autograd.backward = grad, backward

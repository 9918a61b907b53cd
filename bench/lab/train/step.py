"""One training step: perturb, learn from the clean and from the perturbed batch, move the weights."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.lab.compute.memory import give_back, out_of_memory
from bench.lab.compute.passes import Compute
from bench.lab.streams import Streams
from bench.lab.train.optimise import average, optimiser, rate
from bench.lab.train.options import Use
from bench.lab.train.perturb import perturb
from bench.lab.train.teach import teach
from bench.lab.weights.build import fit
from bench.models.classifier import Classifier
from bench.models.distill import distillation_loss
from bench.models.smoothing import Smoothed
from bench.recipes import Distilled, Trained


def shadow(model: Classifier) -> Classifier:
    """The same classifier over the same tensors, for ever in eval mode and frozen.

    Attacks run on it, so that no step switches modes or gradients back and forth.
    """
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    for own, shared in zip(twin.parameters(), model.parameters(), strict=True):
        own.data = shared.data
    for module, origin in zip(twin.modules(), model.modules(), strict=True):
        module._buffers.update(origin._buffers)
    return twin


def copy_all(tensors: list[Tensor], into: list[Tensor]) -> None:
    """Copy each tensor into its counterpart."""
    if tensors:
        torch._foreach_copy_(into, tensors)


def noisy_input(core: Classifier, recipe: Trained | Distilled) -> Classifier:
    """The classifier with the Gaussian input noise that the recipe trains with."""
    training = recipe.training
    if training.sigma == 0:
        return core
    std = getattr(core.net, "std", None)  # a network of another kind may not normalise
    std = std.flatten().tolist() if isinstance(std, Tensor) else None
    return Smoothed(core, float(training.sigma), training.unit, tuple(std) if std else None)


class Stepper:
    """The model in training, what moves it, and how a batch is learnt from.

    The clean batch and the perturbed one are two forward passes, each with its own draw of the noise and
    its own batch statistics, as in the CNI authors' code; one of weight 0 is left out. Where
    memory is short a batch is learnt from in parts: same draw and same gradient, but batch statistics of
    the parts.
    """

    def __init__(
        self,
        recipe: Trained | Distilled,
        core: Classifier,
        teacher: Classifier | None,
        steps: int,
        device: torch.device,
        precision: str,
        *,
        note: Callable[[str], None],
    ) -> None:
        training = recipe.training
        self.recipe, self.teacher, self.steps, self.note = recipe, teacher, steps, note
        self.core = core.to(device).to(memory_format=torch.channels_last).requires_grad_(True).train()
        self.model = noisy_input(self.core, recipe).to(device).train()
        self.attacked, self.shown = shadow(self.model), shadow(self.model)
        self.averaged: Classifier | None = None
        self.pairs: list[tuple[Tensor, Tensor]] = []
        if training.ema is not None:
            self.averaged = self.shown = copy.deepcopy(self.model).eval().requires_grad_(False)
            now = self.model.state_dict()
            self.pairs = [(m, now[k]) for k, m in self.averaged.state_dict().items() if m.is_floating_point()]
        self.statistics = list(self.model.buffers())
        self.kept = [buffer.clone() for buffer in self.statistics]
        self.optimiser = optimiser(training.optimiser, self.model)
        self.compute = Compute(device, precision, training.batch)
        judged = recipe.precision if isinstance(recipe, Distilled) else precision
        self.taught = Compute(device, judged, max(512, training.batch))
        self.perturbed = 0.0 if training.attack is None else training.adversarial_weight

    @property
    def chance(self) -> float:
        """The loss of a network that gives every class the same probability."""
        scale = math.log(self.recipe.network.classes)
        match self.recipe:
            case Distilled(temperature=t, distil_weight=w, perturb_distil_weight=v):
                clean, perturbed = 1 - w + w * t * t, 1 - v + v * t * t
                return scale * ((1 - self.perturbed) * clean + self.perturbed * perturbed)
        return scale

    def tensors(self) -> dict[str, Tensor]:
        """All that steps change, by name, for `restore`."""
        found = {f"model/{name}": tensor for name, tensor in self.core.state_dict().items()}
        if self.averaged is not None:
            found |= {f"mean/{name}": tensor for name, tensor in self.averaged.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            entries = self.optimiser.state[parameter].items()
            found |= {f"optimiser/{name}/{entry}": value for entry, value in entries if isinstance(value, Tensor)}
        return found

    def restore(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Go back to where `tensors` were taken; UserError, naming `where`, if they are another model's."""
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "mean": {}, "optimiser": {}}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            groups.setdefault(kind, {})[rest] = tensor
        fit(self.core, groups["model"], where)
        if self.averaged is not None:
            fit(self.averaged, groups["mean"], where)
        parameters = dict(self.model.named_parameters())
        for name, tensor in groups["optimiser"].items():
            parameter, _, entry = name.rpartition("/")
            like = parameters[parameter]
            # In the parameter's memory layout, which the fused kernels walk through.
            own = torch.empty_like(like if tensor.shape == like.shape else tensor, device=like.device)
            self.optimiser.state[like][entry] = own.detach().copy_(tensor)

    def streams(self, use: Use, at: int) -> Streams:
        """The generators for one use in step `at`."""
        number = Streams(self.recipe.training.seed, 0, self.compute.device).number("train", use, at)
        return Streams(number, 0, self.compute.device)

    def __call__(self, images: Tensor, labels: Tensor, cached: Tensor | None, at: int) -> Tensor:
        """Step `at` (from 0) on images (b, 3, h, w); `cached` (b, classes) are the clean batch's targets.

        Returns the loss (a scalar on the device). Runs again in smaller parts when memory is short, from what the
        batch statistics were before: no batch counts twice.
        """
        copy_all(self.statistics, self.kept)
        while True:
            try:
                loss = self._gradients(images, labels, cached, at)
                break
            except RuntimeError as error:
                if not out_of_memory(error) or self.compute.microbatch == 1:
                    raise
            self._lower(len(images))
        training = self.recipe.training
        share = rate(training.schedule, training.epochs, self.steps, at)
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * share
        if training.optimiser.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), training.optimiser.clip)
        for parameter in self.model.parameters():  # what no draw of this step used
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if training.ema is not None:
            average(self.pairs, training.ema, at)
        return loss

    @contextlib.contextmanager
    def unlearnt(self) -> Iterator[None]:
        """Passes inside leave the batch statistics as they were."""
        copy_all(self.statistics, self.kept)
        try:
            yield
        finally:
            copy_all(self.kept, self.statistics)

    def _lower(self, batch: int) -> None:
        """Make the parts of a batch smaller, outside the except clause, whose traceback holds the failed pass."""
        self.compute.microbatch = -(-min(self.compute.microbatch, batch) // 2)
        self.optimiser.zero_grad(set_to_none=True)
        copy_all(self.kept, self.statistics)
        give_back(self.compute.device)
        self.note(f"out of memory: batches of {batch} go on in parts of {self.compute.microbatch}")

    def _gradients(self, images: Tensor, labels: Tensor, cached: Tensor | None, at: int) -> Tensor:
        recipe, attack = self.recipe, self.recipe.training.attack
        loss = torch.zeros((), device=images.device)
        moved = images
        if attack is not None and self.perturbed > 0:
            moved = perturb(attack, self.attacked, images, labels, self.streams(Use.PERTURBED, at), self.compute)
        if self.perturbed < 1:
            weight = recipe.distil_weight if isinstance(recipe, Distilled) else 0.0
            targets = self._targets(images, cached, weight, Use.TEACH_CLEAN, at)
            loss += self._learn(images, labels, targets, weight, 1 - self.perturbed, Use.CLEAN, at=at)
        if self.perturbed > 0:
            weight = recipe.perturb_distil_weight if isinstance(recipe, Distilled) else 0.0
            targets = self._targets(moved, None, weight, Use.TEACH_PERTURBED, at)
            loss += self._learn(moved, labels, targets, weight, self.perturbed, Use.PERTURBED, at=at)
        return loss

    def _targets(self, images: Tensor, cached: Tensor | None, weight: float, use: Use, at: int) -> Tensor | None:
        recipe = self.recipe
        if not isinstance(recipe, Distilled) or weight == 0:
            return None
        if cached is not None:
            return cached
        assert self.teacher is not None
        streams = self.streams(use, at)
        return teach(
            self.teacher, images, recipe.rule, recipe.online_draws, recipe.temperature, streams, compute=self.taught
        )  # fmt: skip

    def _learn(
        self, images: Tensor, labels: Tensor, targets: Tensor | None, weight: float, share: float, use: Use, *, at: int
    ) -> Tensor:
        """Adds `share` times the gradient of the batch's mean loss; returns that much loss."""
        recipe, n = self.recipe, len(images)
        total = torch.zeros((), device=images.device)
        for first in range(0, n, self.compute.microbatch):
            rows = slice(first, min(n, first + self.compute.microbatch))
            # Each part draws the whole batch's noise from the same generator: one draw, however it is cut.
            realisation = self.model.realise(images.shape, self.streams(use, at).generator("train"))
            with self.compute.autocast():
                logits = realisation(images[rows], rows).float()
            if targets is None:
                loss = F.cross_entropy(logits, labels[rows])
            else:
                temperature = recipe.temperature if isinstance(recipe, Distilled) else 1.0
                loss = distillation_loss(logits, labels[rows], targets[rows], weight, temperature)
            if (penalty := self.core.penalty()) is not None:
                loss = loss + penalty
            loss = loss * (share * (rows.stop - rows.start) / n)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self.compute.forwards += n
        self.compute.backwards += n
        return total

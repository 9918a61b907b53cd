"""A training's passes compiled: whether that is worth what it costs, tried once, and given up where it fails."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from bench.lab.compute import compiling
from bench.lab.compute.memory import give_back
from bench.lab.compute.passes import Compute
from bench.lab.train.options import Options
from bench.lab.train.settings import net_of
from bench.lab.train.step import Stepper
from bench.models.classifier import Classifier, alters


class Compiled:
    """The compiled passes of a training on images of `shape` (c, h, w), of which it takes `images` in all; `on` says
    whether they are, which a kept state remembers."""

    def __init__(self, stepper: Stepper, shape: tuple[int, ...], images: int, options: Options) -> None:
        self.stepper, self.shape, self.options = stepper, shape, options
        self.on = self._worthwhile(float(images))
        self._undo: Callable[[], None] | None = None
        self._size = 0

    def _worthwhile(self, images: float) -> bool:
        stepper, options = self.stepper, self.options
        if options.exact or options.compile == "never" or alters(stepper.core):
            return False
        if options.compile == "always":
            return True
        attack, place = stepper.recipe.training.attack, stepper.compute.device.type
        steps = attack.steps * attack.gradients_a_step if attack is not None and stepper.perturbed > 0 else 0
        halves = (stepper.perturbed > 0) + (stepper.perturbed < 1)
        work = compiling.gigaflops(net_of(stepper.shown), self.shape[1])
        found = compiling.gain(place, stepper.compute.precision, work) if compiling.compiler(place) else None
        return compiling.repays(images * steps, images * halves, work, found)

    def begin(self) -> None:
        """Compile if that was decided, here or by the run whose state is gone on from."""
        if self.on and self.options.exact:
            self.stepper.note("going on without compiling, under --exact")
            self.on = False
        if self.on:
            self._size = self.stepper.compute.microbatch
            self._undo = compile_passes(self.stepper, self.shape)
            self.on = self._undo is not None

    def follow(self) -> None:
        """Compile anew where memory has made the parts of a batch smaller."""
        if self.on and self.stepper.compute.microbatch != self._size:
            assert self._undo is not None
            self._undo()
            self.begin()


def compile_passes(stepper: Stepper, shape: tuple[int, ...], backend: str = "inductor") -> Callable[[], None] | None:
    """Compile the network's forward pass in both roles, for the parts that batches of images (c, h, w) are learnt in;
    the pass backward follows from it. Returns what undoes it; None, with a note, where it fails.

    It is tried at once, in a pass each that leaves nothing behind: no gradient, no batch statistics, no random number.
    """
    compute, undone = stepper.compute, []
    size = min(compute.microbatch, stepper.recipe.training.batch)
    roles = [stepper.model] + [stepper.attacked] * (stepper.perturbed > 0)
    try:
        for model in roles:
            undone.append(compiling.compile_for(net_of(model), size, backend, autocast=compute.precision == "bfloat16"))
            with stepper.unlearnt():
                _try(model, torch.full((size, *shape), 0.5, device=compute.device), compute)
    except Exception as error:  # whatever a compiler can raise, eager PyTorch does not need it
        said = error
    else:
        return lambda: _all(undone)
    _all(undone)
    give_back(compute.device)
    stepper.note(f"torch.compile failed ({type(said).__name__}): going on without it")
    return None


def _all(undone: list[Callable[[], None]]) -> None:
    for undo in undone:
        undo()


def _try(model: Classifier, images: Tensor, compute: Compute) -> None:
    """One pass there and back, to the weights of a model in training, else to the images."""
    images = images.contiguous(memory_format=torch.channels_last)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    leaves = weights if model.training else [images.requires_grad_(True)]
    generator = torch.Generator(images.device).manual_seed(0)  # it decides nothing
    with nullcontext() if model.training else torch.no_grad():
        realisation = model.realise(images.shape, generator)
    with torch.enable_grad(), compute.autocast():
        loss = realisation(images, slice(0, len(images))).float().square().sum()
    torch.autograd.grad(loss, leaves, allow_unused=True)

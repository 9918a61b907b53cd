"""The training loop: epochs, curves, states to go on from, and the ways in which a training fails."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench import Paused, UserError
from bench.lab.compute.passes import Compute
from bench.lab.compute.precision import supported
from bench.lab.streams import Streams
from bench.lab.train import curves, outcome, state
from bench.lab.train.batches import Batches, order
from bench.lab.train.compiled import Compiled
from bench.lab.train.inputs import Inputs, checked
from bench.lab.train.optimise import rate
from bench.lab.train.options import Options, Use
from bench.lab.train.settings import fingerprint, settings
from bench.lab.train.step import Stepper
from bench.lab.weights import build
from bench.models.classifier import Classifier
from bench.recipes import Distilled, Trained

WINDOW = 100
"""Losses are looked at once in this many steps: looking waits for the device."""
STALL_AFTER, STALL_SHARE = 400, 0.985
"""A loss still above this share of chance's, this many steps past the warm-up, will not come down."""


def train(
    recipe: Trained | Distilled,
    images: Tensor | NDArray[np.uint8],
    labels: Tensor | NDArray[np.int64],
    *,
    device: torch.device,
    state_dir: Path,
    out: Path,
    teacher: Classifier | None = None,
    targets: NDArray[np.float32] | None = None,
    options: Options | None = None,
) -> dict[str, Any]:
    """Train a recipe's weights and write them with `model.toml` and `curves.parquet` into the directory `out`.

    `images` (n, h, w, 3) or (n, 3, h, w) uint8 and `labels` (n,) are the recipe's data, all of it: the last
    `training.validation` of them are held out. `teacher`, on `device`, in eval mode, is needed where
    teaching is online, `targets` (n, classes) where it is cached. State is kept in `state_dir`, from which
    the same call goes on after any interruption: on one CPU to the same weights, bit for bit. It may be
    removed once `out` is safe.

    Returns the provenance: seconds, images a second, forward and backward passes, precision, device and the
    curves' last values. Paused after stopping on request with the state saved; UserError for inputs that
    do not fit the recipe, a loss that is no number, or one that stays at chance.
    """
    options = options or Options()
    inputs = checked(recipe, images, labels, teacher, targets)
    with settings(options.exact):
        return _Run(recipe, inputs, teacher, device, state_dir, options).finish(out)


class _Run:
    def __init__(
        self,
        recipe: Trained | Distilled,
        inputs: Inputs,
        teacher: Classifier | None,
        device: torch.device,
        directory: Path,
        options: Options,
    ) -> None:
        training = recipe.training
        self.recipe, self.options, self.directory, self.device = recipe, options, directory, device
        self.name = f"{type(recipe).__name__} {recipe.key[:12]}"
        self.events = curves.Events(options.tensorboard)
        kept = len(inputs.labels) - training.validation
        self.steps = kept // training.batch
        self.total = self.steps * training.epochs
        self.batches = Batches(inputs.images[:kept], inputs.labels[:kept], training.augment, device)
        held = Batches(inputs.images[kept:], inputs.labels[kept:], "none", device)
        self.held = held(torch.arange(training.validation, device=device), torch.Generator(device))
        self.targets = None if inputs.targets is None else inputs.targets[:kept].to(device)
        # Emulated bfloat16 is far slower than float32.
        self.precision = training.precision if supported(device) else "float32"
        self.stepper = Stepper(
            recipe, build.build(recipe), teacher, self.steps, device, self.precision, note=self._note
        )  # fmt: skip
        self.recent = torch.zeros(WINDOW, device=device)
        self.sum = torch.zeros((), device=device, dtype=torch.float64)
        self.at, self.rows, self.spent = 0, list[dict[str, Any]](), 0.0
        self.kept = -1  # the step of the last state on the disk
        shape = (self.batches.images.shape[3], self.batches.height, self.batches.width)
        self.compiled = Compiled(self.stepper, shape, self.total * training.batch, options)
        self.inputs = fingerprint(inputs, teacher)
        self._restore()
        self.begun = self.saved = time.monotonic()
        self.compiled.begin()

    def finish(self, out: Path) -> dict[str, Any]:
        """Train to the end and write what comes out."""
        try:
            while True:
                if self.at % self.steps == 0 and self.at > 0 and len(self.rows) < self.at // self.steps:
                    self._close_epoch()
                if self.at == self.total:
                    break
                self._pause()
                self._step()
        finally:
            self.events.close()
        self._save()
        how = {"compiled": self.compiled.on, "exact": self.options.exact}
        return outcome.write(out, self.stepper, self.rows, self._seconds, self.inputs, **how)

    def _step(self) -> None:
        epoch, position = divmod(self.at, self.steps)
        batch = self.recipe.training.batch
        if position == 0 or self.order is None:
            generator = Streams(self.recipe.training.seed, 0, torch.device("cpu")).generator("train", Use.ORDER, epoch)
            self.order = order(len(self.batches.labels), generator).to(self.device)
        rows = self.order[position * batch : (position + 1) * batch]
        images, labels = self.batches(rows, self.stepper.streams(Use.AUGMENT, self.at).generator("train"))
        cached = None if self.targets is None else self.targets[rows]
        loss = self.stepper(images, labels, cached, self.at)
        self.compiled.follow()
        self.recent[self.at % WINDOW] = loss
        self.sum += loss
        self.at += 1
        if self.at % WINDOW == 0 or self.at % self.steps == 0:
            self._look()
        if self.at % 5 == 0 or self.at == self.total:
            text = f"epoch {epoch + 1} of {self.recipe.training.epochs}"
            self.options.progress(self.at, self.total, text)

    order: Tensor | None = None

    def _look(self) -> None:
        """Stop if the last losses are no numbers, or have stayed at chance."""
        losses = self.recent.tolist()
        first = max(0, self.at - WINDOW)
        for step in range(first, self.at):
            if not np.isfinite(losses[step % WINDOW]):
                self._diverged(f"the loss is no number at step {step + 1} of {self.total}")
        begins = STALL_AFTER + self.recipe.training.schedule.warmup * self.steps
        if self.at % WINDOW == 0 and self.at >= begins:
            mean = sum(losses) / WINDOW
            if mean > STALL_SHARE * self.stepper.chance:
                what = f"after {self.at} steps the loss is {mean:.3f}, chance is {self.stepper.chance:.3f}: it stalls"
                noise = getattr(self.recipe.noise, "scale", None) == "reference"
                fix = 'the reference noise does not train at this width: set noise.scale = "relative"'
                raise UserError(self.name, what, fix if noise else "change training.optimiser.lr, or attack less")

    def _diverged(self, what: str) -> None:
        kept = [path.name for path in sorted(self.directory.glob("step-*"))]
        last = f"the last good state, {kept[-1]}, is kept" if kept else "no state was saved yet"
        raise UserError(self.name, what, f"lower training.optimiser.lr or set training.optimiser.clip; {last}")

    def _close_epoch(self) -> None:
        """Measure the held-out images and add a row to the curves."""
        training, epoch = self.recipe.training, self.at // self.steps
        streams = self.stepper.streams(Use.VALIDATE, epoch)
        compute = Compute(self.device, self.precision, min(500, self.stepper.compute.microbatch * 4))
        found = curves.validate(self.stepper.shown, *self.held, training.validation_attack, streams, compute)
        row = {"epoch": epoch, "step": self.at, "loss": float(self.sum) / self.steps, **found}
        row["rate"] = training.optimiser.lr * rate(training.schedule, training.epochs, self.steps, self.at - 1)
        self.rows.append(row)
        self.sum.zero_()
        self.events.add(row)
        known = [f"{name} {row[name]:.3f}" for name in ("loss", "clean", "attacked") if row[name] is not None]
        self._note(f"epoch {epoch} of {training.epochs}: {', '.join(known)}")
        every = self.options.save_every_epochs
        if every is not None and epoch % every == 0 and self.at < self.total:
            self._save()

    def _pause(self) -> None:
        """Save if it is time to; stop, with the state saved, if that is asked for."""
        now, options = time.monotonic(), self.options
        late = options.max_seconds is not None and now - self.begun >= options.max_seconds
        if late or options.should_stop():
            self._save()
            done = f"epoch {self.at // self.steps + 1} of {self.recipe.training.epochs}, step {self.at} of {self.total}"
            raise Paused(f"training {self.name} paused in {done}: the same command goes on from there")
        if options.save_every_seconds is not None and now - self.saved >= options.save_every_seconds:
            self._save()

    def _save(self) -> None:
        if self.kept == self.at:
            return
        self._look()
        tensors = {**self.stepper.tensors(), "recent": self.recent, "sum": self.sum}
        bad = [k for k, v in tensors.items() if v.is_floating_point() and not bool(v.isfinite().all())]
        if bad:
            self._diverged(f"after step {self.at} of {self.total}, {bad[0]} is no number")
        compute = self.stepper.compute
        facts = {
            "step": self.at, "key": self.recipe.key, "inputs": self.inputs, "rows": self.rows,
            "seconds": self._seconds, "microbatch": compute.microbatch,
            "forwards": compute.forwards, "backwards": compute.backwards, "taught": self.stepper.taught.forwards,
            "compiled": self.compiled.on,
        }  # fmt: skip
        state.write(self.directory, tensors, facts)
        self.kept, self.saved = self.at, time.monotonic()

    def _restore(self) -> None:
        found = state.read(self.directory, self.recipe.key, self.inputs, self._note)
        if found is None:
            return
        tensors, facts = found
        self.stepper.restore(tensors, str(self.directory))
        self.recent.copy_(tensors["recent"])
        self.sum.copy_(tensors["sum"])
        self.at, self.rows, self.spent = facts["step"], facts["rows"], facts["seconds"]
        self.kept = self.at
        self.compiled.on = facts["compiled"]
        compute = self.stepper.compute
        compute.microbatch = facts["microbatch"]
        compute.forwards, compute.backwards = facts["forwards"], facts["backwards"]
        self.stepper.taught.forwards = facts["taught"]
        self._note(f"going on from step {self.at} of {self.total}")

    @property
    def _seconds(self) -> float:
        return self.spent + time.monotonic() - self.begun

    def _note(self, message: str) -> None:
        self.options.progress(self.at, self.total, message)



"""A view of a model: a copy of it run under interception, behind the interface of every classifier."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bench.lab.attacks.adapt import copies
from bench.lab.attacks.adapt.copies import ViewError
from bench.lab.attacks.adapt.kinds import EVERYTHING, Choice
from bench.lab.attacks.adapt.mode import Interception
from bench.lab.attacks.adapt.passes import Pass
from bench.lab.attacks.adapt.patches import held, patched
from bench.lab.attacks.adapt.uses import Uses
from bench.models.classifier import Classifier, Realisation


class Surrogate(Classifier):
    """A model as one view shows it: shapes and dtypes are the model's own, gradients (and some values) are not.

    `base` is a copy made by `copies.copied`, whose parameters views share. Deterministic where the model is, and
    where the view leaves one draw ("common-draw"). With `fresh`, each call runs on a copy that has seen nothing yet.
    """

    def __init__(self, base: Classifier, choice: Choice, bridges: tuple[str, ...] = (), fresh: bool = False) -> None:
        super().__init__()
        self.classes, self.choice, self.fresh = base.classes, choice, fresh
        self.stochastic = base.stochastic and "common-draw" not in choice.kinds
        self.inner_model = copies.copied(base, sharing=True)
        if "hooks" in choice.kinds:
            copies.unhooked(self.inner_model)
        if "bridges" in choice.kinds:
            copies.bridge(self.inner_model, list(bridges))
        if "clipped" in choice.kinds:
            copies.clip(self.inner_model)
        self._held = held(self.inner_model)
        self._noisy = base.stochastic

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        if self._noisy and not self.stochastic:
            place = next((p.device for p in self.inner_model.parameters()), torch.device("cpu"))
            generator = torch.Generator(device=place).manual_seed(0)
        if self.fresh:
            return self._fresh(shape, generator)
        with self._intercepted(Pass(self.choice)):
            draw = self.inner_model.realise(shape, generator)

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            return self.run(draw, images, rows)

        return realisation

    def _fresh(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        state = None if generator is None else generator.get_state()

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            again = None if generator is None else torch.Generator(device=generator.device)
            if again is not None and state is not None:
                again.set_state(state)
            model = copies.copied(self.inner_model, sharing=True)
            with self._intercepted(Pass(self.choice)):
                draw = model.realise(shape, again)
            return self.run(draw, images, rows)

        return realisation

    def run(self, draw: Realisation, images: Tensor, rows: Tensor | slice | None, at: Pass | None = None) -> Tensor:
        """Logits (n, classes) of one pass; with a gradient to `images` of zero where there is none to take."""
        at = at or Pass(self.choice)
        with self._intercepted(at):
            logits = draw(images.clone(), rows)
        if not isinstance(logits, Tensor) or logits.shape[:1] != images.shape[:1]:
            raise ViewError("the model's output is no tensor of logits under interception")
        if at.wanted is not None:
            if at.wanted >= len(at.inner):
                raise ViewError(f"there is no inner linear layer {at.wanted}")
            if at.inner[at.wanted].shape != logits.shape:
                raise ViewError(f"inner linear layer {at.wanted} has another shape")
            logits = at.inner[at.wanted].to(logits.dtype)
        if images.requires_grad and not logits.requires_grad:
            logits = logits + 0 * images.flatten(1).sum(1, keepdim=True)
        return logits

    @contextlib.contextmanager
    def _intercepted(self, at: Pass) -> Iterator[None]:
        with patched(at, self._held), Interception(at, self.classes):
            yield


def look(base: Classifier, images: Tensor, generator: torch.Generator | None) -> Uses:
    """What a model uses, in one pass with everything on.

    `base` is a copy made by `copies.copied`. Modules without a derivative that keep their input's shape are in
    `bridges`, linear layers whose output is not the model's own in `inner`. ViewError if the model does not run.
    """
    surrogate = Surrogate(base, Choice(frozenset(EVERYTHING)))
    uses = Uses(surrogate.inner_model)
    for name in copies.unhooked(copies.copied(base, sharing=True)):
        uses.counts["hooks", "backward hook", f"layer {name}"] += 1
    ends = copies.DeadEnds(surrogate.inner_model)
    at = Pass(surrogate.choice, uses)
    watch = nn.modules.module.register_module_forward_hook(ends)
    try:
        with torch.enable_grad():
            leaf = images.detach().clone().requires_grad_(True)

            def realisation(images: Tensor) -> Tensor:  # its name ends the search for the user's line
                with surrogate._intercepted(at):
                    draw = surrogate.inner_model.realise(images.shape, generator)
                return surrogate.run(draw, images, None, at)

            logits = realisation(leaf)
            uses.bridges = ends.found()
    except Exception as error:
        raise ViewError(f"{type(error).__name__}: {error}") from error
    finally:
        watch.remove()
    for name in uses.bridges:
        uses.counts["bridges", type(surrogate.inner_model.get_submodule(name)).__name__, f"layer {name}"] += 1
    uses.inner = {k: place for k, place in enumerate(uses.places) if not _alike(at.inner[k], logits)}
    return uses


def _alike(inner: Tensor, logits: Tensor) -> bool:
    return inner.shape != logits.shape or torch.allclose(inner.detach().to(logits.dtype), logits.detach())

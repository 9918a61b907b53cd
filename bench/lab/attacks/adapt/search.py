"""Which view of a model finds most of what the untouched model gets wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.lab.attacks import losses
from bench.lab.attacks.adapt import copies, judged
from bench.lab.attacks.adapt.copies import ViewError
from bench.lab.attacks.adapt.kinds import EVERYTHING, NOTHING, WORDS, Choice, Kind
from bench.lab.attacks.adapt.outcome import Adapted, Budget, Kept, Trial
from bench.lab.attacks.adapt.surrogate import Surrogate, look
from bench.lab.attacks.adapt.uses import Uses
from bench.lab.attacks.ball import Ball
from bench.lab.attacks.view import View
from bench.lab.compute.passes import Compute
from bench.lab.streams import Streams
from bench.models.classifier import Classifier

LEAST = 0.1
"""A fall of accuracy below this is no finding, however many images show it."""
ENOUGH = 0.02
"""Accuracy at which a view leaves nothing to look for."""
SIGNIFICANT = 0.01
STEP = 0.25
"""One step, as a share of eps."""
CAUTIOUS = 4
"""Draws a step with which the model's own gradient must be tried before its noise is said to hide it."""


def search(
    model: Classifier | nn.Module,
    images: Tensor,
    labels: Tensor,
    ball: Ball,
    streams: Streams,
    compute: Compute,
    *,
    budget: Budget = Budget(),
) -> Adapted:
    """Try views of `model` on some of images (n, 3, h, w) float32 in [0, 1] with labels (n,) int64; keep the best.

    Each view takes a few steps of ascent on the margin, and the untouched model is asked, over selection draws, what
    is left. Nothing is scored on the judge's stream. The model is not changed, not even its memory. A view that
    cannot be had is left out with its reason; what the model itself raises is raised.
    """
    source = judged.classifier(model, images[:2])
    try:
        base = copies.copied(source)
        memory = judged.remembers(base, images[: budget.images], ball, streams, compute)
    except ViewError as error:
        return Adapted((source,), source, (), (), (str(error),), (), 0.0)
    return _Search(source, base, memory, _Case(images, labels, ball, streams, compute, budget)).run()


class _Case(NamedTuple):
    """What a search is asked."""

    images: Tensor
    labels: Tensor
    ball: Ball
    streams: Streams
    compute: Compute
    budget: Budget


class _Search:
    """One search: the views tried so far, and the gradients they took."""

    def __init__(self, source: Classifier, base: Classifier, memory: bool, case: _Case) -> None:
        self.base, self.memory = base, memory
        self.images, self.labels, self.ball, self.streams, self.compute, self.budget = case
        self.judge = judged.Fresh(source) if memory else source
        self.given = max(len(self.images), 1)
        self.uses = Uses()
        self.trials: dict[Choice, Trial] = {}
        self.left_out: list[str] = []
        self.spent = 0

    def run(self) -> Adapted:
        self._choose_images()
        plain = self.trial(NOTHING) if len(self.images) else None
        if plain is None:
            return Adapted((self.judge,), self.judge, (), self._notes(), tuple(self.left_out), (), 0.0)
        best, kept = plain, []
        if plain.left > ENOUGH:
            try:
                self.uses = look(self.base, self.images[:8], self._generator())
            except ViewError as error:
                self.left_out.append(f"everything: {error}")
            for choice in self._candidates():
                trial = self.trial(choice)
                if trial is not None and trial.left < best.left:
                    best = trial
                if best.left <= ENOUGH:
                    break
            if best is not plain and self._hidden(plain, best):
                best = self._pruned(best)
                kept = self._kept(best)
        ranked = sorted(self.trials.values(), key=lambda trial: (trial is not best, trial.left))
        better = [self.surrogate(trial.choice) for trial in ranked if trial.left < plain.left][:2]
        for view in better:
            self._settle(view)
        views, spent = (*better, self.judge), self.spent / self.given
        return Adapted(views, self.judge, tuple(kept), self._notes(), tuple(self.left_out), tuple(ranked), spent)

    def _choose_images(self) -> None:
        """The first images that the model gets right: only they can tell views apart."""
        many = slice(0, 4 * self.budget.images)
        self.images, self.labels = self.images[many], self.labels[many]
        rows = torch.from_numpy(self._right(self.images) > 0.5).to(self.images.device).nonzero().squeeze(1)
        self.images, self.labels = (part[rows[: self.budget.images]] for part in (self.images, self.labels))

    def surrogate(self, choice: Choice) -> Surrogate:
        return Surrogate(self.base, choice, tuple(self.uses.bridges), fresh=self.memory)

    def _settle(self, view: Surrogate) -> None:
        """A view that leaves no noise is deterministic: one draw a step is enough."""
        if view.stochastic:
            seen = View(view, self.images[:2].shape, self.streams, self.compute)
            one, other = (seen.logits(self.images[:2], None, "grad", 63, k) for k in range(2))
            view.stochastic = not torch.equal(one, other)

    def trial(self, choice: Choice, draws: int = 1) -> Trial | None:
        """Attack through a view and ask the judge; None where the view cannot be had or the budget is spent."""
        if choice in self.trials and draws == 1:
            return self.trials[choice]
        if self.trials and self.spent + draws * self.budget.steps * len(self.images) > (
            self.budget.gradients * len(self.images)
        ):
            return None
        try:
            trial = Trial(choice, self._right(self._attacked(self.surrogate(choice), draws)))
        except Exception as error:  # whatever a stranger's network raises under interception is this view's reason
            self.left_out.append(f"{named(choice)}: {type(error).__name__}: {error}")
            return None
        if draws == 1:
            self.trials[choice] = trial
        return trial

    def _attacked(self, view: Surrogate, draws: int) -> Tensor:
        seen = View(view, self.images.shape, self.streams, self.compute)
        here = self.ball.random(self.images, self.streams.generator("start", 60))
        for step in range(self.budget.steps):
            total = torch.zeros_like(here)
            for _, slope, _ in seen.gradients(losses.margin, here, self.labels, None, draws, "grad", 60, step):
                total += slope
                self.spent += len(here)
            slope = torch.nan_to_num(total, nan=0.0, posinf=0.0, neginf=0.0)
            here = self.ball.project(here + STEP * self.ball.eps * self.ball.along(slope), self.images)
        return here

    def _right(self, images: Tensor) -> NDArray[np.float64]:
        seen = View(self.judge, images.shape, self.streams, self.compute)
        total = torch.zeros(len(images), dtype=torch.float64, device=images.device)
        for logits in seen.all_logits(images, None, self.budget.draws, "select", 61):
            total += ~losses.wrong(logits, self.labels)
        return np.asarray((total / seen.draws(self.budget.draws)).cpu().numpy(), np.float64)

    def _generator(self) -> torch.Generator | None:
        return self.streams.generator("grad", 62) if self.base.stochastic else None

    def _candidates(self) -> Iterator[Choice]:
        """Everything first, then what it gets wrong: noise, gates, inner logits, clipping; then kind by kind."""
        known = [kind for kind in EVERYTHING if kind in self.uses.kinds]
        everything = Choice(frozenset(known))
        noisy = "expectation" in self.uses.kinds
        if known:
            yield everything
        if noisy:
            yield everything.more("expectation")
        for inner in list(self.uses.inner)[:4]:
            yield Choice(everything.kinds | {"inner-logits"}, inner)
        if "unit-scale" in known:
            both = everything.without("unit-scale").more("unit-scale-both")
            yield from (both, both.more("expectation")) if noisy else (both,)
        yield NOTHING.more("clipped")
        if len(known) > 1:
            yield from (everything.without(kind) for kind in known)
            yield from (NOTHING.more(kind) for kind in known)
        if noisy:
            yield NOTHING.more("expectation")
            yield everything.more("common-draw")

    def _hidden(self, before: Trial, after: Trial) -> bool:
        """Whether a view finds so much more that the gradient must have been hidden: by a tenth, and beyond chance."""
        fall = before.left - after.left
        return fall >= max(LEAST, before.left / 4) and _chance(before, after) < SIGNIFICANT

    def _pruned(self, best: Trial) -> Trial:
        """Leave out, one after another, what the view does as well without."""
        slack = max(0.05, 1 / len(self.images))
        for kind in sorted(best.choice.kinds, key=lambda kind: (kind != "inner-logits", kind)):
            if kind not in best.choice.kinds or len(best.choice.kinds) == 1:
                continue
            less = self.trial(best.choice.without(kind))
            if less is not None and less.left <= best.left + slack:
                best = less
        return best

    def _kept(self, best: Trial) -> list[Kept]:
        found = []
        for kind in sorted(best.choice.kinds):
            before = self.trial(best.choice.without(kind))
            if kind == "expectation" and best.choice.kinds == {kind}:
                before = self.trial(NOTHING, CAUTIOUS)  # what averaging finds as well was not hidden
            if before is not None and self._hidden(before, best):
                found.append(Kept(kind, before.left, best.left, self._words(kind, before, best)))
        return found

    def _words(self, kind: Kind, before: Trial, after: Trial) -> str:
        what = f"{WORDS[kind]} takes it from {100 * before.left:.0f} to {100 * after.left:.0f}"
        if kind == "inner-logits":
            place = self.uses.inner.get(after.choice.inner or 0, "")
            return f"{what}: the model's own logits mislead, those{f' in {place}' if place else ' of a layer'} do not"
        by = self.uses.hidden_by("unit-scale" if kind == "unit-scale-both" else kind)
        return what + (f": the gradient was hidden by {by}" if by else ": the gradient was hidden")

    def _notes(self) -> tuple[str, ...]:
        memory = "the model remembers its queries: it is judged on fresh copies that meet each image once"
        return (memory,) if self.memory else ()


def named(choice: Choice) -> str:
    """A view in a few words: its kinds."""
    inner = f" of layer {choice.inner}" if choice.inner is not None else ""
    return (" + ".join(sorted(choice.kinds)) or "nothing") + inner


def _chance(before: Trial, after: Trial) -> float:
    """One-sided sign test over images: how likely so many falls are among those that changed, were both alike."""
    gap = before.right - after.right
    falls, changed = int((gap > 0).sum()), int((gap != 0).sum())
    return sum(math.comb(changed, k) for k in range(falls, changed + 1)) / float(2**changed)

"""Whether a model answers by what it was asked before: its first question again, at the end and in another order."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.lab.attacks.adapt import copies, judged
from bench.lab.attacks.ball import Ball
from bench.lab.examine.outputs import JITTER, Case, distance
from bench.lab.examine.rules import Finding
from bench.lab.foreign.state import fingerprint

REMEMBERS = "attacks and judges ask it more than once: report what fresh copies say that meet each image once"


def copied(case: Case, ball: Ball, images: int = 8) -> Finding:
    """A copy that has seen images must answer their neighbours as one does that has seen others.

    On copies, so that it does not matter what was asked before; and a pass must leave the model's state as it was.
    """
    few = 1 - case.images[:images]  # negatives, which it has not been asked about
    try:
        found = judged.remembers(copies.copied(case.model), few, ball, case.streams, case.compute)
    except copies.ViewError as error:
        return Finding("memory", str(error), "cannot tell", "its first question is put again at the end")
    before = fingerprint(case.model, held=not case.model.stochastic)
    case.view.logits(few, torch.arange(len(few), device=few.device), "select", 81)
    if fingerprint(case.model, held=not case.model.stochastic) != before:
        figure = "a pass changes its parameters, buffers or the tensors that it holds"
        return Finding("memory", figure, "suspicious", REMEMBERS)
    if found:
        figure = "its answers near an image depend on whether it has seen the image"
        return Finding("memory", figure, "suspicious", REMEMBERS)
    return Finding("memory", "copies with other pasts answer alike", "ok")


def again(case: Case, first: Tensor) -> Finding:
    """The first question, whose answer (n, classes) was `first`, put again after all others, and in another order."""
    last = case.asked()
    back = torch.arange(len(first) - 1, -1, -1, device=first.device)
    turned = case.view.compute.logits(case.view.draw("select", 80), case.images[back], back)
    late, other = distance(first, last), distance(first[back], turned)
    figure = f"the first question, put again at the end: {late:.2g} apart, {other:.2g} in another order"
    if late > JITTER or other > JITTER:
        return Finding("again", figure, "suspicious", REMEMBERS)
    return Finding("again", figure, "ok")

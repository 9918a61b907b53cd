"""What a model's noise is: whose generator it comes from, which rows share it, where it is kept, if it comes again."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from bench.lab.attacks import losses
from bench.lab.attacks.adapt.copies import ViewError, copied
from bench.lab.attacks.view import View
from bench.lab.examine.outputs import JITTER, Case, distance
from bench.lab.examine.rules import Finding
from bench.lab.foreign.ask import distances, global_states
from bench.lab.streams import fenced
from bench.recipes import PGD, Peer

ROWS, DRAWS, COPIED = 6, 6, 2
REDRAWS = re.compile(r"redraw|resampl|rand|nois|perturb|shuffl|set_norm|set_precision")
"""Names of methods that draw noise which is then kept."""
HAIR = 1e-6
"""A change of each pixel that no answer should depend on."""


def randomness(case: Case) -> Finding:
    """Outputs vary where noise was declared, and only there; and the noise is the declared generator's.

    AutoAttack's check for randomised models, with its measure: the distance of unit-length logits. The question is
    put 16 times, for noise that moves every few calls; torch's, NumPy's and random's generators are watched meanwhile.
    """
    view, states = case.view, global_states()
    same = [view.logits(case.images, None, "select", 91) for _ in range(2)]
    two = torch.arange(2, device=case.images.device)
    few = [view.logits(case.images[:2], two, "select", 91) for _ in range(14)]
    spread = max([distance(*same), *(distance(few[0], other) for other in few[1:])])
    moved = [name for name, state in global_states().items() if state != states[name]]
    changed = float((losses.wrong(same[0], case.labels) != losses.wrong(same[1], case.labels)).float().mean())
    figure = f"16 repeats of one draw differ by {spread:.2g}, {100 * changed:.0f} % of images change sides"
    if spread <= JITTER and not (moved and spread > 0):
        return Finding("randomness", figure, "ok")
    figure += f"; it draws from the generator of {' and '.join(moved)}" if moved else ""
    if not case.model.stochastic:
        advice = "declare the model stochastic, and draw its noise from the generator given"
    else:
        advice = "draw all noise from the generator given, none from those of torch, NumPy and random"
    return Finding("randomness", figure, "suspicious", advice)


def replay(case: Case) -> Finding:
    """Noise that is declared must be drawn anew: no two draws may be alike, where the global generators are reseeded
    alike before each of them, so that only the generator given can tell them apart."""
    if not case.model.stochastic:
        return Finding("replay", "declared deterministic", "ok")
    draws = []
    for k in range(DRAWS):
        with fenced(0):
            draws.append(case.view.logits(case.images, None, "select", 92, k))
    pairs = [distance(a, b) for i, a in enumerate(draws) for b in draws[:i]]
    alike = sum(gap <= 1e-7 for gap in pairs)
    figure = f"{alike} of {len(pairs)} pairs of draws are the same"
    if 2 * alike > len(pairs):  # noise of few values, such as a shift, is alike now and then
        advice = "the noise is replayed, so attack and judge meet the same draw: use the generator given"
        return Finding("replay", figure, "suspicious", advice)
    return Finding("replay", figure, "ok")


def shared(case: Case, declared: PGD | Peer) -> Finding:
    """How much of the noise's variance the rows of a batch share: copies of one image in one draw, against draws.

    Where it is all, an EoT whose copies are rows of one pass averages nothing (L2P and WCA-Net were attacked so).
    """
    within = between = 0.0
    for image in case.images[:COPIED]:
        copies = image.expand(ROWS, *image.shape).contiguous()
        view = View(case.model, copies.shape, case.streams, case.compute)
        said = torch.stack([view.logits(copies, None, "select", 84, k) for k in range(DRAWS)]).double()
        each = float(said.var(1).sum(-1).mean())
        within += each
        between += max(0.0, float(said.mean(1).var(0).sum()) - each / ROWS)
    share = between / (within + between) if within + between > 0 else 0.0
    figure = f"rows of a batch share {100 * share:.0f} % of the noise"
    if share > 0.5 and declared.draw == "pseudo-eot":
        advice = "EoT over copies in one batch is EoT 1: average over passes, each with a draw of its own"
        return Finding("noise-rows", figure, "suspicious", advice)
    return Finding("noise-rows", figure, "ok")


def held(case: Case) -> Finding:
    """Noise kept in the module's state until a method redraws it: forward passes look alike, and attacks meet one draw.

    Methods without arguments whose names say that they draw are called on copies of the model.
    """
    if case.model.stochastic:
        return Finding("noise-held", "declared stochastic: each realisation is a draw", "ok")
    for place, name in list(_redraws(case.model))[:8]:
        moved = _moves(case, place, name)
        if moved > JITTER:
            figure = f"{name}() of {place or 'the network'} draws noise that stays: outputs move by {moved:.2g}"
            advice = "declare it stochastic with redraw = this method, so that every pass draws anew"
            return Finding("noise-held", figure, "suspicious", advice)
    return Finding("noise-held", "no method redraws noise", "ok")


def jumps(case: Case) -> Finding:
    """An answer must not depend on the last bits of its image, as noise does that is seeded by them.

    Such noise moves it as far for a hair as for a hundred; what is rounded inside a network moves further for more.
    """
    view = replace(case, compute=replace(case.compute, precision="float32")).view
    few = case.images[:8] * 0.96 + 0.02
    rows = torch.arange(len(few), device=few.device)
    here, near, far = (view.logits(few + size, rows, "select", 83) for size in (0, HAIR, 100 * HAIR))
    moved, more = (float(distances(here, other).median()) for other in (near, far))
    figure = f"a change of {HAIR:g} moves the outputs by {moved:.2g}, one of {100 * HAIR:g} by {more:.2g} (median)"
    if moved > JITTER and moved > more / 2:
        advice = "noise is seeded by the image itself, and no gradient sees it: attack the mean over near images"
        return Finding("jumps", figure, "suspicious", advice)
    return Finding("jumps", figure, "ok")


def _redraws(model: nn.Module) -> Iterator[tuple[str, str]]:
    for place, module in model.named_modules():
        for name, method in inspect.getmembers(type(module), inspect.isfunction):
            if name.startswith("__") or not REDRAWS.search(name.lower()) or name in vars(nn.Module):
                continue
            if method.__module__.split(".")[0] in ("torch", "torchvision", "bench"):
                continue
            with_default = list(inspect.signature(method).parameters.values())[1:]
            if all(one.default is not one.empty or one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
                   for one in with_default):  # fmt: skip
                yield place, name


def _moves(case: Case, place: str, name: str) -> float:
    """How far two calls of a method move the answers of a copy, the smaller of both; 0 where it cannot be called, and
    where the network forgets what it knows, as by weights that are drawn anew."""
    few, said = case.images[:16], list[Tensor]()
    try:
        with fenced(1), torch.no_grad():
            model = copied(case.model)
            view = View(model, few.shape, case.streams, case.compute)
            for k in range(3):
                if k:
                    getattr(model.get_submodule(place), name)()
                said.append(view.logits(few, None, "select", 82))
    except (ViewError, Exception):  # a stranger's method may raise anything, and then it draws nothing for us
        return 0.0
    right = [int((~losses.wrong(one, case.labels[:16])).sum()) for one in said]
    if 2 * min(right) < right[0]:
        return 0.0
    return min(distance(said[1], said[0]), distance(said[2], said[1]))

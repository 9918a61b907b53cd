"""Is this robustness real? Attacks a model in the ways in which false defences give themselves away."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from bench import UserError
from bench.lab.attacks import losses
from bench.lab.attacks.ball import Ball
from bench.lab.attacks.view import AttackError
from bench.lab.compute.passes import Compute
from bench.lab.craft import craft
from bench.lab.examine import gradients as slopes
from bench.lab.examine import outputs, rules
from bench.lab.examine.outputs import Anchored, Case, Frozen
from bench.lab.examine.rules import Finding, Right
from bench.lab.streams import Streams
from bench.models.classifier import Classifier
from bench.recipes import PGD, Peer, Square, Strong

LARGE = Fraction(1, 2)
"""How far a pixel may move so that every image can be made grey: accuracy must be down to chance."""


FEWEST = 8
FEW = 100  # gradients an image, from which on `strong` looks for views of the model by interception


def diagnose(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    streams: Streams,
    compute: Compute,
    attack: PGD | None = None,
    *,
    transfers: Mapping[str, Tensor] | None = None,
    queries: int = 200,
    draws: int = 16,
) -> Iterator[Finding]:
    """Every check on a model, one at a time, cheap ones and likely causes first.

    What follows the first suspicious finding may be its consequence. `images` (n, 3, h, w) in [0, 1]
    with `labels` (n,): 50 to 200 make the verdicts firm. `attack` is the declared one (default:
    PGD()). `transfers` are the same images as crafted on other models, by name. `queries` bounds the
    black-box attack, `draws` are what a stochastic model is judged by. UserError for too few images.
    """
    if len(images) < FEWEST:
        raise UserError("diagnose", f"{len(images)} images tell nothing", f"use at least {FEWEST}, better 100")
    declared = attack or PGD()
    case = Case(model, images, labels, streams, compute)
    yield outputs.modes(case)
    yield outputs.optimises(case)
    yield outputs.randomness(case)
    yield outputs.replay(case)
    yield outputs.batch_mates(case)
    yield outputs.encoding(case)
    yield outputs.softmax(case)
    connected = slopes.has_gradient(case)
    yield slopes.gradients(case, connected)
    if not connected:
        case = replace(case, model=Anchored(model))
    yield slopes.saturation(case)
    ball = Ball(float(declared.eps), declared.norm)
    yield slopes.uphill(case, ball)
    yield slopes.unstable(case, ball)
    yield slopes.signal(case, declared.eot)
    yield rules.reach(declared)
    try:
        yield from _attacked(case, declared, transfers or {}, queries, draws)
    except AttackError as error:
        yield Finding("attack", str(error), "cannot tell", "mend what the checks above name, then ask again")


def _attacked(
    case: Case, declared: PGD, transfers: Mapping[str, Tensor], queries: int, draws: int
) -> Iterator[Finding]:
    sure = not case.model.stochastic
    fields = {name: getattr(declared, name) for name in PGD.model_fields}
    # Where a model is deterministic, fooled images may leave early: fewer passes, the same verdicts.
    fields |= {"keep_iterates": False, "early_stop": sure}

    def under(attack: PGD | Square | Peer) -> Right:
        return right(case, _crafted(case, attack), draws)

    def changed(**changes: object) -> PGD:
        return PGD(**(fields | changes))

    crafted, path = _declared(case, declared)
    white = right(case, crafted, draws)
    yield from ascent(case, path)
    adapting = Strong(eps=declared.eps, norm=declared.norm, gradients=max(FEW, queries // 2))
    found = craft(adapting, case.model, case.images, case.labels, case.streams, case.compute)
    yield rules.adapting(white, right(case, found.images, draws))
    for words in found.account.findings if found.account is not None else ():
        yield Finding("views", words, "suspicious", "the gradient is hidden, not gone: report the attack `strong`")
    if sure and not declared.early_stop:
        yield rules.silent_success(white, np.minimum(white, under(changed())))
    # From the images themselves: a random start this far away is noise that fools without any attack.
    grey = LARGE * (1 if declared.norm == "Linf" else math.ceil(case.images[0].numel() ** 0.5))
    large = changed(eps=grey, step=grey / 4, steps=max(declared.steps, 10), random_start=False)
    yield rules.large_eps(under(large), case.model.classes, float(grey))
    if not sure:
        frozen = replace(case, model=Frozen(case.model, case.streams.number("select", 89)))
        yield rules.frozen_noise(right(frozen, _crafted(frozen, changed()), 1), white)
    yield rules.single_step(white, under(changed(steps=1, step=declared.eps, random_start=False)))
    yield rules.eps_order(under(changed(eps=declared.eps / 2, step=declared.step / 2)), white)
    yield rules.random_noise(white, under(changed(steps=0, random_start=True, restarts=10)))
    yield rules.black_box(white, under(_black_box(declared, queries, min(20, draws))))
    for name, images in transfers.items():
        yield rules.transfer(white, right(case, images, draws), name)
    if not transfers:
        yield Finding("transfer", "no examples of another model", "cannot tell", "give those of a model trained alike")
    more: dict[str, dict[str, object]] = {
        "steps": {"steps": 4 * declared.steps},
        "restarts": {"restarts": 3 * declared.restarts, "random_start": True},
    }
    if not sure:
        more["draws"] = {"eot": 4 * declared.eot}
    for what, changes in more.items():
        if white.any():
            yield rules.converged(what, white, under(changed(**changes)))
        else:
            yield Finding(f"more-{what}", "nothing is left to lower", "ok")


def right(case: Case, images: Tensor, draws: int) -> Right:
    """How often each image (n,) is right over fresh draws of the judge's stream; 0 or 1 where deterministic."""
    return np.asarray(case.view.right(images, case.labels, draws).mean(axis=1), np.float64)


def ascent(case: Case, path: Tensor) -> Iterator[Finding]:
    """The expected margin along the attack's `path` (steps + 1, n, 3, h, w): it must rise, and level off in time."""
    view = case.view
    walk = path[1:] if len(path) > 1 else path
    level = torch.stack([view.expected(losses.margin, batch, case.labels, None, 4, 88)[0] for batch in walk])
    rises, n = int((level[-1] > level[0]).sum()), len(case.labels)
    figure = f"the loss of {rises} of {n} images rises from the first step to the last"
    if len(walk) > 1 and rules.rises_too_rarely(rises, n):
        yield Finding("ascent", figure, "suspicious", "the attack does not climb: check gradients, step and loss")
    else:
        yield Finding("ascent", figure, "ok")
    yield rules.incomplete(np.asarray(level.cpu().numpy(), np.float64))


def _declared(case: Case, declared: PGD) -> tuple[Tensor, Tensor]:
    """The declared attack's images (n, 3, h, w) and all its iterates (steps + 1, n, 3, h, w)."""
    attack = declared.model_copy(update={"keep_iterates": True, "early_stop": False})
    crafted = craft(attack, case.model, case.images, case.labels, case.streams, case.compute)
    assert crafted.iterates is not None
    return crafted.images, crafted.iterates


def _black_box(declared: PGD, queries: int, draws: int) -> Square | Peer:
    """Square in the attack's norm: ours in L-inf, AutoAttack's in L2."""
    if declared.norm == "Linf":
        return Square(eps=declared.eps, queries=queries, draws=draws)
    part = {"n_queries": queries, "n_restarts": 1}
    arguments = {"attacks": ["square"], "square": part}
    return Peer(kind="autoattack", name="custom", eps=declared.eps, norm=declared.norm, arguments=arguments)


def _crafted(case: Case, attack: PGD | Square | Peer) -> Tensor:
    return craft(attack, case.model, case.images, case.labels, case.streams, case.compute).images

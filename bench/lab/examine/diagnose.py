"""Is this robustness real? Attacks a model in the ways in which false defences give themselves away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bench import UserError
from bench.lab.attacks.ball import Ball
from bench.lab.attacks.view import AttackError
from bench.lab.compute.passes import Compute
from bench.lab.examine import gradients as slopes
from bench.lab.examine import memory, noise, of_attack, outputs
from bench.lab.examine.attacked import attacked
from bench.lab.examine.beside import Attacks
from bench.lab.examine.family import settled
from bench.lab.examine.outputs import Anchored, Case
from bench.lab.examine.rules import Finding
from bench.lab.streams import Streams
from bench.models.classifier import Classifier
from bench.recipes import PGD, Peer

FEWEST = 8


def diagnose(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    streams: Streams,
    compute: Compute,
    attack: PGD | Peer | None = None,
    *,
    transfers: Mapping[str, Tensor] | None = None,
    queries: int = 200,
    draws: int = 16,
    pool: Tensor | None = None,
) -> Iterator[Finding]:
    """Every check on a model, one at a time, cheap ones and likely causes first.

    What follows the first suspicious finding may be its consequence. `images` (n, 3, h, w) in [0, 1]
    with `labels` (n,): 50 to 200 make the verdicts firm. `attack` is the declared one (default:
    PGD()). `transfers` are the same images as crafted on other models, by name. `queries` bounds the
    black-box attack, `draws` are what a stochastic model is judged by. UserError for too few images.
    `pool` (m, 3, h, w), images that are not among those, makes it thorough: a surrogate is distilled from the
    model's answers to them, and an attack is tried that asks for answers alone; `strong` has 300 gradients an image.

    An honest model is marked ("suspicious") in one of 200 diagnoses at most: exact checks by nothing that it does, and
    tests as `settled` holds them together, so that some verdicts come at the end.
    """
    if len(images) < FEWEST:
        raise UserError("diagnose", f"{len(images)} images tell nothing", f"use at least {FEWEST}, better 100")
    declared = attack or PGD()
    case = Case(model, images, labels, streams, compute)
    return settled(_all(case, declared, transfers or {}, (queries, draws), pool))


def _all(
    case: Case, declared: PGD | Peer, transfers: Mapping[str, Tensor], spent: tuple[int, int], pool: Tensor | None
) -> Iterator[Finding]:
    yield outputs.modes(case)
    first = case.asked()
    yield outputs.optimises(case)
    random = noise.randomness(case)
    yield random
    yield noise.replay(case)
    yield noise.held(case)
    yield noise.jumps(case)
    if case.model.stochastic:
        yield noise.shared(case, declared)
    ball = Ball(float(declared.eps), "L2" if declared.norm == "L2" else "Linf")
    if random.verdict == "ok":
        yield memory.copied(case, ball)
    yield outputs.batch_mates(case, first)
    yield outputs.encoding(case)
    yield outputs.softmax(first)
    original = case
    slope = slopes.slope_of(case) if slopes.has_gradient(case) else None
    yield slopes.gradients(slope)
    if slope is None:
        case = replace(case, model=Anchored(case.model))
        slope = torch.zeros_like(case.images)
    yield slopes.watched(case)
    yield slopes.repeats(case)
    yield slopes.saturation(case, slope)
    yield slopes.differences(case)
    yield slopes.uphill(case, ball, slope)
    yield slopes.unstable(case, ball)
    yield slopes.signal(case, declared.eot if isinstance(declared, PGD) else 1)
    yield of_attack.reach(declared)
    try:
        yield from attacked(Attacks(case, declared, *spent, thorough=pool is not None), transfers, pool)
    except AttackError as error:
        yield Finding("attack", str(error), "cannot tell", "mend what the checks above name, then ask again")
    if random.verdict == "ok":
        yield memory.again(original, first)

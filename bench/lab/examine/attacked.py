"""What attacks show of a model: no weaker one takes more than the declared attack, and that one takes much."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from bench.lab.attacks import losses
from bench.lab.attacks.ball import Ball
from bench.lab.craft import craft
from bench.lab.examine import hard_labels, of_attack, rules, surrogates
from bench.lab.examine.beside import Attacks, black_box
from bench.lab.examine.outputs import Case, Frozen
from bench.lab.examine.rules import Finding, Right
from bench.lab.streams import Streams
from bench.recipes import PGD, Strong

LARGE = Fraction(1, 2)
"""How far a pixel may move so that every image can be made grey: accuracy must be down to chance."""
PATH = 16  # images whose way through the attack is looked at
DECIDED = 24  # images of the attack that asks for answers alone


def attacked(them: Attacks, transfers: Mapping[str, Tensor], pool: Tensor | None = None) -> Iterator[Finding]:
    """The checks that attack a model, the cheap ones first; those that could show nothing are left out, and say why.

    `pool` are further images (m, c, h, w), for a surrogate that is distilled from the model's answers: with it, that
    and an attack by answers alone are tried as well.
    """
    case, declared = them.case, them.declared
    if isinstance(declared, PGD):
        yield from _path(case.few(PATH), declared)
    else:
        yield of_attack.untouched(*_back(them))
    yield from _strong(them)
    yield _large(them)
    if not them.sure:
        yield from _draws(them)
    yield from _weaker(them)
    yield _open(them, "black-box") or rules.black_box(
        them.white, them.under(black_box(them.base, them.queries, them.draws))
    )
    tried = False
    if not them.why:
        for name, images in surrogates.transfers(case, them.base, transfers):
            tried = True
            yield rules.transfer(them.white, them.right(images), name)
    if not tried:
        yield _open(them, "transfer") or Finding(
            "transfer", "no examples of another model", "cannot tell", "give those of a model trained alike"
        )
    if pool is not None:
        yield from _labels(them, pool)
    yield from _more(them)


def ascent(case: Case, path: Tensor) -> Iterator[Finding]:
    """The expected margin along the attack's `path` (steps + 1, n, 3, h, w): it must rise, level off in time, and end
    where it is highest."""
    view = case.view
    walk = path[1:] if len(path) > 1 else path
    level = torch.stack([view.expected(losses.margin, batch, case.labels, None, 4, 88)[0] for batch in walk])
    rises, n = int((level[-1] > level[0]).sum()), len(case.labels)
    figure = f"the loss of {rises} of {n} images rises from the first step to the last"
    advice = "the attack does not climb: check gradients, step and loss"
    yield rules.tested("ascent", figure, rules.too_rare(rises, n) if len(walk) > 1 else 1.0, advice)
    yield of_attack.incomplete(np.asarray(level.cpu().numpy(), np.float64))
    if not case.model.stochastic:
        held: Right = np.asarray((level <= 0).cpu().numpy(), np.float64)
        yield rules.silent_success(held[-1], held.min(0))


def _path(case: Case, declared: PGD) -> Iterator[Finding]:
    attack = declared.model_copy(update={"keep_iterates": True, "early_stop": False})
    crafted = craft(attack, case.model, case.images, case.labels, case.streams, case.compute)
    assert crafted.iterates is not None
    yield from ascent(case, crafted.iterates)


def _back(them: Attacks) -> tuple[bool, Right, Right]:
    """Whether the source is stochastic, which images (n,) came back as they were, and how right all are."""
    same = (them.crafted == them.case.images).flatten(1).all(1)
    return not them.sure, np.asarray(same.cpu().numpy(), np.float64), them.white


def _strong(them: Attacks) -> Iterator[Finding]:
    """An attack that chooses among losses, classes and views; and what it says had hidden the gradient."""
    case = them.case
    closed = _open(them, "strong")
    if closed is not None:
        yield closed
        return
    adapting = Strong(eps=them.base.eps, norm=them.base.norm, gradients=them.gradients)
    found = craft(adapting, case.model, case.images, case.labels, case.streams, case.compute)
    after = them.right(found.images)
    strong = rules.adapting(them.white, after)
    yield strong
    words = found.account.findings if found.account is not None else ()
    both = f"the declared attack leaves {rules.percent(them.white)}, `strong` {rules.percent(after)}"
    for one in words:
        advice = "the gradient is hidden, not gone: report the attack `strong`"
        yield Finding("views", f"{one}; {both}", strong.verdict, advice, strong.p)


def _large(them: Attacks) -> Finding:
    # From the images themselves: a random start this far away is noise that fools without any attack.
    grey = LARGE * (1 if them.base.norm == "Linf" else math.ceil(them.case.images[0].numel() ** 0.5))
    large = them.changed(eps=grey, step=grey / 4, steps=max(them.base.steps, 10), random_start=False)
    return rules.large_eps(them.under(large), them.case.model.classes, float(grey))


def _draws(them: Attacks) -> Iterator[Finding]:
    """What only noise can hide: one known draw must be broken, and the judge's own draws be like any others."""
    case = them.case
    frozen = replace(case, model=Frozen(case.model, case.streams.number("select", 89)))
    near = them.changed(early_stop=True)
    found = them.made(near, frozen)
    known, fresh = them.right(found, frozen), them.right(found)
    yield rules.frozen_noise(known, them.white)

    def points(attack: PGD) -> Right:
        return them.right(them.made(them.noise(attack), frozen), frozen)

    still, wide = points(near), None
    if rules.idle(known, still) < 0.05:
        far = them.wide().model_copy(update={"early_stop": True})
        wide = them.right(them.made(far, frozen), frozen), points(far)
    yield rules.no_better("frozen-unbroken", "of one known draw random points leave", known, still, wide)
    if isinstance(them.declared, PGD) and them.declared.draw != "moving":
        moving = them.right(them.made(them.changed()))
        yield rules.protocol(them.declared.draw, them.white, moving)
    else:
        yield rules.self_transfer(known, fresh, them.white)
    other = replace(case, streams=Streams(case.streams.number("select", 79), 0, case.streams.device))
    each = (one.view.right(them.crafted, one.labels, them.draws).mean(axis=0) for one in (case, other))
    yield rules.reseeded(*(np.asarray(one, np.float64) for one in each))


def _weaker(them: Attacks) -> Iterator[Finding]:
    base = them.base
    half = {"eps": base.eps / 2, "step": base.step / 2}
    yield _open(them, "single-step") or rules.single_step(
        them.white, them.under(them.changed(steps=1, step=base.eps, random_start=False))
    )
    yield _open(them, "eps-order") or rules.eps_order(them.under(them.changed(**half)), them.white)
    if them.why:
        yield from (one for check in ("random-noise",) if (one := _open(them, check)) is not None)
        return
    noise = them.under(them.noise(them.changed()))
    yield rules.random_noise(them.white, noise)
    wide = None
    if rules.idle(them.white, noise) < 0.05:
        far = them.wide()
        wide = them.under(far), them.under(them.noise(far))
    yield rules.no_better("no-better-than-random", "random points leave", them.white, noise, wide)


def _more(them: Attacks) -> Iterator[Finding]:
    """More of the same must not keep finding more."""
    base = them.base
    more: dict[str, dict[str, object]] = {
        "steps": {"steps": 4 * base.steps},
        "restarts": {"restarts": 3 * base.restarts, "random_start": True},
    }
    if not them.sure:
        more["draws"] = {"eot": 4 * base.eot}
    for what, changes in more.items():
        yield _open(them, f"more-{what}") or rules.converged(what, them.white, them.under(them.changed(**changes)))


def _labels(them: Attacks, pool: Tensor) -> Iterator[Finding]:
    """What answers alone allow: no confidence and no gradient can mislead these."""
    case, ball, white = them.case, Ball(float(them.base.eps), them.base.norm), them.white
    if them.why:
        yield from (one for check in ("distilled", "hard-labels") if (one := _open(them, check)) is not None)
        return
    near = float(them.base.eps) / (1 if ball.norm == "Linf" else case.images[0].numel() ** 0.5)
    taught = hard_labels.distilled(case, pool, near)
    images = surrogates.through(case, taught, them.base, 10)
    found = rules.transfer(white, them.right(images), f"a network distilled from {2 * len(pool)} answers")
    yield found._replace(check="distilled")
    few = case.few(DECIDED)
    made = hard_labels.decided(few, ball, 2 * them.queries)
    seen = np.asarray(few.view.right(made, few.labels, them.draws).mean(axis=1), np.float64)
    found = rules.black_box(white[:DECIDED], seen, f"an attack by {2 * them.queries} answers an image")
    yield found._replace(check="hard-labels")


def _open(them: Attacks, check: str) -> Finding | None:
    """What is said of a check that could show nothing, or None."""
    few = float(np.mean(them.white)) > rules.LEAST
    return Finding(check, them.why, "cannot tell" if few else "ok", "use more images" * few) if them.why else None

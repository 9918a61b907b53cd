"""What an attack shows of itself, whatever the model: how far its steps reach, if it levels off, what it hands back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.lab.examine.rules import LEAST, Finding, Right, percent
from bench.recipes import PGD, Peer

PUBLISHED = 100
"""Steps of APGD and FAB in their papers, and so in AutoAttack."""
PARTS = ("APGD", "APGDT", "FAB", "AutoAttack")


def reach(attack: PGD | Peer) -> Finding:
    """Whether the steps can carry an image from where the attack starts to any corner of the ball.

    Of the attack, not of the model: it marks nothing.
    """
    if isinstance(attack, Peer):
        return _of_peer(attack)
    way = float(attack.eps) * (2 if attack.random_start else 1)
    length = attack.steps * float(attack.step)
    figure = f"{attack.steps} steps of {attack.step} reach {length / float(attack.eps or 1):.2g} eps"
    # 1e-9: exact fractions as floats
    if length >= way - 1e-9:
        return Finding("reach", figure, "ok")
    advice = f"use at least {-(-way // float(attack.step)):.0f} steps of this size" if attack.step else "step is zero"
    return Finding("reach", figure, "cannot tell", f"this attack leaves corners of the ball out: {advice}")


def _of_peer(attack: Peer) -> Finding:
    """An "AutoAttack" of ten steps is another attack under that name (torchattacks' own default since October 2022)."""
    figure, steps = f"{attack.kind}'s {attack.name}", attack.arguments.get("steps", PUBLISHED)
    if attack.kind == "torchattacks" and attack.name in PARTS and isinstance(steps, int) and steps < PUBLISHED:
        figure += f" takes {steps} steps"
        return Finding("reach", figure, "cannot tell", f"as published it takes {PUBLISHED}: it is another attack")
    return Finding("reach", figure, "ok")


def incomplete(margins: NDArray[np.float64]) -> Finding:
    """Pintor et al. I4: images that hold out, and whose loss still rises by a twentieth of its way in the last steps.

    `margins` (steps, n) along the attack, above 0 where wrong. The last ten steps are looked at, and
    of a shorter attack the last third, which is stricter with short attacks than the source.
    """
    held = margins[:, margins[-1] <= 0]
    last = min(10, len(margins) // 3)
    if last == 0 or held.shape[1] == 0:
        return Finding("incomplete", "no image held out long enough to say", "ok")
    best = np.maximum.accumulate(held, axis=0)
    way = best[-1] - best[0]
    rising = (best[-1] - best[-1 - last] > 0.05 * way) & (way > 0)
    figure = f"the loss of {rising.sum()} of {len(rising)} images that held out still rose in the last {last} steps"
    if rising.mean() > 0.5:
        return Finding("incomplete", figure, "cannot tell", "use more steps: 'more-steps' says what they find")
    return Finding("incomplete", figure, "ok")


def untouched(stochastic: bool, same: Right, right: Right) -> Finding:
    """An attack must not hand back, of a randomised model, the images that one lucky draw got right (F15).

    `same` (n,) is 1 where an image came back as it was, and `right` (n,) how right the images are on fresh draws.
    """
    back = same > 0
    left = f", of which fresh draws say {percent(right[back])}" if back.any() else ""
    figure = f"{int(back.sum())} of {len(same)} images came back as they were{left}"
    if stochastic and float((same * right).mean()) > LEAST:
        advice = "those are scored clean: keep the iterate of highest loss instead (an attack of this suite does)"
        return Finding("untouched", figure, "suspicious", advice)
    return Finding("untouched", figure, "ok")

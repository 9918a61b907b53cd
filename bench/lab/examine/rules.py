"""Is this robustness real? What numbers alone can say: rules over accuracy by image, without torch.

Every rule compares how right each image is, (n,) in [0, 1], under two attacks on the same images
(`bench.votes.numbers.correct` gives it from a record). Sources: Athalye et al. 2018 (arXiv 1802.00420),
Carlini et al. 2019 (arXiv 1902.06705), Pintor et al. 2022 (arXiv 2106.09947).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.recipes import PGD

Verdict = Literal["ok", "suspicious", "cannot tell"]
Right = NDArray[np.float64]

LEAST = 0.05
"""A fall of accuracy below this is not called suspicious, however many images show it."""


class Finding(NamedTuple):
    """One check: its name, the figure it is decided by, the verdict, and what to do about it."""

    check: str
    figure: str
    verdict: Verdict
    advice: str = ""


def fall(before: Right, after: Right) -> tuple[float, float]:
    """Mean paired fall from `before` to `after` and twice its standard error, both as shares."""
    difference = np.asarray(before, np.float64) - np.asarray(after, np.float64)
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 1.0
    return float(difference.mean()), float(2 * error)


def falls(before: Right, after: Right, least: float = LEAST) -> bool:
    """Whether `after` is lower by more than `least` and by more than its paired error (two standard errors)."""
    mean, error = fall(before, after)
    return mean > max(least, error)


def rises_too_rarely(rises: int, n: int, wanted: float = 0.9) -> bool:
    """Whether `rises` of n is below `wanted` by more than chance (one-sided exact binomial test at 2.5 %)."""
    from scipy.stats import binom

    return bool(binom.cdf(rises, n, wanted) < 0.025)


def percent(right: Right) -> str:
    return f"{100 * float(np.mean(right)):.1f} %"


def compare(check: str, first: tuple[str, Right], second: tuple[str, Right], advice: str) -> Finding:
    """Suspicious if accuracy under the second attack is lower than under the first, which should be the stronger."""
    (name, before), (other, after) = first, second
    figure = f"{name} {percent(before)}, {other} {percent(after)}"
    return Finding(check, figure, "suspicious", advice) if falls(before, after) else Finding(check, figure, "ok")


def black_box(white: Right, black: Right, name: str = "square") -> Finding:
    """Carlini et al.: a black-box attack must not be stronger than the white-box attack."""
    advice = "the gradients mislead the attack: use BPDA or other losses, and report the black-box number"
    return compare("black-box", ("white-box", white), (name, black), advice)


def adapting(white: Right, adapted: Right) -> Finding:
    """An attack that chooses among losses, classes and views must not find much more than the declared one."""
    advice = "the declared attack overstates: report the attack `strong`"
    return compare("strong", ("the declared attack", white), ("strong", adapted), advice)


def transfer(white: Right, transferred: Right, name: str = "transfer") -> Finding:
    """Carlini et al.; Pintor et al. I5: examples of another model must not be stronger than the model's own."""
    advice = "the gradients mislead the attack: attack through the surrogate, and report the transfer number"
    return compare("transfer", ("white-box", white), (name, transferred), advice)


def single_step(iterated: Right, single: Right) -> Finding:
    """Athalye et al.: one step must not do better than many."""
    advice = "the loss surface is masked: look at the loss along the attack, and try other losses and steps"
    return compare("single-step", ("iterated", iterated), ("one step", single), advice)


def random_noise(white: Right, noise: Right) -> Finding:
    """Athalye et al.: random search in the ball must not find what the attack does not."""
    advice = "the attack does worse than chance: its gradients are no guide"
    return compare("random-noise", ("white-box", white), ("random points", noise), advice)


def converged(what: str, declared: Right, more: Right) -> Finding:
    """Carlini et al.: more steps, restarts or draws (`what`) must not keep lowering accuracy."""
    advice = f"the attack has not converged: report it with more {what}, and attack it with `strong` too"
    return compare(f"more-{what}", ("declared", declared), (f"more {what}", more), advice)


def eps_order(small: Right, large: Right) -> Finding:
    """Athalye et al.: a larger ball must not leave more accuracy."""
    advice = "a stronger attack does worse: its step or its gradients are wrong"
    return compare("eps-order", ("eps", large), ("half eps", small), advice)


def frozen_noise(frozen: Right, fresh: Right) -> Finding:
    """One known draw, attacked and judged, must not leave more accuracy than draws the attacker cannot know."""
    advice = "the attack fails even where nothing is random: it is broken, not the noise strong"
    return compare("frozen-noise", ("one frozen draw", frozen), ("fresh draws", fresh), advice)


def silent_success(last: Right, path: Right) -> Finding:
    """Pintor et al. I3: the attack passed through an image that fools and returned one that does not."""
    advice = "set pick = 'best' (or early_stop for a deterministic model)"
    return compare("silent-success", ("last iterate", last), ("any iterate", path), advice)


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


def large_eps(right: Right, classes: int, eps: float) -> Finding:
    """Athalye et al.; Pintor et al. I6: with no bound that matters, accuracy must fall to chance or below."""
    figure, n, chance = f"{percent(right)} left at eps {eps:g}", len(right), 1 / classes
    error = 2 * (chance * (1 - chance) / n) ** 0.5
    if float(np.mean(right)) <= chance + max(error, LEAST):
        return Finding("large-eps", figure, "ok")
    advice = "no image should survive this: the gradients are masked, or the attack does not see the model it attacks"
    return Finding("large-eps", figure, "suspicious", advice)


def reach(attack: PGD) -> Finding:
    """Whether the steps can carry an image from where the attack starts to any corner of the ball."""
    way = float(attack.eps) * (2 if attack.random_start else 1)
    length = attack.steps * float(attack.step)
    figure = f"{attack.steps} steps of {attack.step} reach {length / float(attack.eps or 1):.2g} eps"
    # 1e-9: exact fractions as floats
    if length >= way - 1e-9:
        return Finding("reach", figure, "ok")
    advice = f"use at least {-(-way // float(attack.step)):.0f} steps of this size" if attack.step else "step is zero"
    return Finding("reach", figure, "suspicious", advice)

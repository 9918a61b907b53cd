"""Is this robustness real? What numbers alone can say: rules over accuracy by image, without torch.

Every rule compares how right each image is, (n,) in [0, 1], under two attacks on the same images
(`bench.votes.numbers.correct` gives it from a record). Sources: Athalye et al. 2018 (arXiv 1802.00420),
Carlini et al. 2019 (arXiv 1902.06705), Pintor et al. 2022 (arXiv 2106.09947).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["ok", "suspicious", "cannot tell"]
Right = NDArray[np.float64]

LEAST = 0.05
"""A fall of accuracy below this is not called suspicious, however many images show it."""
TAKES = 0.2
"""Of what random points leave, an attack that follows gradients must take at least this share, in a wide ball."""


class Finding(NamedTuple):
    """One check: its name, the figure it is decided by, the verdict, and what to do about it.

    `p` is the chance of a figure as extreme on an honest model; of an exact check there is none. A suspicion with a
    `p` is settled only among all of a diagnosis (`bench.lab.examine.family`).
    """

    check: str
    figure: str
    verdict: Verdict
    advice: str = ""
    p: float | None = None


def chance(before: Right, after: Right) -> float:
    """One-sided exact sign test over images: how likely so many of those that changed fell, were both alike."""
    from scipy.stats import binom

    gap = np.asarray(before, np.float64) - np.asarray(after, np.float64)
    falls, changed = int((gap > 0).sum()), int((gap != 0).sum())
    return float(binom.sf(falls - 1, changed, 0.5)) if changed else 1.0


def too_rare(rises: int, n: int, wanted: float = 0.9) -> float:
    """The chance of so few `rises` of n where each has a chance of `wanted` (exact binomial)."""
    from scipy.stats import binom

    return float(binom.cdf(rises, n, wanted))


def percent(right: Right) -> str:
    return f"{100 * float(np.mean(right)):.1f} %"


def tested(check: str, figure: str, p: float, advice: str, least: bool = True) -> Finding:
    """Suspicious by a test, if the effect is also as large as what counts (`least`)."""
    suspect = least and p < 0.05
    return Finding(check, figure, "suspicious" if suspect else "ok", advice if suspect else "", p if least else 1.0)


def compare(check: str, first: tuple[str, Right], second: tuple[str, Right], advice: str) -> Finding:
    """Suspicious if accuracy under the second attack is lower than under the first, which should be the stronger."""
    (name, before), (other, after) = first, second
    figure = f"{name} {percent(before)}, {other} {percent(after)}"
    return tested(check, figure, chance(before, after), advice, float(np.mean(before) - np.mean(after)) > LEAST)


def nothing_lower(white: Right, alpha: float) -> str:
    """Why no attack can be shown to take more than the one that left `white` (n,), were it to take everything; ""
    where one can."""
    if float(np.mean(white)) <= LEAST:
        return f"{percent(white)} is left: nothing to lower"
    held = int((white > 0).sum())
    return f"{held} images hold: too few to tell" if 0.5**held > alpha else ""


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


def idle(right: Right, without: Right) -> float:
    """The chance of an attack taking so little of what is right `without` it, did it take a fifth of that.

    Shares of draws count as images: what lies in [0, 1] varies at most as much as 0 and 1 do.
    """
    there = float(np.sum(without))
    taken = float(np.clip(np.asarray(without) - np.asarray(right), 0, 1).sum())
    return too_rare(int(np.ceil(taken - 1e-9)), round(there), TAKES) if there else 1.0


def no_better(check: str, words: str, right: Right, without: Right, wide: tuple[Right, Right] | None) -> Finding:
    """The attack must take more than points of the ball that follow no gradient.

    `right` and `without` (n,) are what it and they leave in the declared ball, and `wide` the same in a ball where
    an honest model, robust or not, must fall: None where the declared one has shown enough.
    """
    figure = f"{words} {percent(without)}, the attack {percent(right)}"
    if wide is None:
        return Finding(check, figure, "ok")
    figure += f"; in a wide ball {percent(wide[1])} and {percent(wide[0])}"
    p = max(idle(right, without), idle(*wide))
    advice = "the attack does next to nothing, so its number says nothing: the gradient is hidden, see `views`"
    return tested(check, figure, p, advice)


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


def self_transfer(known: Right, fresh: Right, moving: Right) -> Finding:
    """What an attack on one draw leaves of that draw and of fresh ones, beside the attack on moving draws.

    The protocol of RPF, RNA, CTRW and DWQ is the second number: a transfer from one draw to others.
    """
    figure = f"an attack on one frozen draw leaves {percent(known)} of it and {percent(fresh)} of fresh draws"
    return Finding("frozen-draw", f"{figure}, on moving draws {percent(moving)}", "ok")


def protocol(draw: str, declared: Right, moving: Right) -> Finding:
    """An attack whose draws do not move must not leave more than the same attack on fresh draws."""
    advice = f'the declared attack has draw = "{draw}", which misses the noise: report draw = "moving"'
    return compare("frozen-draw", (f"draw {draw}", declared), ("moving draws", moving), advice)


def reseeded(judged: Right, other: Right) -> Finding:
    """Accuracy (draws,) on the judge's draws must be that on draws of another seed, which no model can know.

    Draws, not images, are what is independent: the one-sided exact rank test over them (Mann & Whitney 1947).
    """
    from scipy.stats import mannwhitneyu

    figure = f"the judge's draws {percent(judged)}, draws of another seed {percent(other)}"
    alike = float(np.ptp([*judged, *other])) == 0
    p = 1.0 if alike else float(mannwhitneyu(judged, other, alternative="greater").pvalue)
    advice = "the model knows the judge's seeds, or draws from a generator that it was not given"
    return tested("reseeded", figure, p, advice, float(np.mean(judged) - np.mean(other)) > LEAST)


def silent_success(last: Right, path: Right) -> Finding:
    """Pintor et al. I3: the attack passed through an image that fools and returned one that does not."""
    advice = "set pick = 'best' (or early_stop for a deterministic model)"
    return compare("silent-success", ("last iterate", last), ("any iterate", path), advice)


def large_eps(right: Right, classes: int, eps: float) -> Finding:
    """Athalye et al.; Pintor et al. I6: with no bound that matters, accuracy must fall to chance or below."""
    figure, n, guess = f"{percent(right)} left at eps {eps:g}", len(right), 1 / classes
    from scipy.stats import binom

    p = float(binom.sf(int(np.floor(np.sum(right) + 1e-9)) - 1, n, guess + LEAST))
    advice = "no image should survive this: the gradients are masked, or the attack does not see the model it attacks"
    return tested("large-eps", figure, p, advice)

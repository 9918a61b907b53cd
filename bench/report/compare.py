"""A record against what is made again, image by image: what differs, and whether two arithmetics differ as much."""

from __future__ import annotations

import numpy as np
import scipy  # scipy.special is loaded when it is first needed
from numpy.typing import NDArray

from bench.recipes import CTRW, RNA, RPF, WCA, Fetched, Mixture, Model, Outcomes, RandomPrecision, Trained
from bench.votes.intervals import drift, mcnemar
from bench.votes.numbers import correct, predicted
from bench.votes.votes import Votes

Bools = NDArray[np.bool_]
GROSS = 1 / 8  # of an image's draws
FAR = 0.1  # of a probability
MOVED = 1e-4  # of a distance
NEAR = 2e-3  # of a probability kept as float16, between equal computations
SLACK, FLOOR = 8.0, 0.01  # times the largest difference of log-odds that two arithmetics show; of log-odds
FLIPPED = 0.25  # of an image's draws, between two float32 arithmetics


def exactly(record: Votes, here: Votes) -> dict[str, Bools]:
    """By what is compared, the images (n,) that differ where nothing may: the same bits were to be expected."""
    return {
        "counts": redrawn(record, here),
        "first draws": _told(record, here),
        "soft winner": record.soft != here.soft,
        "end": record.settled != here.settled,
        "probabilities": _apart(record, here) > NEAR,
        "claim": record.claimed != here.claimed,
        "distance": record.linf != here.linf,
    }


def grossly(record: Votes, here: Votes) -> dict[str, Bools]:
    """By what is compared, the images (n,) that differ by more than a draw here or there."""
    return {
        "vote": predicted(record, "vote") != predicted(here, "vote"),
        "soft winner": record.soft != here.soft,
        "counts": (_moved(record, here) > GROSS) | (_apart(record, here) > FAR),
        "claim": record.claimed != here.claimed,
        "distance": np.abs(record.linf - here.linf) > MOVED,
    }


def redrawn(record: Votes, here: Votes) -> Bools:
    """The images (n,) of which any draw went to another class, or to none."""
    return np.asarray((record.counts != here.counts).any(1) | (record.prefix != here.prefix).any(1), np.bool_)


def impossible(record: Votes, here: Votes, other: Votes, float32: bool) -> Bools:
    """Images (n,) without an attack that differ by more than any arithmetic can, given that of `here` and `other`.

    A deterministic model's log-odds between its two likeliest classes move by no more than SLACK times what they
    move between two arithmetics here. Of a randomised one's draws, each with the same noise, a quarter
    do not change their minds between float32 and float32.
    """
    if here.drawn.max() > 1:
        return (_moved(record, here) > FLIPPED) & float32
    logs = [np.log(np.maximum(votes.probs.astype(np.float64), 1e-7)) for votes in (here, other)]
    top = np.argsort(logs[0], axis=1)[:, -2:]
    odds = [np.take_along_axis(one, top, 1) @ (-1, 1) for one in logs]
    known = here.probs[np.arange(len(top)), top[:, 0]] > 1e-3  # float16 keeps no more of what is smaller
    noise = float(np.abs(odds[0] - odds[1])[known].max(initial=0.0))
    allowed = SLACK * noise + FLOOR
    flipped = predicted(record, "accuracy") != predicted(here, "accuracy")
    far = _apart(record, here) > allowed / 2 + NEAR  # a probability moves by at most a quarter of its log-odds
    return np.asarray((flipped & (odds[0] > allowed)) | far, np.bool_)


def excess(differing: int, yardstick: int, images: int) -> float:
    """p of so many images that differ from the record, where `yardstick` differ between two arithmetics here.

    One-sided, against a rate of twice (yardstick + 1) / images: the factor for a machine less like this one than
    its own two arithmetics are alike, the one for what so few images cannot tell of a rate.
    """
    rate = min(1.0, 2 * (yardstick + 1) / images)
    return float(scipy.special.bdtrc(differing - 1, images, rate)) if differing else 1.0


def needed(yardstick: int, images: int, level: float) -> int:
    """The fewest differing images that `excess` finds at this level; images + 1 if none do."""
    return next((k for k in range(1, images + 1) if excess(k, yardstick, images) < level), images + 1)


def needed_to_raise(discordant: int, images: int, level: float) -> int:
    """The fewest images made right that a paired test of accuracy finds, of which `discordant` differ by themselves.

    McNemar's exact test, with a standard deviation to spare for what those do by chance; images + 1 if none do.
    """
    half, spare = discordant // 2, int(np.ceil(np.sqrt(discordant)))
    for k in range(1, images + 1 - spare):
        if 2 * scipy.special.bdtrc(half + k - 1, 2 * half + k, 0.5) < level:
            return k + spare
    return images + 1


def sums(outcomes: Outcomes, record: Votes, here: Votes) -> dict[str, float]:
    """p of equal accuracy: of the first draws, and of what all draws decide by either rule."""
    at = np.arange(len(here.labels))
    recorded, made = (one.prefix[at, one.labels].astype(np.int64) for one in (record, here))
    tests = {
        rule: mcnemar(correct(record, rule) > 0, correct(here, rule) > 0).difference.p for rule in ("vote", "soft")
    }
    if outcomes.target.stochastic:
        p = drift(recorded, record.prefix_draws, made, here.prefix_draws)
        shared = shares_draws(outcomes.target)
        tests["draws"] = max(p, by_draw(recorded, record.prefix_draws, here)) if shared else p
    return tests


def by_draw(recorded: NDArray[np.int64], draws: int, here: Votes) -> float:
    """p of equal accuracy where a shard's images share each draw: draws, not answers, are the sample.

    The variance of a draw's accuracy is taken from the recomputation alone, which nobody doctored.
    recorded (n,): right answers of `draws` draws on the images of `here`. Welch's t (1947) over the
    shards; 1 if one draw was made here and nothing is known.
    """
    if here.prefix_draws < 2:
        return 1.0
    n = len(here.labels)
    one = here.draw_right.astype(np.float64)
    spread = one.var(axis=1, ddof=1) / n**2 * (1 / draws + 1 / here.prefix_draws)
    gap = recorded.sum() / draws / n - one.mean(axis=1).sum() / n
    variance = float(spread.sum())
    if variance == 0:
        return 1.0 if gap == 0 else 0.0
    freedom = variance**2 / float((spread**2 / (here.prefix_draws - 1)).sum())
    return float(2 * scipy.special.stdtr(freedom, -abs(gap) / np.sqrt(variance)))


def shares_draws(target: Model) -> bool:
    """Whether one draw of noise serves all images of a shard: noise in weights does, in pixels not."""
    weights, over = target.weights, target.defence
    if isinstance(over, Mixture | RandomPrecision) or isinstance(weights, Fetched) or weights.noise is not None:
        return True
    return isinstance(weights, Trained) and isinstance(weights.defence, RNA | RPF | CTRW | WCA)


def _told(record: Votes, here: Votes) -> Bools:
    """Where the winners of the first draws differ (n,); everywhere, where only one side says who they were."""
    if record.winners is None or here.winners is None:
        return np.full(len(here.labels), record.winners is not here.winners)
    return np.asarray((record.winners != here.winners).any(1))


def _moved(record: Votes, here: Votes) -> NDArray[np.float64]:
    """The share of an image's draws that went to another class (n,)."""
    shares = [votes.counts / votes.drawn[:, None] for votes in (record, here)]
    return np.asarray(np.abs(shares[0] - shares[1]).sum(1) / 2, np.float64)


def _apart(record: Votes, here: Votes) -> NDArray[np.float32]:
    return np.asarray(np.abs(record.probs.astype(np.float32) - here.probs.astype(np.float32)).max(1), np.float32)

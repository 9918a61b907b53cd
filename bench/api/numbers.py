"""Numbers as they are handed out: shares in [0, 1], each with its interval, images and draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from bench.votes import numbers as folds
from bench.votes.intervals import of_share
from bench.votes.sharing import estimate
from bench.votes.votes import Votes


@dataclass(frozen=True)
class Number:
    """A share in [0, 1] (not percent), its 95 % interval, and the images and draws an image that it is of.

    `float(number)` is the value; numbers print as percent.
    """

    value: float
    low: float
    high: float
    n: int
    draws: float

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{100 * self.value:.2f} % ({100 * self.low:.2f} to {100 * self.high:.2f})"


@dataclass(frozen=True)
class Numbers:
    """What fresh draws say of a model on some images; each None where it has no meaning.

    expected: the mean probability that one draw is right; of a deterministic model, its accuracy. vote, soft: how
    often the class of most draws, or of the largest mean softmax, is right. infinite: the vote of infinitely many
    draws; `value` counts the images that are surely right, `high` also those that the draws leave open. frozen: what
    the attack leaves that was crafted on one held draw, as many papers do it. claimed: what the attack itself believed
    to leave. clean: expected, without the attack.
    """

    expected: Number
    vote: Number
    soft: Number | None
    infinite: Number | None
    clean: Number | None = None
    claimed: Number | None = None
    frozen: Number | None = None
    eps: float | None = None
    norm: str = ""

    def items(self) -> Iterator[tuple[str, Number]]:
        """The numbers that are there, by name."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Number):
                yield field.name, value

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        named = {name: vars(number) for name, number in self.items()}
        return named | ({} if self.eps is None else {"eps": self.eps, "norm": self.norm})


def numbers(votes: Votes, stochastic: bool, **more: Any) -> Numbers:
    """Every number that votes give. A deterministic model's one prediction is its vote, too."""
    sure = folds.infinite(votes)
    mean = float(votes.drawn.mean())
    expected = number(votes, "expected" if stochastic else "accuracy")
    vote = number(votes, "vote") if stochastic else expected
    soft = number(votes, "soft") if stochastic else expected
    assert expected is not None and vote is not None
    infinite = None
    if not isinstance(sure, folds.Missing):
        infinite = Number(sure.sure, sure.low, sure.high, sure.n, mean)
    return Numbers(expected, vote, soft, infinite, claimed=_claimed(votes, stochastic), **more)


def _claimed(votes: Votes, stochastic: bool) -> Number | None:
    """What the attack believed. Draws of a stochastic source served all images of a shard, and nothing tells which
    erred together: the interval is from the spread between shards, everything where there is one."""
    claimed = number(votes, "claimed")
    if claimed is None or not stochastic:
        return claimed
    part = folds.values(votes, "claimed")._replace(draws=1)
    interval = of_share(estimate(part.each, [(1.0, part)]), claimed.n)
    return replace(claimed, low=interval.low, high=interval.high)


def number(votes: Votes, kind: Any) -> Number | None:
    """One number of the votes; None where it is missing."""
    found = folds.fold(votes, kind)
    if isinstance(found, folds.Missing):
        return None
    draws = float(votes.prefix_draws if kind == "expected" else votes.drawn.mean())
    return Number(found.value, found.low, found.high, found.n, draws)


def plain(several: Mapping[str, Numbers]) -> dict[str, Any]:
    """Numbers by attack, as JSON holds them."""
    return {name: one.plain() for name, one in several.items()}

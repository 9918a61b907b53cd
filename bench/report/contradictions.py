"""What votes cannot be: against themselves and against the recipe that they answer. Without torch, without images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.recipes import Clean, Outcomes, Worst
from bench.store.tasks import images_in
from bench.votes.stopping import decide, ppr
from bench.votes.votes import Votes, check

PREFIX = 16  # draws that every image has where a stopping rule may end the others early
SLACK = 1e-6  # of a distance
NEAR = 1e-3  # of a probability that is kept as float16


def contradiction(outcomes: Outcomes, votes: Votes) -> str:
    """The first thing in which the votes contradict themselves or their recipe; "" if there is none."""
    try:
        check(votes)
    except ValueError as error:
        return f"the record contradicts itself: {error}"
    return next(_contradictions(outcomes, votes), "")


def _contradictions(outcomes: Outcomes, votes: Votes) -> Iterator[str]:
    n, examples = len(votes.labels), outcomes.examples
    if n != images_in(outcomes):
        yield f"it holds {n} images, its recipe {images_in(outcomes)}"
        return
    total = examples.data.total
    if votes.index.min() < 0 or (total and votes.index.max() >= total):
        yield f"it holds images {votes.index.min()} to {votes.index.max()}, its data has {total}"
        return
    if (votes.shard != np.arange(n) // examples.shard).any():
        yield "its shards are not those of its recipe"
        return
    yield from _draws(outcomes, votes)
    right = votes.prefix[np.arange(n), votes.labels].astype(np.int64)
    for shard, draws in enumerate(votes.draw_right):
        mine = votes.shard == shard
        if right[mine].sum() != draws.sum() or draws.max() > mine.sum():
            yield f"the right answers of shard {shard}'s draws are not those of its images"
    attack = examples.attack
    if isinstance(attack, Clean):
        if votes.linf.any() or (votes.claimed != -1).any():
            yield "it tells of an attack, its images are clean"
        return
    if votes.linf.min() < 0 or votes.linf.max() > (eps := most(outcomes)) + SLACK:
        yield f"an image lies {votes.linf.max():.6f} from its original, eps is {eps:.6f}"
    if outcomes.iterate is not None and (votes.claimed != -1).any():
        yield "it tells what an attack claimed of an image on its way"
    if outcomes.iterate is None and not np.isin(votes.claimed, (0, 1)).all():
        yield "what the attack claimed is neither yes nor no"


def most(outcomes: Outcomes) -> float:
    """The largest L-inf distance that the attack allows."""
    attack = outcomes.examples.attack
    several = attack.attacks if isinstance(attack, Worst) else (attack,)
    return max((0.0 if isinstance(one, Clean) else min(1.0, float(one.eps)) for one in several), default=0.0)


def _draws(outcomes: Outcomes, votes: Votes) -> Iterator[str]:
    """How many draws there are, and where the stopping rule ended them."""
    draws = outcomes.draws if outcomes.target.stochastic else 1
    drawn, kept = votes.drawn, votes.prefix_draws
    if len(votes.draw_right) != votes.shard[-1] + 1:
        yield f"{len(votes.draw_right)} shards have drawn, its recipe has {votes.shard[-1] + 1}"
        return
    stopping, ends = outcomes.stopping, outcomes.stopping.kind == "adaptive" and outcomes.target.stochastic
    first = min(draws, PREFIX) if ends else draws
    if kept != first or (votes.prefix.sum(1, dtype=np.int64) != first).any():
        yield f"its first draws are not the {first} of its recipe"
    if votes.rule != (stopping.rule if ends else ""):
        yield f"its draws were ended by the rule {votes.rule!r}, which is not its recipe's"
    if drawn.max() > draws:
        yield f"an image has {drawn.max()} draws, its recipe {draws}"
    short = drawn < draws
    if short.any() and not ends:
        yield f"an image has {drawn.min()} draws, its recipe {draws}"
    if (votes.settled != drawn).any() and not (ends and stopping.infinite):
        yield "an image was settled before its draws ended"
    if ends:
        yield from _endings(outcomes, votes, np.unique(drawn[short]).tolist())
    if draws == 1:
        winner = votes.probs[np.arange(len(drawn)), votes.counts.argmax(1)].astype(np.float32)
        if (winner < votes.probs.max(1).astype(np.float32) - NEAR).any():
            yield "an image's one prediction is not its likeliest class"


def _endings(outcomes: Outcomes, votes: Votes, counts: list[int]) -> Iterator[str]:
    """Images whose draws end where their rule, asked of the votes that are there, goes on."""
    stopping = outcomes.stopping
    for count in counts:
        at = votes.counts[votes.drawn == count]
        settled = np.ones(len(at), bool)
        if stopping.rule == "vote":
            settled &= decide(at, count, outcomes.draws, stopping.alpha).decided
        if stopping.infinite:
            settled &= ppr(at, stopping.alpha).decided
        if not settled.all():
            yield f"an image's draws end after {count}, where its stopping rule goes on"
            return

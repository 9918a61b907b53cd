"""Simulated votes, and when the stopping rules end them."""

from __future__ import annotations

import numpy as np

from bench.votes.stopping import (
    decide,
    soft_decide,
    soft_rows,
    soft_start,
    soft_update,
)


def votes(shares: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Labels (n, draws) with class probabilities shares (n, classes)."""
    return (rng.random((len(shares), draws))[:, :, None] > shares.cumsum(1)[:, None, :-1]).sum(2)


def run(labels: np.ndarray, classes: int, alpha: float, method: str = "default", every: int = 1) -> tuple:
    """Stop each row of labels (n, total); returns (draws used, decision, full vote)."""
    n, total = labels.shape
    counts = np.zeros((n, classes), dtype=int)
    open_, used, winner = np.arange(n), np.full(n, total), np.full(n, -1)
    for m in range(1, total + 1):
        counts[open_, labels[open_, m - 1]] += 1
        if m % every and m < total:
            continue
        stop = decide(counts[open_], m, total, alpha, method)
        done = open_[stop.decided]
        used[done], winner[done] = m, stop.winner[stop.decided]
        open_ = open_[~stop.decided]
        if not len(open_):
            break
    full = np.stack([(labels == k).sum(1) for k in range(classes)], 1).argmax(1)
    return used, winner, full


def realistic(n: int, rng: np.random.Generator) -> np.ndarray:
    """60 % of images sure (p > 0.95), 25 % at 0.7-0.95, 15 % at 0.4-0.7, the rest spread over nine rivals."""
    kind = rng.random(n)
    easy, middle, hard = rng.uniform(0.95, 1, n), rng.uniform(0.7, 0.95, n), rng.uniform(0.4, 0.7, n)
    top = np.where(kind < 0.6, easy, np.where(kind < 0.85, middle, hard))
    return np.concatenate([top[:, None], rng.dirichlet(np.full(9, 0.3), n) * (1 - top)[:, None]], 1)


def soft_run(probs: np.ndarray, alpha: float, every: int = 8) -> tuple:
    n, total, classes = probs.shape
    state, open_ = soft_start(n, classes), np.arange(n)
    used, winner = np.full(n, total), np.full(n, -1)
    for m in range(0, total, every):
        state = soft_update(state, probs[open_, m : m + every].transpose(1, 0, 2), total)
        stop = soft_decide(state, total, alpha)
        done = open_[stop.decided]
        used[done], winner[done] = state.drawn, stop.winner[stop.decided]
        open_, state = open_[~stop.decided], soft_rows(state, ~stop.decided)
    return used, winner, probs.sum(1).argmax(1)


def softmaxes(means: list[float], spread: float, n: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    logits = np.log(np.array(means)) + spread * rng.standard_normal((n, draws, len(means)))
    odds = np.exp(logits)
    return odds / odds.sum(-1, keepdims=True)

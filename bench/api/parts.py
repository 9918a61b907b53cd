"""The parts of an evaluation by themselves: attack, judge, diagnose, certify, compare; and results of suites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import UserError
from bench.api.attacks import eps_of, norm_of, recipes_of
from bench.api.call import evaluate
from bench.api.numbers import Number
from bench.api.report import Report
from bench.api.run import InUse
from bench.recipes import PGD, Examples, Peer
from bench.votes import intervals
from bench.votes.numbers import correct
from bench.votes.numbers import rows as shared

if TYPE_CHECKING:
    from torch import Tensor

    from bench.lab.examine.rules import Finding


@dataclass(frozen=True)
class Attacked:
    """What an attack made: images (n, c, h, w) float32 in [0, 1] in the order of the data, on the CPU; labels (n,) and
    index (n,), their places in it; claimed (n,) bool, whether the attack believes that it fooled the model."""

    images: Tensor
    labels: Tensor
    index: NDArray[np.int64]
    claimed: Tensor


def attack(
    model: Any,
    data: Any = "cifar10",
    attack: Any = "pgd20",
    *,
    eps: Any = "8/255",
    norm: str = "Linf",
    eot: int | Literal["auto"] = "auto",
    redraw: Any = None,
    n: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: Literal["float32", "bfloat16", "auto"] = "float32",
    data_root: Path | str | None = None,
) -> Attacked:
    """Craft adversarial images, by one attack of those that `bench.evaluate` takes; arguments and errors are its.

    All `n` images from the first on (None: all). What comes back keeps within `eps` and [0, 1], checked.
    """
    from bench.lab.craft import craft
    from bench.lab.streams import Streams

    with InUse(model, data, n, redraw=redraw, seed=seed, device=device, data_root=data_root) as it:
        made = recipes_of(attack, eps_of(eps), norm_of(norm), it.who.model.stochastic, eot)
        if len(made) != 1:
            raise UserError("attack", f"{len(made)} attacks", "name one; bench.evaluate takes several")
        recipe = next(iter(made.values()))
        images, claimed, index, labels = [], [], [], []
        examples = Examples(data=it.data, source=it.who.model, attack=recipe, seed=seed, precision=precision)
        for shard in range(-(-it.count // examples.shard)):
            x, y, at = it.lab.shard(examples, shard)
            compute = it.lab.compute()
            it.lab.suit(compute, precision, it.who.model, it.data)
            crafted = craft(recipe, it.lab.model(it.who.model, it.data), x, y, Streams(seed, shard, x.device), compute)
            images.append(crafted.images.cpu())
            claimed.append(crafted.claimed.cpu() == 1)
            index.append(at)
            labels.append(y.cpu())
    import torch

    return Attacked(torch.cat(images), torch.cat(labels), np.concatenate(index), torch.cat(claimed))


def judge(model: Any, data: Any = "cifar10", **how: Any) -> Report:
    """Judge images as they are (your own adversarial ones, say): `bench.evaluate` without an attack; all of them."""
    return evaluate(model, data, attacks=(), **({"n": None} | how))


def diagnose(
    model: Any,
    data: Any = "cifar10",
    attack: Any = "pgd20",
    *,
    eps: Any = "8/255",
    norm: str = "Linf",
    eot: int | Literal["auto"] = 1,
    redraw: Any = None,
    n: int = 100,
    seed: int = 0,
    queries: int = 200,
    device: str = "auto",
    data_root: Path | str | None = None,
) -> list[Finding]:
    """Is this robustness real? Every check of ``bench diagnose`` on `n` images: (check, figure, verdict, advice) each.

    verdict: "ok", "suspicious" or "cannot tell". `attack` is the PGD that is to be reported; other arguments and
    errors are those of `bench.evaluate`.
    """
    from bench.lab.examine.diagnose import diagnose as checks
    from bench.lab.streams import Streams

    with InUse(model, data, n, redraw=redraw, seed=seed, device=device, data_root=data_root, ordered=False) as it:
        declared = next(iter(recipes_of(attack, eps_of(eps), norm_of(norm), it.who.model.stochastic, eot).values()))
        if not isinstance(declared, PGD | Peer) or declared.norm == "L1":
            raise UserError("attack", f"{attack!r} is neither a PGD nor another library's", 'name one such as "pgd20"')
        x, y, _ = it.lab.shard(Examples(data=it.data, shard=it.count), 0)
        compute = it.lab.compute()
        it.lab.suit(compute, "float32", it.who.model, it.data)
        network = it.lab.model(it.who.model, it.data)
        return list(checks(network, x, y, Streams(seed, 0, x.device), compute, declared, queries=queries))


@dataclass(frozen=True)
class Certified:
    """Certified accuracy: at each L2 radius (pixels in [0, 1]) the share of images that are surely right there; and for
    each image its prediction (-1: abstained) and radius (n,)."""

    sigma: float
    accuracy: Mapping[float, Number]
    abstained: float
    prediction: NDArray[np.int64]
    radius: NDArray[np.float64]
    index: NDArray[np.int64]


def certify(
    model: Any,
    data: Any = "cifar10",
    sigma: float = 0.25,
    *,
    n0: int = 100,
    draws: int = 1000,
    alpha: float = 1e-3,
    radii: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0),
    redraw: Any = None,
    n: int | None = 500,
    seed: int = 0,
    device: str = "auto",
    data_root: Path | str | None = None,
) -> Certified:
    """Randomised smoothing (Cohen et al. 2019): the model under Gaussian noise of deviation `sigma` on its input.

    `n0` draws choose each image's class, `draws` others bound its probability; each radius holds with probability
    1 - alpha. The model is meant to have been trained on such noise. Other arguments and errors: `bench.evaluate`.
    """
    from bench.lab.judge import Judged
    from bench.lab.judge import judge as count
    from bench.lab.streams import Streams
    from bench.recipes import Stopping
    from bench.votes.certify import ABSTAIN, certified_accuracy
    from bench.votes.certify import certify as bound

    if not sigma > 0:
        raise UserError("sigma", f"{sigma} is no noise", "give the deviation that the model was trained with")
    with InUse(model, data, n, redraw=redraw, seed=seed, device=device, data_root=data_root, ordered=False) as it:
        smoothed = it.who.model.model_copy(update={"sigma": eps_of(sigma)})
        x, y, index = it.lab.shard(Examples(data=it.data, shard=it.count), 0)
        shard = Judged(x, y, index, np.zeros(len(x), np.float32), np.full(len(x), -1, np.int8))
        compute, network = it.lab.compute(), it.lab.model(smoothed, it.data)
        it.lab.suit(compute, "float32", smoothed, it.data)
        first, second = (
            count(network, shard, k, Stopping(), Streams(seed + more, 0, x.device), compute)
            for k, more in ((n0, 1), (draws, 2))
        )
    try:
        found = bound(first.counts, second.counts, alpha, sigma)
    except ValueError as error:
        raise UserError("draws", str(error), "take more draws, or a larger alpha") from None
    labels = first.labels.astype(np.int64)
    shares = certified_accuracy(found.prediction, found.radius, labels, list(radii))
    held = [intervals.share(round(float(share) * len(labels)), len(labels)) for share in shares]
    accuracy = {r: Number(*one[:3], len(labels), draws) for r, one in zip(radii, held, strict=True)}
    abstained = float((found.prediction == ABSTAIN).mean())
    return Certified(sigma, accuracy, abstained, found.prediction, found.radius, first.index)


class Compared(NamedTuple):
    """Two reports under one attack: the first's expected accuracy less the second's, on the images that both have, with
    a 95 % interval; p of no difference, two-sided and paired; how many images."""

    attack: str
    difference: float
    low: float
    high: float
    p: float
    n: int


def compare(first: Report, second: Report) -> dict[str, Compared]:
    """Two reports attack by attack (and "clean"), paired by image. UserError if they are of other images."""
    common = [name for name in first.votes if name in second.votes]
    found = {}
    for name in common:
        one, other = first.votes[name], second.votes[name]
        try:
            a, b = shared(one, other)
        except ValueError as error:
            raise UserError(
                "compare", f"not the same images: {error}", "evaluate both models on the same data"
            ) from None
        if len(a) < 2:
            raise UserError("compare", f"{len(a)} images in common", "evaluate both with the same data, n and seed")
        kinds = ["expected" if votes.drawn.max() > 1 else "accuracy" for votes in (one, other)]
        right, wrong = correct(one, kinds[0])[a], correct(other, kinds[1])[b]
        if kinds == ["accuracy", "accuracy"]:
            difference = intervals.mcnemar(right > 0, wrong > 0).difference
        else:
            difference = intervals.paired_difference(right, wrong)
        found[name] = Compared(name, difference.value, difference.low, difference.high, difference.p, len(a))
    return found

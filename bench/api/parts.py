"""The parts of an evaluation by themselves: attack, judge, certify."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench import UserError
from bench.api.attacks import eps_of, norm_of, recipes_of
from bench.api.call import MOST, evaluate, suite_of
from bench.api.checked import auto, precision_of, seed_of, whole
from bench.api.hand import lend
from bench.api.numbers import Number
from bench.api.outcome import Asking, named
from bench.api.report import Report
from bench.suite.schema import Certify, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from bench.votes.votes import Votes

TURN = 100  # images whose draws for a certificate are made at once, and kept
STOPPED = "interrupted: only what was finished by then is here"


@dataclass(frozen=True)
class Attacked:
    """What an attack made: images (n, c, h, w) float32 in [0, 1] in the order of the data, on the CPU; labels (n,) and
    index (n,), their places in it; claimed (n,) bool, whether the attack believes that it fooled the model; flags, what
    must be said of them (an interruption: then they are the first images)."""

    images: Tensor
    labels: Tensor
    index: NDArray[np.int64]
    claimed: Tensor
    flags: tuple[str, ...] = ()


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
    out: Path | str | None = None,
    data_root: Path | str | None = None,
    progress: bool | None = None,
) -> Attacked:
    """Craft adversarial images, by one attack of those that `bench.evaluate` takes; arguments and errors are its.

    All `n` images from the first on (None: all). What comes back keeps within `eps` and [0, 1], checked. Ctrl-C: what
    is finished (500 images at a time) is returned, if anything is; with `out` it is kept, and the same call goes on.
    """
    import torch
    from safetensors.torch import load

    protocol, far, kind = Protocol(seed=seed_of(seed), precision=precision_of(precision)), eps_of(eps), norm_of(norm)
    slopes = auto("eot", eot)
    with lend(
        model, data, n, seed=seed, ordered=True, device=device, out=out, data_root=data_root, redraw=redraw
    ) as it:
        made = recipes_of(attack, far, kind, it.who.model.stochastic, slopes)
        if len(made) != 1:
            raise UserError("attack", f"{len(made)} attacks", "name one; bench.evaluate takes several")
        label, recipe = next(iter(made.items()))
        suite = suite_of(it.who, it.data, Asking({label: (recipe, None)}, kind, 1, False), protocol)
        examples, bench = suite.examples(named(label), it.who.name), it.bench(suite)
        stopped = bench.tried([examples], progress)
        found = [load(part) for part in bench.finished(examples)]
        if not found:
            raise KeyboardInterrupt
        about = [bench.lab.shard(examples, shard) for shard in range(len(found))]
        labels, index = torch.cat([y.cpu() for _, y, _ in about]), np.concatenate([at for _, _, at in about])
    images, claimed = (torch.cat([part[name] for part in found]) for name in ("images", "claimed"))
    return Attacked(images, labels, index, claimed == 1, (*it.notes, *bench.notes, *([STOPPED] if stopped else [])))


def judge(model: Any, data: Any = "cifar10", **how: Any) -> Report:
    """Judge images as they are (your own adversarial ones, say): `bench.evaluate` without an attack; all of them."""
    if "attacks" in how:
        raise UserError("judge: attacks", "images are judged as they are", "bench.evaluate attacks them first")
    return evaluate(model, data, attacks=(), **({"n": None} | how))


@dataclass(frozen=True)
class Certified:
    """Certified accuracy: at each L2 radius (pixels in [0, 1]) the share of images that are surely right there; and for
    each image its prediction (-1: abstained) and radius (n,); flags, what must be said of them."""

    sigma: float
    accuracy: Mapping[float, Number]
    abstained: float
    prediction: NDArray[np.int64]
    radius: NDArray[np.float64]
    index: NDArray[np.int64]
    flags: tuple[str, ...] = ()


def certify(
    model: Any,
    data: Any = "cifar10",
    sigma: Any = 0.25,
    *,
    n0: int = 100,
    draws: int = 1000,
    alpha: float = 1e-3,
    radii: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0),
    redraw: Any = None,
    n: int | None = 500,
    seed: int = 0,
    device: str = "auto",
    out: Path | str | None = None,
    data_root: Path | str | None = None,
    progress: bool | None = None,
) -> Certified:
    """Randomised smoothing (Cohen et al. 2019): the model under Gaussian noise of deviation `sigma` on its input.

    `n0` draws choose each image's class, `draws` others (65,535 at most) bound its probability; each radius holds with
    probability 1 - alpha. The model is meant to have been trained on such noise. Other arguments and errors are those
    of `bench.evaluate`. Ctrl-C: what is finished (100 images at a time) is certified, if anything is; with `out` it is
    kept, and the same call goes on.
    """
    deviation, about = _deviation(sigma), _certify(n0, draws, alpha, radii)
    protocol = Protocol(seed=seed_of(seed), shard=TURN)
    with lend(model, data, n, seed=seed, device=device, out=out, data_root=data_root, redraw=redraw) as it:
        bare = suite_of(it.who, it.data, Asking({}, "L2", 1, False), protocol)
        entry = bare.models[it.who.name].model_copy(update={"sigma": deviation, "certify": about})
        suite = bare._replace(models={it.who.name: entry}, tables={})
        _, chosen, bound = next(suite.certificates())
        bench = it.bench(suite)
        stopped = bench.tried([chosen, bound], progress)
        first, second = ([*bench.finished(one)] for one in (chosen, bound))
        if not first or not second:
            raise KeyboardInterrupt
        flags = (*it.notes, *bench.notes, *([STOPPED] if stopped else []))
    return _certified(_votes(first), _votes(second), float(deviation), about, flags)


def _votes(parts: list[bytes]) -> Votes:
    from bench.votes.votes import concatenate, from_parquet

    several = [from_parquet(part) for part in parts]
    return several[0] if len(several) == 1 else concatenate(several)


def _certified(first: Votes, second: Votes, sigma: float, about: Certify, flags: tuple[str, ...]) -> Certified:
    from bench.votes import intervals
    from bench.votes.certify import ABSTAIN, certified_accuracy
    from bench.votes.certify import certify as bound
    from bench.votes.numbers import rows

    a, b = rows(first, second)
    found = bound(first.counts[a], second.counts[b], about.alpha, sigma)
    labels = first.labels[a].astype(np.int64)
    shares = certified_accuracy(found.prediction, found.radius, labels, list(about.radii))
    held = [intervals.share(round(float(share) * len(labels)), len(labels)) for share in shares]
    accuracy = {r: Number(*one[:3], len(labels), about.n) for r, one in zip(about.radii, held, strict=True)}
    abstained = float((found.prediction == ABSTAIN).mean())
    return Certified(sigma, accuracy, abstained, found.prediction, found.radius, first.index[a], flags)


def _deviation(sigma: Any) -> Fraction:
    fix = "give the deviation that the model was trained with, in units of pixels in [0, 1]"
    try:
        found = eps_of(sigma)
    except UserError:
        raise UserError("sigma", f"{sigma!r} is no deviation", fix) from None
    if not found:
        raise UserError("sigma", f"{sigma!r} is no noise", fix)
    return found


def _certify(n0: Any, draws: Any, alpha: Any, radii: Any) -> Certify:
    chosen, bound = whole("n0", n0, most=MOST), whole("draws", draws, most=MOST)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 0.5:
        raise UserError("alpha", f"{alpha!r} is no chance of being wrong", "give one between 0 and 0.5")
    try:
        far = tuple(float(radius) for radius in radii)
    except (TypeError, ValueError):
        raise UserError("radii", f"{radii!r} are no radii", "give several, such as (0, 0.25, 0.5)") from None
    if not all(0 <= radius < float("inf") for radius in far):
        raise UserError("radii", f"{radii!r} are not all distances", "give them from 0 on")
    least = int(np.floor(np.log(alpha) / np.log(0.5))) + 1
    if bound < least:
        what = f"{bound} draws cannot certify at alpha = {alpha}, even if all agree: at least {least}"
        raise UserError("draws", what, "take more draws, or a larger alpha")
    return Certify(n0=chosen, n=bound, alpha=float(alpha), radii=far)

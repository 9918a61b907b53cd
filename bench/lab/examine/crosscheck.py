"""Our attacks beside their peers': the same images, the same starts, and whether each image ends the same.

PGD of ours, torchattacks and foolbox is one algorithm, so from one start the outcomes should be
equal image by image on a deterministic model; the steps differ only in the order of float
operations. APGD-CE of pyautoattack and torchattacks begins from different random points, so there
the accuracies are compared, with their paired test. APGD-T and AutoAttack try other losses and
targets: they may leave less than PGD does, and by how much PGD overstates is what their rows say.
A stochastic model is judged on fresh draws, the same ones for every attack, and each attack has
draws of its own.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.lab.attacks import pgd
from bench.lab.attacks.peers.fence import Drawn, fence
from bench.lab.attacks.view import View
from bench.lab.compute.passes import Compute
from bench.lab.craft import craft
from bench.lab.streams import Streams
from bench.models.adapters.randomised import seeded
from bench.models.classifier import Classifier
from bench.recipes import PGD, Peer, Strong
from bench.votes import intervals
from bench.votes.sharing import Values, estimate, of_expected

CLASSES = 4  # that the targeted loss of APGD-T looks at
STRONGER = ("APGD-T", "AutoAttack", "strong")


class Row(NamedTuple):
    """One attack beside the one it is checked against.

    robust: share of images right afterwards, with its 95 % interval; agreement: share of images
    that end as right or as wrong as in the reference (of a stochastic model: 1 - the mean absolute
    difference of the shares of draws that are right); identical: share of images whose pixels are
    equal to 1e-6; difference: robust less the reference's, with its interval and paired p; None in
    the reference's own row. alike: whether it is the reference's algorithm, and so should agree with it.
    """

    attack: str
    reference: str
    robust: intervals.Interval
    agreement: float | None
    identical: float | None
    difference: intervals.Difference | None
    alike: bool = True


def crosscheck(
    source: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    eps: Fraction = Fraction(8, 255),
    step: Fraction = Fraction(2, 255),
    steps: int = 10,
    apgd_steps: int = 100,
    draws: int = 16,
    autoattack: bool = False,
    streams: Streams,
    compute: Compute,
) -> list[Row]:
    """PGD of three libraries from the same starts, APGD-CE of two, APGD-T, `strong`, on images (n, c, h, w) in [0, 1].

    With `autoattack` the whole of it too: standard, or rand on a stochastic source; thousands of passes an image.
    foolbox's row is left out where foolbox is not installed, APGD-T's below four classes, which its loss
    compares. UserError as the attacks raise it.
    """
    ours = PGD(eps=eps, step=step, steps=steps)
    seed = streams.number("start") % 2**31
    start = _start(images, float(eps), seed)
    made = {"PGD (ours)": pgd.ascend(ours, source, images, labels, start, streams, compute=compute).images}
    made["PGD (torchattacks)"] = _torchattacks_pgd(ours, source, images, labels, streams, compute)
    from_foolbox = _foolbox_pgd(ours, source, images, labels, start, streams, compute=compute)
    if from_foolbox is not None:
        made["PGD (foolbox)"] = from_foolbox
    part = {"n_iter": apgd_steps, "n_restarts": 1, "eot_iter": 1}
    apgd = Peer(kind="autoattack", name="custom", eps=eps, arguments={"attacks": ["apgd-ce"], "apgd": part})
    made["APGD-CE (pyautoattack)"] = craft(apgd, source, images, labels, streams, compute).images
    apgd = Peer(kind="torchattacks", name="APGD", eps=eps, arguments={"steps": apgd_steps, "loss": "ce"})
    made["APGD-CE (torchattacks)"] = craft(apgd, source, images, labels, streams, compute).images
    if source.classes >= CLASSES:
        targeted = {"n_iter": apgd_steps, "n_restarts": 1, "n_target_classes": min(9, source.classes - 1)}
        given = {"attacks": ["apgd-t"], "apgd_targeted": targeted}
        apgd = Peer(kind="autoattack", name="custom", eps=eps, arguments=given)
        made["APGD-T (pyautoattack)"] = craft(apgd, source, images, labels, streams, compute).images
    made["strong (ours)"] = craft(Strong(eps=eps), source, images, labels, streams, compute).images
    if autoattack:
        version = "rand" if source.stochastic else "standard"
        whole = Peer(kind="autoattack", name=version, eps=eps)
        made[f"AutoAttack {version} (pyautoattack)"] = craft(whole, source, images, labels, streams, compute).images
    view = View(source, images.shape, streams, compute)
    right = {name: view.right(crafted, labels, draws) for name, crafted in made.items()}
    rows = []
    for name in made:
        reference = "APGD-CE (pyautoattack)" if name.startswith("APGD-CE") else "PGD (ours)"
        row = _row(name, reference, made, right, source.stochastic)
        rows.append(row._replace(alike=not name.startswith(STRONGER)))
    return rows


def words(rows: list[Row]) -> str:
    """The rows as a Markdown table and, for each, the verdict in words."""
    lines = [
        "| Attack | Robust accuracy, % | Same outcome as | Images, % | Same pixels, % | Difference, points | p |",
        "| --- | --: | --- | --: | --: | --: | --: |",
    ]
    said = []
    for row in rows:
        cells = [row.attack, f"{_percent(row.robust)}"]
        if row.difference is None or row.agreement is None or row.identical is None:
            cells += ["", "", "", "", ""]
        else:
            cells += [row.reference, f"{100 * row.agreement:.1f}", f"{100 * row.identical:.1f}"]
            cells += [_percent(row.difference), f"{row.difference.p:.2g}"]
            if not row.alike:
                less = row.difference.high < 0
                verdict = (
                    f"leaves {-100 * row.difference.value:.1f} points less than" if less
                    else "leaves no less, beyond its paired interval, than"
                )  # fmt: skip
                more = ": under PGD alone this model looks more robust than it is" if less else ""
                said.append(f"- {row.attack}: {verdict} {row.reference}{more}.")
                lines.append(f"| {' | '.join(cells)} |")
                continue
            same = row.agreement == 1.0
            inside = row.difference.low <= 0 <= row.difference.high
            verdict = (
                "every image ends as with" if same
                else "robust accuracy agrees, within its paired interval, with" if inside
                else "robust accuracy differs, beyond its paired interval, from"
            )  # fmt: skip
            said.append(f"- {row.attack}: {verdict} {row.reference}.")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *said]) + "\n"


def agreed(rows: list[Row]) -> bool:
    """Whether every peer agrees: each difference's interval holds 0, of attacks that are one algorithm."""
    tested = (row.difference for row in rows if row.alike and row.difference is not None)
    return all(difference.low <= 0 <= difference.high for difference in tested)


def _start(images: Tensor, eps: float, seed: int) -> Tensor:
    """Where torchattacks' PGD begins in a fence of this seed: it draws nothing else before."""
    with seeded(seed):
        return (images + torch.empty_like(images).uniform_(-eps, eps)).clamp(0, 1)


def _torchattacks_pgd(
    ours: PGD, source: Classifier, images: Tensor, labels: Tensor, streams: Streams, compute: Compute
) -> Tensor:
    arguments = {"alpha": float(ours.step), "steps": ours.steps, "random_start": True}
    attack = Peer(kind="torchattacks", name="PGD", eps=ours.eps, arguments=arguments)
    return craft(attack, source, images, labels, streams, compute).images


def _foolbox_pgd(
    ours: PGD, source: Classifier, images: Tensor, labels: Tensor, start: Tensor, streams: Streams, *, compute: Compute
) -> Tensor | None:
    """foolbox's PGD with its random start replaced by ours; None without foolbox."""
    try:
        from eagerpy.astensor import astensor
        from foolbox import attacks, criteria
        from foolbox.models.pytorch import PyTorchModel
    except ImportError:
        return None
    made: Any = attacks.LinfPGD(abs_stepsize=float(ours.step), steps=ours.steps, random_start=True)
    made.get_random_start = lambda x0, epsilon: astensor(start)
    with fence(streams.number("start") % 2**31):
        model = PyTorchModel(Drawn(source, streams, compute), bounds=(0, 1), device=images.device)
        _, crafted, _ = made(model, images.clone(), criteria.Misclassification(labels), epsilons=float(ours.eps))
    result: Tensor = crafted.detach()
    return result


def _row(
    name: str, reference: str, made: dict[str, Tensor], right: dict[str, NDArray[np.bool_]], stochastic: bool
) -> Row:
    ours, others = (drawn_together(right[of]) for of in (name, reference))
    mine, theirs = ours.each, others.each
    if stochastic:
        robust = intervals.of_share(estimate(mine, [(1.0, ours)]), len(mine) * ours.draws)
    else:
        robust = intervals.share(int(mine.sum()), len(mine))
    if name == reference:
        return Row(name, "", robust, None, None, None)
    if stochastic:
        difference = intervals.of_difference(estimate(mine - theirs, [(1.0, ours), (-1.0, others)]))
    else:
        difference = intervals.mcnemar(mine > 0, theirs > 0).difference
    agreement = float(1 - np.abs(mine - theirs).mean())
    same = (made[name] - made[reference]).abs().flatten(1).amax(1) <= 1e-6
    return Row(name, reference, robust, agreement, float(same.double().mean()), difference)


def drawn_together(right: NDArray[np.bool_]) -> Values:
    """Shares of draws that are right, from right (n, draws): each draw is one noise for all images."""
    draws = right.shape[1]
    moves = of_expected(right, draws) if draws > 1 else None
    return Values(right.mean(axis=1), draws, moves, np.zeros(len(right), np.int64))


def _percent(number: intervals.Interval | intervals.Difference) -> str:
    return f"{100 * number.value:.1f} ({100 * number.low:.1f} to {100 * number.high:.1f})"

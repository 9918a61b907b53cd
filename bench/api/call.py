"""`bench.evaluate`: a model and images in, a report out, by the same code as a suite's run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench import UserError
from bench.api import words
from bench.api.attacks import Norm, eps_of, listed, norm_of, reach, recipes_of
from bench.api.checked import auto, precision_of, seed_of
from bench.api.data import eps_rows
from bench.api.hand import Hand, lend
from bench.api.model import Asked
from bench.api.outcome import FROZEN, Asking, named, report_of
from bench.api.report import Report
from bench.api.run import Bench
from bench.recipes import PGD, Clean, Crafting, Data
from bench.suite.cells import Suite
from bench.suite.schema import Column, Entry, Header, Protocol, Row, Scale, Table

if TYPE_CHECKING:
    import torch

MOST = 65_535  # draws that a count holds
DRAWS = 32
"""Fresh draws an image that judge a randomised model, where nothing else is said."""


def evaluate(
    model: Any,
    data: Any = "cifar10",
    *,
    eps: Any = "8/255",
    norm: str = "Linf",
    attacks: Any = "standard",
    draws: int | Literal["auto"] = "auto",
    redraw: Callable[[torch.Generator], Any] | None = None,
    eot: int | Literal["auto"] = "auto",
    n: int | None = 1000,
    seed: int = 0,
    device: str = "auto",
    batch: int | Literal["auto"] = "auto",
    precision: Literal["float32", "bfloat16", "auto"] = "float32",
    classes: int | None = None,
    frozen: bool = True,
    build: str = "",
    out: Path | str | None = None,
    data_root: Path | str | None = None,
    progress: bool | None = None,
) -> Report:
    """Attack `model` on `data` and judge it on draws that no attack has seen; all numbers are shares in [0, 1].

    model: an nn.Module, a function from images to logits, a `bench.models.classifier.Classifier`, or a recipe of
    weights. It gets images (n, c, h, w) float32 in [0, 1] and returns logits (n, classes); normalisation is its own
    business. It is judged in eval mode and given back as it was.
    data: images and labels as a pair of arrays or tensors ((n, c, h, w) or (n, h, w, c), bytes or floats in [0, 1];
    labels (n,) integers from 0), a Dataset or DataLoader of such, a `bench.dataset`, or a name: "cifar10",
    "cifar10/train", "cifar100".
    eps: how far images may be moved, in units of `norm` ("Linf", "L2", "L1"), as a number or "8/255"; a list gives a
    security curve; a 1-D array or tensor gives the images, from the first on, one each.
    attacks: one or several of: "standard" (what is to be reported: "strong" and "pgd20"), "strong" (the attack that
    adapts, at most 300 gradients an image), "fgsm", "pgd20" (any number of steps,
    of eps / 4 each), "pgd100-dlr", "square", "autoattack", a library's class such as "torchattacks.APGD", a recipe of
    `bench.recipes`, or a function ``attack(model, images, labels, eps) -> images``. () judges clean images alone.
    draws: fresh draws an image that judge; "auto": 32 if the model's passes differ, else one. In Python, that passes
    differ is the declaration that the model is randomised; noise that no seed holds is refused.
    redraw: for noise that lies in the model's state, a function that draws it anew from a torch.Generator.
    eot: draws a gradient of the attacks named above; "auto": 20 for a randomised model.
    n: how many images, of a fixed shuffle by `seed`; None for all.
    device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1". batch: images at once ("auto" finds out).
    precision: of crafting and judging; "auto" is bfloat16 where that is faster and answers alike.
    classes: checked against the model's logits. frozen: whether a randomised model is also attacked at one held draw.
    build: "file.py:function" that makes the model, if `report.suite()` cannot find out by itself.
    out: a folder for records and report: the same call goes on after an interruption, and ``bench verify
    FOLDER/suite.toml --root FOLDER`` audits it. Without it nothing is left. data_root: where named data sets lie.
    progress: a bar; None: on a terminal.

    UserError, with what is wrong and how to mend it, for whatever does not fit. Ctrl-C: what is finished is kept, and
    reported if at least the clean images were judged.
    """
    kind, protocol = norm_of(norm), Protocol(seed=seed_of(seed), precision=precision_of(precision))
    judged, slopes, count = auto("draws", draws, MOST), auto("eot", eot), None
    if hasattr(eps, "shape") and getattr(eps, "ndim", 0) == 1:
        count = len(eps)
    with lend(
        model, data, count or n, seed=seed, ordered=count is not None, device=device, batch=batch, out=out,
        data_root=data_root, redraw=redraw, draws=judged, classes=classes, build=build,
    ) as hand:  # fmt: skip
        asking = _asking(attacks, eps, kind, hand, eot=slopes, draws=judged, frozen=frozen)
        suite = suite_of(hand.who, hand.data, asking, protocol)
        bench = hand.bench(suite)
        notes = (*hand.notes, *_made(bench, suite, progress))
        report = report_of(bench, hand, suite, asking, notes)
        if out is not None:
            report.save(out)
    return report


def _asking(attacks: Any, eps: Any, norm: Norm, hand: Hand, *, eot: Any, draws: Any, frozen: bool) -> Asking:
    """The attacks by the names that they have in the report, each with the images that it is for (None: all)."""
    stochastic = hand.who.model.stochastic
    made: dict[str, tuple[Crafting, tuple[int, ...] | None]] = {}
    each = eps_rows(eps, hand.data)
    several = [eps_of(one) for one in (eps if isinstance(eps, list | tuple) else [eps])] if each is None else [*each]
    if not several:
        raise UserError("eps", "an empty list", 'write 8/255, "8/255" or a list of such')
    given = listed(attacks)
    for one in several:
        for name, recipe in recipes_of(given, one, norm, stochastic, eot).items():
            own = reach(recipe)
            if each is not None and own != one:
                raise UserError("eps", f"{name} says its own eps, and each image has one", "leave the attack's own out")
            label = f"{name}@{words.eps_text(own, norm)}" if len(several) > 1 and own is not None else name
            made[label] = recipe, None if each is None else each[one]
    judged = 1 if not stochastic else DRAWS if draws == "auto" else draws
    return Asking(made, norm, judged, frozen and stochastic)


def suite_of(who: Asked, data: Data, asking: Asking, protocol: Protocol) -> Suite:
    """The suite of one table with a row: the model clean and under each attack; another where it is frozen."""
    name, datasets = who.name, {"test": data}
    attacks: dict[str, Any] = {"clean": Clean()}
    columns = [Column(attack="clean")]
    for label, (recipe, rows) in asking.attacks.items():
        where = "test"
        if rows is not None:
            where = f"images of {label.rpartition('@')[2].replace('/', ' of ')}" if "@" in label else "test"
            datasets[where] = data.model_copy(update={"indices": rows})
        attacks[named(label)] = recipe
        columns.append(Column(attack=named(label), label=label, data=None if where == "test" else where))
    models = {name: Entry(weights=who.model.weights, sigma=who.model.sigma, unit=who.model.unit, draws=asking.draws)}
    tables = {"report": Table(rows=(Row(target=name),), columns=tuple(columns))}
    if asking.frozen and (still := frozen_of(asking)):
        attacks |= still
        tables["frozen"] = Table(rows=(Row(target=name),), columns=tuple(Column(attack=label) for label in still))
    return Suite(
        name="report", path=Path("report.toml"), scale="", scales={"": Scale()}, header=Header(), protocol=protocol,
        attacks=attacks, datasets=datasets, weights={}, models=models, tables=tables, figures={}, claims=(),
        limit=None, text="",
    )  # fmt: skip


def frozen_of(asking: Asking) -> dict[str, PGD]:
    """The same PGDs on one held draw, by their names in the suite."""
    return {
        f"{named(label)}{FROZEN}": one.model_copy(update={"draw": "frozen"})
        for label, (one, rows) in asking.attacks.items()
        if isinstance(one, PGD) and rows is None and one.draw == "moving"
    }


def _made(bench: Bench, suite: Suite, progress: bool | None) -> tuple[str, ...]:
    """Make every cell; what was finished when somebody interrupted it stays. Returns what must be said of that."""
    wanted = list(dict.fromkeys(cell.outcomes for cell in suite.cells()))
    try:
        bench.make(wanted, progress)
    except KeyboardInterrupt:
        if bench.session.votes(wanted[0]) is None:
            raise
        return ("interrupted: only what was finished by then is reported",)
    return ()

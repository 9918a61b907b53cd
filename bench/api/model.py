"""A model as a program has it: a module, a Classifier, a function, or a recipe; as a recipe and what answers for it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from bench import UserError
from bench.api.asking import WHERE, logits_of, noisy, randomised
from bench.api.built import built
from bench.recipes import Distilled, Fetched, Model, Trained

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from bench.models.classifier import Classifier

KINDS = "a torch.nn.Module, a bench.models.classifier.Classifier, a function from images to logits, or a recipe"
ASK = 8  # images that a model is asked on


class Asked(NamedTuple):
    """A model's recipe, the classifier itself where only this program has it, and what was found out on the way.

    `code` are the user's files that make it, by where they are to lie; `missing` why another program could not.
    """

    model: Model
    classifier: Classifier | None
    name: str
    net: nn.Module | None = None
    code: Mapping[str, Path] = {}
    missing: str = ""
    notes: tuple[str, ...] = ()


def asked(
    model: Any,
    images: Tensor,
    *,
    draws: int | Literal["auto"] = "auto",
    redraw: Callable[[torch.Generator], Any] | None = None,
    classes: int | None = None,
    build: str = "",
) -> Asked:
    """The model, asked on `images` (n, c, h, w) float32 in [0, 1] on its device: how many classes, do passes differ?

    That its passes differ is, in Python, the declaration that it is randomised. UserError where it does not answer
    with logits (n, classes), or where its noise cannot be held by a seed.
    """
    from torch import nn

    from bench.lab.foreign.theirs import Foreign
    from bench.models.adapters.held import Redrawn
    from bench.models.adapters.python import Function
    from bench.models.classifier import Classifier, Plain

    if isinstance(model, Model):
        return Asked(model, None, _plain_name(getattr(model.weights, "name", "") or type(model.weights).__name__))
    if isinstance(model, Trained | Distilled | Fetched):
        return Asked(Model(weights=model), None, _plain_name(getattr(model, "name", "") or type(model).__name__))
    if inspect.isclass(model):
        raise UserError(WHERE, f"{model.__name__} is a class", f"make a network of it: {model.__name__}(...)")
    if not isinstance(model, nn.Module):
        if hasattr(model, "items") or not callable(model):
            what = "a state dict" if hasattr(model, "items") else f"a {type(model).__name__}"
            raise UserError(WHERE, f"{what} is no model", f"give {KINDS}")
        net: nn.Module = Function(model)
    else:
        net = model
    name = _plain_name(getattr(model, "__name__", "") or type(model).__name__)
    notes: tuple[str, ...] = ()
    if isinstance(net, Classifier):
        classifier = _guarded(net, images)
    else:
        first = logits_of(net, images, 0)
        found = first.shape[1]
        if redraw is not None:
            classifier = Redrawn(Foreign(net, WHERE, found), redraw, found)
            notes = _redrawn(classifier, images)
        elif noisy(net, images, first, draws not in ("auto", 1)):
            classifier = randomised(net, found, images)
            notes = ("passes differ: judged as a randomised model, its noise fenced",)
        else:
            classifier = Plain(Foreign(net, WHERE, found), found)
    if classes is not None and classes != classifier.classes:
        what = f"the model gives {classifier.classes} logits, not {classes}"
        raise UserError("classes", what, f"classes = {classifier.classes}")
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    return _known(classifier, net, name, shape, redraw, build=build, notes=notes, draws=draws)


def _guarded(model: Classifier, images: Tensor) -> Classifier:
    """A user's own Classifier with what it raises in words; the harness's as they are."""
    from bench.lab.foreign.theirs import Guarded
    from bench.lab.weights.memory import own

    try:
        mine, classes, _ = own(inspect.getsourcefile(type(model))), int(model.classes), bool(model.stochastic)
    except (AttributeError, TypeError, OSError) as error:
        fix = "a Classifier says how many classes it has, and whether it is stochastic"
        raise UserError(WHERE, f"{type(model).__name__}: {error}", fix) from None
    return Guarded(model, WHERE, classes) if mine else model


def _redrawn(model: Classifier, images: Tensor) -> tuple[str, ...]:
    """Ask for two draws of noise in the model's state: Refused where that fails; what is to be said of them."""
    import torch

    from bench.api.asking import apart
    from bench.lab.foreign.theirs import theirs

    said = []
    for seed in (0, 1):
        dice = torch.Generator(device=images.device).manual_seed(seed)
        with torch.no_grad(), theirs(WHERE, "its noise was drawn (redraw)"):
            said.append(model.realise(images.shape, dice)(images))
    if apart(*said) > 0:
        return ()
    return ("redraw changes no answer: two draws of its noise are alike",)


def _known(
    classifier: Classifier,
    net: nn.Module,
    name: str,
    shape: tuple[int, int, int],
    redraw: Any,
    *,
    build: str,
    notes: tuple[str, ...],
    draws: int | str,
) -> Asked:
    from bench.lab.weights.memory import known_by
    from bench.models.adapters.held import Redrawn

    known = Redrawn(net, redraw, classifier.classes) if isinstance(classifier, Redrawn) else net
    method = getattr(redraw, "__name__", "") if getattr(redraw, "__self__", None) is net else ""
    sha256, still = known_by(known, shape, WHERE)
    files, builds, missing = built(net, build, still)
    if redraw is not None and not method:
        missing = missing or "redraw is no method of the model, so that no suite can name it"
    if not classifier.stochastic and draws not in ("auto", 1):
        notes = (*notes, f"passes do not differ: one draw is judged, not {draws}")
    recipe = Fetched(
        kind="memory", name=name, classes=classifier.classes, stochastic=classifier.stochastic,
        sha256=sha256, shape=shape, build=builds, redraw=method,
    )  # fmt: skip
    return Asked(Model(weights=recipe), classifier, name, net, files, missing, notes)


def _plain_name(name: str) -> str:
    found = re.sub(r"[^\w.\-]+", "-", name.rpartition("/")[2].rpartition(":")[2] or name).strip("-.")[:60]
    return found or "model"

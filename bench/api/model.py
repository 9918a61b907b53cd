"""A model as a program has it: a module, a Classifier, a function, or a recipe; as a recipe and what answers for it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from bench import UserError
from bench.recipes import Distilled, Fetched, Model, Trained

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from bench.models.classifier import Classifier

KINDS = "a torch.nn.Module, a bench.models.classifier.Classifier, a function from images to logits, or a recipe"
WHERE = "your model"
ASK = 8  # images that a model is asked on
ALIKE = 1e-5
"""Distance of unit-length logits up to which two passes count as the same: kernels may sum in another order."""


class Asked(NamedTuple):
    """A model's recipe, the classifier itself where only this program has it, and what was found out on the way.

    `code` says where its source is (``file.py:name``), or is empty; `missing` why another program could not build it.
    """

    model: Model
    classifier: Classifier | None
    name: str
    net: nn.Module | None = None
    code: Path | None = None
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
        raise UserError("model", f"{model.__name__} is a class", f"make a network of it: {model.__name__}(...)")
    if not isinstance(model, nn.Module):
        if hasattr(model, "items") or not callable(model):
            what = "a state dict" if hasattr(model, "items") else f"a {type(model).__name__}"
            raise UserError("model", f"{what} is no model", f"give {KINDS}")
        net: nn.Module = Function(model)
    else:
        net = model
    name = _plain_name(getattr(model, "__name__", "") or type(model).__name__)
    notes: tuple[str, ...] = ()
    if isinstance(net, Classifier):
        classifier: Classifier = net
    else:
        first = logits_of(net, images, 0)
        found = first.shape[1]
        if classes is not None and classes != found:
            raise UserError("classes", f"the model gives {found} logits, not {classes}", f"classes = {found}")
        if redraw is not None:
            classifier = Redrawn(Foreign(net, WHERE, found), redraw, found)
        else:
            noisy = _differs(net, images, first)
            classifier, notes = _noisy(net, found, images) if noisy else (Plain(Foreign(net, WHERE, found), found), ())
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    return _known(classifier, net, name, shape, redraw, build=build, notes=notes, draws=draws)


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
    from bench.lab.weights.memory import identity
    from bench.models.adapters.held import Redrawn

    known = Redrawn(net, redraw, classifier.classes) if isinstance(classifier, Redrawn) else net
    method = getattr(redraw, "__name__", "") if getattr(redraw, "__self__", None) is net else ""
    code, builds, missing = _built(net, build)
    if redraw is not None and not method:
        missing = missing or "redraw is no method of the model, so that no suite can name it"
    if not classifier.stochastic and draws not in ("auto", 1):
        notes = (*notes, f"passes do not differ: one draw is judged, not {draws}")
    recipe = Fetched(
        kind="memory", name=name, classes=classifier.classes, stochastic=classifier.stochastic,
        sha256=identity(known, shape), shape=shape, build=builds, redraw=method,
    )  # fmt: skip
    return Asked(Model(weights=recipe), classifier, name, net, code, missing, notes)


def logits_of(net: nn.Module, images: Tensor, seed: int) -> Tensor:
    """Logits (n, classes) of one pass, its noise fenced; UserError for anything that is none."""
    import torch

    from bench.lab.foreign.theirs import precision_of, theirs
    from bench.lab.streams import fenced

    fix = f"images are {tuple(images.shape)} in [0, 1] on {images.device}; normalisation is the model's business"
    doing = f"{len(images)} images went through it"
    with fenced(seed), torch.no_grad(), theirs("your model: python", doing, fix=fix):
        out = net(images.to(precision_of(net), copy=True))
    if not isinstance(out, torch.Tensor):
        fix = "wrap it: lambda x: model(x)[0]"
        raise UserError("model", f"forward returned a {type(out).__name__}, not logits", fix)
    if out.dim() != 2 or len(out) != len(images):
        what = f"forward returned {tuple(out.shape)} for {len(images)} images"
        raise UserError("model", what, "logits are (n, classes)")
    if out.shape[1] < 2:
        raise UserError("model", "it gives one logit", "give two: torch.cat([-z, z], 1), say")
    if not out.isfinite().all():
        raise UserError("model", "its logits are not finite on clean images", "look at its weights and normalisation")
    return out.detach().float()


def _differs(net: nn.Module, images: Tensor, first: Tensor) -> bool:
    return any(_apart(first, logits_of(net, images, seed)) > ALIKE for seed in (1, 2, 3))


def _noisy(net: nn.Module, classes: int, images: Tensor) -> tuple[Classifier, tuple[str, ...]]:
    from bench.lab.foreign.theirs import Foreign
    from bench.models.adapters.randomised import GlobalRandom

    if _apart(logits_of(net, images, 0), logits_of(net, images, 0)) > ALIKE:
        what = "its passes differ even under one seed: its noise comes from no generator that can be held"
        fix = (
            "draw it in forward from torch's, NumPy's or random's generator; or keep it in the model's state and give "
            "redraw=, a function of a generator that draws it anew"
        )
        raise UserError("model", what, fix)
    return GlobalRandom(Foreign(net, WHERE, classes), classes), (
        "passes differ: judged as a randomised model, its noise fenced",
    )


def _apart(one: Tensor, other: Tensor) -> float:
    a, b = (t.double() / t.double().norm(dim=1, keepdim=True).clamp_min(1e-12) for t in (one, other))
    return float((a - b).norm(dim=1).max())


def _built(net: nn.Module, build: str) -> tuple[Path | None, str, str]:
    """The file that another program can build the network from, how a suite names that, or what is missing."""
    from bench.lab.weights.memory import function_of, own

    if build:
        file = Path(build.rpartition(":")[0])
        if not file.is_file():
            raise UserError("build", f"there is no file {file}", "write build = 'file.py:function'")
        return file.resolve(), f"{file.name}:{build.rpartition(':')[2]}", ""
    one: Any = function_of(net) or type(net)
    name, said = getattr(one, "__qualname__", type(one).__name__), "give build = 'file.py:function' that makes it"
    try:
        file_ = inspect.getsourcefile(one)
    except TypeError:
        file_ = None
    if file_ is None or not Path(file_).is_file() or "<" in name:
        return None, "", f"the source of {name} is in no file that a suite can name: {said}"
    if not own(file_):
        return None, "", f"{name} is a class of {Path(file_).parent.name}, whose arguments no suite knows: {said}"
    if inspect.isclass(one):
        try:
            inspect.signature(one).bind()
        except (TypeError, ValueError):
            return None, "", f"{name} takes arguments that no suite knows: {said}"
    return Path(file_).resolve(), f"{Path(file_).name}:{name}", ""


def _plain_name(name: str) -> str:
    found = re.sub(r"[^\w.\-]+", "-", name.rpartition("/")[2].rpartition(":")[2] or name).strip("-.")[:60]
    return found or "model"

"""Other libraries' attacks, by declaration: run behind a fence, on our draws, device and precision.

A library sees the source as an `nn.Module` from images to logits whose every call is a fresh
draw from our own generators, so that a library which seeds the global generator anew cannot
replay a defence's noise. Whatever the library draws, prints, warns or switches stays inside.

The protocol of ``kind = "python"``: `name` is ``package.module:Class``, and
``Class(**arguments)(logits, images, labels, eps) -> images``, where `logits` is such a module,
`images` (n, 3, h, w) float32 in [0, 1] and `labels` (n,) int64 are copies, and `eps` a float.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple, assert_never

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bench.errors import UserError
from bench.lab.attacks import Crafted
from bench.lab.attacks.views import View
from bench.lab.compute import Compute, out_of_memory
from bench.lab.draws import Streams, fenced
from bench.recipes import Peer
from models.classifier import Classifier, Realisation


class Answer(NamedTuple):
    """What a library hands back: images; which it believes fooled (n,) bool, where it says so; whether it
    was told eps (an attack that was not, such as CW or DeepFool, looks for the nearest example instead)."""

    images: Tensor
    fooled: Tensor | None = None
    bounded: bool = True


def craft(
    attack: Peer, source: Classifier, images: Tensor, labels: Tensor, streams: Streams, compute: Compute
) -> Crafted:
    """What a library's attack makes of images (n, 3, h, w) float32 in [0, 1] with labels (n,) int64.

    claimed is the library's own belief where it has one (AutoAttack: any draw that was wrong), else
    that of one draw. AutoAttack returns the original where it fooled nothing. An image that an
    attack without eps moved further than eps counts as not found: it is returned as it was.
    UserError, naming attack and library, where the library is missing, its attack or an argument
    unknown, where it fails, returns another shape or NaN, or changes what it was lent.
    """
    where = name_of(attack)
    while True:
        try:
            answer, notes = _fenced_run(attack, source, images, labels, streams, compute)
            break
        except RuntimeError as error:
            if not out_of_memory(error) or compute.microbatch == 1:
                raise
            compute.microbatch = max(1, min(compute.microbatch, len(images)) // 2)
            if compute.device.type == "cuda":
                torch.cuda.empty_cache()
        compute.note(f"out of memory: {where} starts again with {compute.microbatch} images at a time")
    for note in notes:
        compute.note(f"{where}: {note}")
    made = _checked(where, answer.images, images)
    lost = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    if not answer.bounded:
        lost = distance(attack.norm, made - images) > float(attack.eps)
        made = torch.where(lost.view(-1, 1, 1, 1), images, made)
        if lost.any():
            compute.note(
                f"{where}: {int(lost.sum())} of {len(images)} images needed more than {attack.norm} eps = {attack.eps} "
                "and count as not found"
            )
    if answer.fooled is not None:
        claimed = answer.fooled.to(images.device, torch.int8)
    else:
        claimed = View(source, images.shape, streams, compute).claims(made, labels)
    return Crafted(made, torch.where(lost, torch.zeros_like(claimed), claimed))


def effective(attack: Peer, classes: int = 10) -> dict[str, Any]:
    """The configuration that really runs, the library's defaults and our corrections included, as plain values.

    For provenance and prints: two libraries' attacks of one name may differ in their defaults.
    UserError as `craft` raises it.
    """
    match attack.kind:
        case "torchattacks":
            from bench.lab.attacks import torchattacks

            return torchattacks.effective(attack, classes)
        case "autoattack":
            from bench.lab.attacks import autoattack

            return autoattack.effective(attack, classes)
        case "foolbox":
            from bench.lab.attacks import foolbox

            return foolbox.effective(attack)
        case "python":
            return {"attack": attack.name, "eps": float(attack.eps), "norm": attack.norm, **arguments_of(attack)}
        case _:
            assert_never(attack.kind)


def arguments_of(attack: Peer) -> dict[str, Any]:
    """The declared arguments, fractions such as "2/255" as numbers: a copy, which a library may change."""

    def value(item: Any) -> Any:
        match item:
            case dict():
                return {name: value(entry) for name, entry in item.items()}
            case str() if re.fullmatch(r"\d+(\.\d+)?/\d*[1-9]\d*", item):
                top, _, bottom = item.partition("/")
                return float(top) / int(bottom)
            case _:
                return item

    return {name: value(item) for name, item in attack.arguments.items()}


def name_of(attack: Peer) -> str:
    """What messages call it: ``attack torchattacks.PGD``."""
    return f"attack {attack.kind}.{attack.name}"


def distance(norm: str, difference: Tensor) -> Tensor:
    """Length (n,) float64 of each image's difference (n, 3, h, w) in "Linf", "L2" or "L1"."""
    flat = difference.double().flatten(1)
    length: Tensor = torch.linalg.vector_norm(flat, {"Linf": torch.inf, "L2": 2, "L1": 1}[norm], dim=1)
    return length


class Drawn(nn.Module):
    """A source as a library sees it: (n, 3, h, w) to logits (n, classes) float32, each call a fresh draw.

    The source is no submodule, so that `eval()`, `train()`, `to()` and `parameters()` do not reach
    it; an empty parameter says on which device it is. Batches larger than the microbatch are
    computed in parts, and anew in the backward pass, so that memory does not bound them.
    """

    def __init__(self, source: Classifier, streams: Streams, compute: Compute) -> None:
        super().__init__()
        self._hidden = (source,)
        self.classes, self.streams, self.compute, self.calls = source.classes, streams, compute, 0
        self.place = nn.Parameter(torch.empty(0, device=streams.device), requires_grad=False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        realisation = self._draw(images.shape)
        size, n = self.compute.microbatch, len(images)
        if n <= size:
            logits = self._part(realisation, images, None)
        else:
            slices = [slice(start, min(start + size, n)) for start in range(0, n, size)]
            rows = torch.arange(n, device=images.device)
            if torch.is_grad_enabled() and images.requires_grad:
                parts = [
                    checkpoint(
                        self._part, realisation, images[s], rows[s], use_reentrant=False, preserve_rng_state=False
                    )
                    for s in slices
                ]
            else:
                parts = [self._part(realisation, images[s], rows[s]) for s in slices]
            logits = torch.cat(parts)
        if logits.requires_grad:
            logits.register_hook(self._count)  # type: ignore[no-untyped-call]
        return logits

    def _draw(self, shape: torch.Size) -> Realisation:
        (source,) = self._hidden
        generator = self.streams.generator("grad", self.calls) if source.stochastic else None
        self.calls += 1
        with torch.no_grad():
            return source.realise(shape, generator)

    def _part(self, realisation: Realisation, images: Tensor, rows: Tensor | None) -> Tensor:
        self.compute.forwards += len(images)
        with self.compute.autocast():
            return realisation(images.float(), rows).float()

    def _count(self, gradient: Tensor) -> None:
        self.compute.backwards += len(gradient)


def _fenced_run(
    attack: Peer, source: Classifier, images: Tensor, labels: Tensor, streams: Streams, compute: Compute
) -> tuple[Answer, list[str]]:
    where, model = name_of(attack), Drawn(source, streams, compute)
    state = _state(source)
    lent = images.clone(), labels.clone()
    seed = streams.number("start") % 2**31
    try:
        with fence(seed) as notes:
            answer = _run(attack, model, *lent, seed)
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        what = f"it failed: {type(error).__name__}: {error}"
        raise UserError(where, what, "check its arguments, its norm, and whether it fits the model") from error
    if _state(source) != state or model.training:
        raise UserError(where, "it changed the model's mode or parameters", "its result cannot be trusted")
    if not torch.equal(lent[0].detach(), images) or not torch.equal(lent[1], labels):
        raise UserError(where, "it wrote into the images or labels it was given", "its result cannot be trusted")
    return answer, notes


def _run(attack: Peer, model: Drawn, images: Tensor, labels: Tensor, seed: int) -> Answer:
    match attack.kind:
        case "torchattacks":
            from bench.lab.attacks import torchattacks

            return torchattacks.run(attack, model, images, labels, seed)
        case "autoattack":
            from bench.lab.attacks import autoattack

            return autoattack.run(attack, model, images, labels, seed)
        case "foolbox":
            from bench.lab.attacks import foolbox

            return foolbox.run(attack, model, images, labels)
        case "python":
            return Answer(_named(attack)(**arguments_of(attack))(model, images, labels, float(attack.eps)))
        case _:
            assert_never(attack.kind)


def _named(attack: Peer) -> Any:
    """The class that ``package.module:Class`` names."""
    where = name_of(attack)
    module, _, attribute = attack.name.partition(":")
    if not module or not attribute:
        raise UserError(where, f"{attack.name!r} names no class", "write package.module:Class")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise UserError(where, f"module {module} cannot be imported: {error}", "install it, or correct name") from None
    except AttributeError:
        raise UserError(where, f"module {module} has no {attribute}", "correct name") from None


def _state(source: Classifier) -> list[tuple[str, bool | int]]:
    """Modes of modules, and of parameters the version, which counts every write in place, and requires_grad."""
    modes: list[tuple[str, bool | int]] = [(name, module.training) for name, module in source.named_modules()]
    tensors = list(source.named_parameters())
    return modes + [(name, tensor._version) for name, tensor in tensors] + [(n, t.requires_grad) for n, t in tensors]


def _checked(where: str, made: Any, images: Tensor) -> Tensor:
    if not isinstance(made, Tensor) or made.shape != images.shape:
        what = f"shape {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
        raise UserError(
            where, f"it returned {what} for images of shape {tuple(images.shape)}", "it breaks the protocol"
        )
    result: Tensor = made.detach().to(images.device, torch.float32)
    bad = ~result.isfinite().flatten(1).all(1)
    if bad.any():
        what = f"it returned NaN or infinity in {int(bad.sum())} of {len(bad)} images"
        raise UserError(where, what, "check its arguments, and the model's gradients")
    return result


@contextlib.contextmanager
def fence(seed: int) -> Iterator[list[str]]:
    """Run a library on its own global state; yields a list which its warnings, each once, are in afterwards.

    Its randomness is seeded and ours given back; what it prints is dropped; gradients are on; the
    interpreter's trace function, which AutoAttack removes, is put back.
    """
    notes: list[str] = []
    logger, trace = logging.getLogger("auto-attack"), sys.gettrace()
    handler, propagate = _Collect(notes), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with (
            fenced(seed),
            torch.enable_grad(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("always")
            yield notes
        notes += [str(warning.message) for warning in caught]
        notes[:] = list(dict.fromkeys(notes))
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        sys.settrace(trace)


class _Collect(logging.Handler):
    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        self.notes.append(record.getMessage())

"""Other libraries' attacks, by declaration: run behind a fence, on our draws, device and precision.

A library sees the source as an `nn.Module` from images to logits whose every call is a fresh
draw from our own generators, so that a library which seeds the global generator anew cannot
replay a defence's noise. Whatever the library draws, prints, warns or switches stays inside.

The protocol of ``kind = "python"``: `name` is ``path/to/file.py:Name`` (relative to the suite) or
``package.module:Name``; a class is used as ``Name(**arguments)(logits, images, labels, eps) -> images``, a
function as ``name(logits, images, labels, eps, **arguments) -> images``, where `logits` is such a module,
`images` (n, 3, h, w) float32 in [0, 1] and `labels` (n,) int64 are copies, and `eps` a float.
"""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from typing import Any, assert_never

import torch
from torch import Tensor

from bench import Refused, UserError
from bench.lab.attacks import Crafted
from bench.lab.attacks.peers.fence import Answer, Drawn, arguments_of, fence, name_of
from bench.lab.attacks.view import Found, View, attacked
from bench.lab.compute.memory import out_of_memory
from bench.lab.compute.passes import Compute, Disconnected
from bench.lab.foreign import own
from bench.lab.foreign.theirs import failed, theirs
from bench.lab.streams import Streams
from bench.models.adapters.python import folders
from bench.models.classifier import Classifier
from bench.recipes import Peer

SELECTION = 16  # draws that choose between the candidates of an attack that has several


def craft(
    attack: Peer, source: Classifier, images: Tensor, labels: Tensor, streams: Streams, compute: Compute
) -> Crafted:
    """What a library's attack makes of images (n, 3, h, w) float32 in [0, 1] with labels (n,) int64.

    claimed is the library's own belief where it has one (AutoAttack: any draw that was wrong), else
    that of one draw. AutoAttack returns the original where it fooled nothing, but of a stochastic source its
    iterate of highest loss (unless that source's draw is frozen). An image that an attack without eps moved
    further than eps counts as not found: it is returned as it was.
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
        compute.lower(len(images), where + " starts again with {} images at a time")
    for note in notes:
        compute.note(f"{where}: {note}")
    view = View(source, images.shape, streams, compute, attack.draw)
    made = _checked(where, answer.images, images)
    if answer.others and attack.draw == "moving":  # as published, a frozen attack keeps what it did not fool
        found = Found(images)
        for number, candidate in enumerate((made, *(_checked(where, other, images) for other in answer.others))):
            margin, errors = view.standing(candidate, labels, None, SELECTION, 2)
            found.offer(candidate, margin, errors, number, None)
        made = found.images
    lost = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    if not answer.bounded:
        lost = distance(attack.norm, made - images) > float(attack.eps)
        made = torch.where(lost.view(-1, 1, 1, 1), images, made)
        if lost.any():
            compute.note(
                f"{where}: {int(lost.sum())} of {len(images)} images needed more than {attack.norm} eps = {attack.eps} "
                "and count as not found"
            )
    fooled = answer.fooled
    claimed = view.claims(made, labels) if fooled is None else fooled.to(images.device, torch.int8)
    return Crafted(made, torch.where(lost, torch.zeros_like(claimed), claimed))


def effective(attack: Peer, classes: int = 10) -> dict[str, Any]:
    """The configuration that really runs, the library's defaults and our corrections included, as plain values.

    For provenance and prints: two libraries' attacks of one name may differ in their defaults.
    UserError as `craft` raises it.
    """
    match attack.kind:
        case "torchattacks":
            from bench.lab.attacks.peers import torchattacks

            return torchattacks.effective(attack, classes)
        case "autoattack":
            from bench.lab.attacks.peers import autoattack

            return autoattack.effective(attack, classes)
        case "foolbox":
            from bench.lab.attacks.peers import foolbox

            return foolbox.effective(attack)
        case "python":
            return {"attack": attack.name, "eps": float(attack.eps), "norm": attack.norm, **arguments_of(attack)}
        case _:
            assert_never(attack.kind)


def distance(norm: str, difference: Tensor) -> Tensor:
    """Length (n,) float64 of each image's difference (n, 3, h, w) in "Linf", "L2" or "L1"."""
    flat = difference.double().flatten(1)
    length: Tensor = torch.linalg.vector_norm(flat, {"Linf": torch.inf, "L2": 2, "L1": 1}[norm], dim=1)
    return length


def _fenced_run(
    attack: Peer, source: Classifier, images: Tensor, labels: Tensor, streams: Streams, compute: Compute
) -> tuple[Answer, list[str]]:
    lent_source = attacked(source, attack.draw)
    where, model = name_of(attack), Drawn(lent_source, streams, compute, frozen=attack.draw == "frozen")
    state = _state(source)
    lent = images.clone(), labels.clone()
    seed = streams.number("start") % 2**31
    try:
        with fence(seed) as notes:
            answer = _run(attack, model, *lent, seed)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        if "does not require grad" in str(error) or "not have been used in the graph" in str(error):
            raise Disconnected(where) from error
        if attack.kind == "python":
            fix = "mend it, or its arguments"
            raise Refused(where, f"your code {failed(error, 'it attacked')}", fix) from error
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
            from bench.lab.attacks.peers import torchattacks

            return torchattacks.run(attack, model, images, labels, seed)
        case "autoattack":
            from bench.lab.attacks.peers import autoattack

            return autoattack.run(attack, model, images, labels, seed)
        case "foolbox":
            from bench.lab.attacks.peers import foolbox

            return foolbox.run(attack, model, images, labels)
        case "python":
            return Answer(_own(attack, model, images, labels))
        case _:
            assert_never(attack.kind)


def _own(attack: Peer, model: Drawn, images: Tensor, labels: Tensor) -> Any:
    """What a user's own attack returns: a class is made with its arguments and called, a function called with them."""
    where, arguments = name_of(attack), arguments_of(attack)
    found: Any = own.attack(attack, where)
    places = folders(attack.name, Path(attack.place or Path()))
    with own.declared(attack, where), theirs(where, "it attacked", places):
        made: Any = functools.partial(found, **arguments) if not inspect.isclass(found) else found(**arguments)
        return made(model, images, labels, float(attack.eps))


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

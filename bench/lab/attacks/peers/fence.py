"""What stands between another library and everything of ours: a model it can only call, a state of its own."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bench.lab.compute.passes import Compute
from bench.lab.streams import Streams
from bench.models.adapters.randomised import seeded
from bench.models.classifier import Classifier, Realisation
from bench.recipes import Peer


class Answer(NamedTuple):
    """What a library hands back: images; which it believes fooled (n,) bool, where it says so; whether it
    was told eps (an attack that was not, such as CW or DeepFool, looks for the nearest example instead);
    other candidates, each (n, 3, h, w) too, among which selection draws are to choose."""

    images: Tensor
    fooled: Tensor | None = None
    bounded: bool = True
    others: tuple[Tensor, ...] = ()


class Drawn(nn.Module):
    """A source as a library sees it: (n, 3, h, w) to logits (n, classes) float32; a draw a call, fresh unless `frozen`.

    The source is no submodule, so that `eval()`, `train()`, `to()` and `parameters()` do not reach
    it; an empty parameter says on which device it is. Batches larger than the microbatch are
    computed in parts, and anew in the backward pass, so that memory does not bound them.
    """

    def __init__(self, source: Classifier, streams: Streams, compute: Compute, frozen: bool = False) -> None:
        super().__init__()
        self.frozen = frozen
        self._hidden = (source,)
        self.classes, self.streams, self.compute, self.calls = source.classes, streams, compute, 0
        self.stochastic = source.stochastic
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
        generator = self.streams.generator("grad", 0 if self.frozen else self.calls) if source.stochastic else None
        self.calls += 1
        with torch.no_grad():
            return source.realise(shape, generator)

    def _part(self, realisation: Realisation, images: Tensor, rows: Tensor | None) -> Tensor:
        self.compute.forwards += len(images)
        with self.compute.autocast():
            return realisation(images.float(), rows).float()

    def _count(self, gradient: Tensor) -> None:
        self.compute.backwards += len(gradient)


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
            seeded(seed),
            torch.enable_grad(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("always")
            for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)  # for the library's authors, not for its users
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

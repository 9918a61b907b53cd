"""A user's code at work: their network behind the one interface, and whatever it raises in words, theirs shown."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import Paused, Refused, UserError
from bench.lab.compute.memory import out_of_memory
from bench.models.adapters.python import Function, on_path
from bench.models.classifier import Atom, Classifier, Realisation

HARNESS = str(Path(__file__).parents[2])
FRAMES = 12  # of a user's traceback that are shown, the last ones
NO_GPU = ("not compiled with CUDA", "No CUDA GPUs", "no NVIDIA driver", "torch.cuda.is_available() is False")


MAKER = "it was called with images, as a function from images to logits: if it makes the network, give its arguments"


@contextlib.contextmanager
def theirs(where: str, doing: str, places: Sequence[str] = (), fix: str = "") -> Iterator[None]:
    """Run a user's code with its folders on the path; Refused, their traceback with it, whatever it raises.

    Too little memory is not theirs to mend: that passes, and so does an interrupt.
    """
    try:
        with on_path(places), contextlib.redirect_stdout(sys.stderr):  # what they print is no output of ours
            yield
    except (UserError, Paused):
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        whose = "your code" if " python" in where or where.startswith("your ") else "its code"
        raise Refused(where, f"{whose} {failed(error, doing)}", _advice(error) or fix) from error


def blamed(error: BaseException) -> bool:
    """Whether an error was raised in a user's code, or in what it called."""
    return any(not _ours(frame.filename) for frame in traceback.extract_tb(error.__traceback__))


def failed(error: BaseException, doing: str) -> str:
    """What a user's code did while `doing` something, with the lines of its own traceback."""
    if isinstance(error, SystemExit):
        said = f"called sys.exit({'' if error.code is None else repr(error.code)}) while {doing}"
    else:
        words = " ".join(str(error).split())
        said = f"raised {type(error).__name__} while {doing}: {words[:500] or 'without a word'}"
    return said + "".join(f"\n    {line}" for line in _lines(error))


def _lines(error: BaseException) -> list[str]:
    """The user's own part of a traceback: from the first line of theirs on."""
    frames = traceback.extract_tb(error.__traceback__)
    begin = next((i for i, frame in enumerate(frames) if not _ours(frame.filename)), len(frames))
    shown = [frame for frame in frames[begin:] if not _ours(frame.filename) and not _between(frame)][-FRAMES:]
    lines = [line for entry in traceback.format_list(shown) for line in entry.rstrip().splitlines()]
    if isinstance(error, SyntaxError):
        lines += [line.rstrip() for entry in traceback.format_exception_only(error) for line in entry.splitlines()]
    return lines


def _ours(file: str) -> bool:
    return file.startswith(HARNESS) or file.startswith("<frozen") or Path(file).name == "contextlib.py"


def _between(frame: traceback.FrameSummary) -> bool:
    """Lines of torch that only lead from a network's call to its forward."""
    return frame.name in ("_call_impl", "_wrapped_call_impl") and frame.filename.endswith("module.py")


def _advice(error: BaseException) -> str:
    if any(words in str(error) for words in NO_GPU):
        return (
            "this machine has no GPU for it: build the network on the CPU (torch.load(..., map_location='cpu'), "
            "no .cuda()); the harness moves it to the device that --device names"
        )
    return ""


class Foreign(nn.Module):
    """A user's network as the harness runs it: images (n, c, h, w) float32 in [0, 1] to logits (n, classes) float32.

    It meets a copy of the images, in its own precision; of several outputs the declared one is taken. Refused
    where what it returns are no logits of so many classes. `wrote` says whether it has written into its input.
    """

    def __init__(
        self,
        net: nn.Module,
        where: str,
        classes: int,
        *,
        output: int | str | None = None,
        outputs: Sequence[int] = (),
        places: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.net, self.where, self.classes = net, where, classes
        self.output, self.outputs, self.places = output, list(outputs), list(places)
        self.dtype, self.wrote = precision_of(net), False
        self.hint = MAKER if isinstance(net, Function) else ""

    def forward(self, images: Tensor) -> Tensor:
        given = images.clone() if images.dtype == self.dtype else images.to(self.dtype)
        version = given._version
        with theirs(self.where, f"{amount(len(images))} went through it", self.places, self.hint):
            out = self.net(given)
        self.wrote |= given._version != version
        return checked(self.picked(out), len(images), self.where, self.classes, self.outputs).to(images.device)

    def picked(self, out: Any) -> Any:
        """The declared one of what the network returned."""
        if self.output is None:
            if isinstance(out, Tensor):
                return out
            raise Refused(self.where, f"forward returned {described(out)}, not logits", _which(out))
        try:
            if isinstance(self.output, str) and not isinstance(out, Mapping):
                return getattr(out, self.output)
            return out[self.output]
        except (AttributeError, LookupError, TypeError):
            what = f"output = {self.output!r} is not in what forward returned: {described(out)}"
            raise Refused(self.where, what, _which(out)) from None


class Guarded(Classifier):
    """A user's Classifier: what it is, its errors in words, its logits checked."""

    def __init__(self, inner: Classifier, where: str, classes: int, places: Sequence[str] = ()) -> None:
        super().__init__()
        self.inner, self.label, self.classes, self.places = inner, where, classes, list(places)
        self.stochastic, self.joins = inner.stochastic, inner.joins

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        with theirs(self.label, "noise was drawn (realise)", self.places):
            return self._checked(self.inner.realise(shape, generator))

    def realise_all(
        self,
        shape: torch.Size | tuple[int, ...],
        generators: Sequence[torch.Generator | None],
        rows: Tensor | None = None,
    ) -> Realisation:
        with theirs(self.label, "noise was drawn (realise_all)", self.places):
            return self._checked(self.inner.realise_all(shape, generators, rows))

    def mean(self) -> Classifier:
        return Guarded(self.inner.mean(), self.label, self.classes, self.places) if self.stochastic else self

    def atoms(self) -> tuple[Atom, ...]:
        return tuple(Atom(atom.chance, self._checked(atom.realisation)) for atom in self.inner.atoms())

    def _checked(self, inner: Realisation) -> Realisation:
        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            with theirs(self.label, f"{amount(len(images))} went through it", self.places):
                out = inner(images, rows)
            if not isinstance(out, Tensor):
                raise Refused(self.label, f"a realisation returned {described(out)}, not logits", _which(None))
            return checked(out, len(images), self.label, self.classes)

        return realisation


def checked(out: Any, n: int, where: str, classes: int, outputs: Sequence[int] = ()) -> Tensor:
    """Logits (n, classes) float32 of what a network said; Refused if they are none."""
    if not isinstance(out, Tensor):
        raise Refused(where, f"its output is {described(out)}, not a tensor of logits", _which(out))
    if n == 1 and out.dim() == 1 and len(out) > 1:
        out = out[None]  # a squeeze() has taken the batch of one with it
    if out.dim() != 2 or len(out) != n:
        fix = f"return logits of shape (n, {classes}), one row an image"
        if out.shape == (n,):
            what = "one number" if out.is_floating_point() else "a class"
            raise Refused(where, f"it gives {what} an image, not logits", fix + _two(classes))
        raise Refused(where, f"its output has shape {tuple(out.shape)} for {n} images", fix)
    if outputs:
        if max(outputs) >= out.shape[1]:
            what = f"outputs names logit {max(outputs)}, and it gives {out.shape[1]} an image"
            raise Refused(where, what, "they count from 0")
        out = out[:, list(outputs)]
    if out.shape[1] != classes:
        what = f"it gives {out.shape[1]:,} logit{'s' * (out.shape[1] != 1)} an image, the data has {classes} classes"
        fix = "set classes and name data with as many, or declare with outputs = [...] which logit is which class"
        if out.shape[1] == 1:
            fix = f"return two logits, such as torch.cat([-z, z], 1){_two(2)}"
        raise Refused(where, what, fix)
    said = out.detach()
    bad = (said.isnan() | said.isposinf()).any(1) | said.isneginf().all(1)
    if bool(bad.any()):
        what = f"its logits are NaN or infinite for {int(bad.sum())} of {n} images"
        raise Refused(where, what, "look for a division by zero, a log of zero or an overflow in half precision")
    logits: Tensor = out.float()
    return logits


def amount(images: int) -> str:
    """So many images, in words."""
    return f"{images} image{'s' * (images != 1)}"


def described(out: Any) -> str:
    """What something is, for a message: a tuple of (8, 10) and (8, 10)."""
    if isinstance(out, Tensor):
        return f"a tensor {tuple(out.shape)}"
    if isinstance(out, Mapping):
        return "a dict of " + ", ".join(f"{key!r} {_size(value)}" for key, value in list(out.items())[:8])
    if isinstance(out, list | tuple):
        return f"a {type(out).__name__} of " + " and ".join(_size(value) for value in list(out)[:8])
    if isinstance(out, nn.Module):
        return f"a network ({type(out).__name__}), so that what is declared makes the network: give it its arguments"
    return f"a {type(out).__name__}"


def _size(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _which(out: Any) -> str:
    """The line that picks the logits."""
    if isinstance(out, Mapping):
        keys = [key for key in out if isinstance(key, str)]
        best = next((key for key in keys if "logit" in key.lower()), keys[0] if keys else None)
        return "" if best is None else f'say which are the logits: output = "{best}"'
    if isinstance(out, list | tuple):
        return "say which are the logits: output = 0 for the first"
    if hasattr(out, "logits"):
        return 'say which are the logits: output = "logits"'
    return "return a tensor of logits (n, classes)"


def _two(classes: int) -> str:
    return "" if classes != 2 else "; a binary network gives two logits here, one for each class"


def precision_of(net: nn.Module) -> torch.dtype:
    """The precision in which a network begins: that of its first weights; float32 where it has none."""
    tensors = (*net.parameters(), *net.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)

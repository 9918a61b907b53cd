"""The function mode around a forward pass: it sees nearly every call, and answers with something differentiable."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bench.lab.attacks.adapt import choices, gates, noise, paths, steps
from bench.lab.attacks.adapt.passes import SAME, Pass, Rule
from bench.lab.attacks.adapt.twins import any_twin, carry

RULES: dict[str, Rule] = {**noise.RULES, **gates.RULES, **choices.RULES, **steps.RULES, **paths.RULES}
"""One rule a name; torch.x, Tensor.x and functional.x are one operation."""

_VIEWS = {"T", "mT", "H", "mH", "real"}


class Interception(TorchFunctionMode):
    """Applies the rules of one pass. Inside a rule the mode is off, so that a rule's own calls are torch's own."""

    def __init__(self, at: Pass, classes: int) -> None:
        super().__init__()
        self.at, self.classes = at, classes

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            attribute = getattr(getattr(func, "__self__", None), "__name__", "")
            if attribute != "data" and attribute not in _VIEWS:
                return func(*args, **kwargs)
            name = attribute
        if torch.is_inference_mode_enabled() and self.at.meets("undone-detach", "inference_mode"):
            with torch.inference_mode(False), torch.enable_grad():
                return self._answered(name, func, args, kwargs)
        return self._answered(name, func, args, kwargs)

    def _answered(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rule = paths.uncut if name == "data" else RULES.get(name)
        out = SAME if rule is None else rule(self.at, name, func, args, kwargs)
        if out is SAME:
            out = carry(name, func, args, kwargs) if any_twin(args) else func(*args, **kwargs)
        if name in choices.KEPT or name == "__getitem__":
            self._remember(args, out)
        elif name in ("linear", "addmm", "matmul", "__matmul__", "mm"):
            self._look(out)
        return out

    def _remember(self, args: tuple[Any, ...], out: Any) -> None:
        chances = getattr(args[0], "_chosen", None) if args else None
        if chances is not None and isinstance(out, Tensor) and out is not args[0] and out.numel() == args[0].numel():
            with contextlib.suppress(AttributeError):
                choices.choose(out, chances)

    def _look(self, out: Any) -> None:
        """Outputs of linear layers with shape (n, classes) may be the loss's logits."""
        if isinstance(out, Tensor) and out.dim() == 2 and out.shape[1] == self.classes and out.is_floating_point():
            self.at.inner.append(out)
            if self.at.uses is not None:
                self.at.uses.places.append(self.at.uses.place())

"""A program's own module, lent to the harness and given back as it was."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def module_of(model: Any) -> nn.Module | None:
    """The module that a model is, or that stands for a function; None of a recipe and of what is no model."""
    from torch import nn

    from bench.models.adapters.python import Function

    if isinstance(model, nn.Module):
        return model
    return Function(model) if callable(model) and not inspect.isclass(model) and not hasattr(model, "items") else None


@contextlib.contextmanager
def lent(net: nn.Module | None, device: Any) -> Iterator[bool]:
    """Have a program's module on the device and in eval mode, and give it back as it was; whether it was training."""
    import torch

    from bench.lab.compute import head

    if net is None:
        yield False
        return
    modes = {module: module.training for module in net.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in net.parameters()}
    places = {tensor.device for tensor in [*net.parameters(), *net.buffers()]}
    kept = {name: value.clone() for name, value in net.state_dict().items() if isinstance(value, torch.Tensor)}
    learning = any(module.training for module in net.modules() if _matters(module))
    try:
        net.to(device).eval()
        yield learning
    finally:
        head.restore(net)
        if len(places) == 1:
            net.to(places.pop())
        net.to(memory_format=torch.contiguous_format)
        with contextlib.suppress(RuntimeError), torch.no_grad():
            now = net.state_dict()
            for name, value in kept.items():
                if isinstance(now.get(name), torch.Tensor) and not torch.equal(now[name].cpu(), value.cpu()):
                    now[name].copy_(value)
        for module, mode in modes.items():
            module.training = mode
        for parameter, grad in wanted.items():
            parameter.requires_grad_(grad)


def _matters(module: Any) -> bool:
    """Whether a module does something else in training."""
    return not list(module.children()) and any(word in type(module).__name__ for word in ("Norm", "Drop"))

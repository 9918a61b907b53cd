"""A program's own module, lent to the harness and given back as it was."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bench import UserError
from bench.api.asking import WHERE, held_by

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
    _whole(net)
    modes = {module: module.training for module in net.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in net.parameters()}
    places = {tensor.device for tensor in [*net.parameters(), *net.buffers()]}
    kept = {name: value.clone() for name, value in net.state_dict().items() if isinstance(value, torch.Tensor)}
    dice = [(one, _state(one)) for one in held_by(net)]
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
        for one, state in dice:
            _reset(one, state)
        for module, mode in modes.items():
            module.training = mode
        for parameter, grad in wanted.items():
            parameter.requires_grad_(grad)


def _whole(net: nn.Module) -> None:
    """UserError for parameters without numbers, and such as take no gradient through them."""
    from torch.nn.parameter import is_lazy

    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if is_lazy(tensor):
            raise UserError(WHERE, f"{name} has no shape yet", "let a batch go through the model first")
        if tensor.is_meta:
            raise UserError(WHERE, f"{name} has no numbers: it is on the device meta", "load its weights first")
        if tensor.is_inference():
            what = f"{name} was made under torch.inference_mode(): no gradient passes through it"
            raise UserError(WHERE, what, "make the model outside of it, or copy.deepcopy(model)")


def _state(one: Any) -> Any:
    """The state of a generator of torch's, NumPy's or random's."""
    if hasattr(one, "bit_generator"):
        return one.bit_generator.state
    return one.getstate() if hasattr(one, "getstate") else one.get_state()


def _reset(one: Any, state: Any) -> None:
    if hasattr(one, "bit_generator"):
        one.bit_generator.state = state
    elif hasattr(one, "setstate"):
        one.setstate(state)
    else:
        one.set_state(state)


def _matters(module: Any) -> bool:
    """Whether a module does something else in training."""
    return not list(module.children()) and any(word in type(module).__name__ for word in ("Norm", "Drop"))

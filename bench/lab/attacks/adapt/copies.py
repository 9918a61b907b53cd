"""Copies that views run on: without backward hooks, bridged and clipped where a view says so."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from bench.lab.attacks.adapt.patches import dead
from bench.lab.attacks.adapt.twins import through
from bench.models.classifier import Classifier


class ViewError(RuntimeError):
    """A view cannot be had of this model; the message is the reason, in words."""


CLIP = 0.95
"""The quantile of an image's gradient at a layer's output, twice which is the most that is passed on."""


class Bridged(nn.Module):
    """A module that keeps its input's shape, with the identity for its derivative."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        out = self.inner(x, *args, **kwargs)
        if not isinstance(out, Tensor) or out.shape != x.shape or not out.is_floating_point():
            return out
        with torch._C.DisableTorchFunction():
            return through(out, x)


def copied(model: Classifier, sharing: bool = False) -> Classifier:
    """A deep copy whose parameters need no gradient; `sharing` the parameters with a copy made before.

    ViewError where a model cannot be copied.
    """
    shared: dict[int, Any] = {id(p): p for p in model.parameters()} if sharing else {}
    try:
        other: Classifier = copy.deepcopy(model, dict(shared))
    except Exception:
        try:
            other = copy.deepcopy(model, shared | _uncopied(model))
        except Exception as error:
            raise ViewError(f"the model cannot be copied: {error}") from error
    for module in other.modules():
        if hasattr(module.__dict__.get("forward"), "compiled_from"):
            del module.forward  # a closure over the network that was compiled, not over its copy
    if not sharing:
        other.requires_grad_(False)
    return other


def _uncopied(model: nn.Module) -> dict[int, Any]:
    """What stands for attributes that Python cannot copy: a generator in the same state, else the thing itself."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for name, value in vars(module).items():
            if name in ("_modules", "_parameters", "_buffers") or isinstance(value, int | float | str | None):
                continue
            if isinstance(value, torch.Generator):
                memo[id(value)] = torch.Generator(device=value.device)
                memo[id(value)].set_state(value.get_state())
            elif isinstance(value, Tensor):
                memo[id(value)] = value.detach().clone()
            else:
                try:
                    copy.deepcopy(value)
                except Exception:
                    memo[id(value)] = value
    return memo


def unhooked(model: nn.Module) -> list[str]:
    """Take all backward hooks off a copy's modules; the names of those that had some."""
    names = []
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        if module._backward_hooks or module._backward_pre_hooks:
            names.append(name or type(module).__name__)
            module._backward_hooks.clear()
            module._backward_pre_hooks.clear()
    return names


def bridge(model: nn.Module, names: list[str]) -> None:
    """Put `Bridged` around the named modules of a copy."""
    for name in names:
        parent, _, child = name.rpartition(".")
        owner = model.get_submodule(parent)
        if not isinstance(owner, torch.jit.ScriptModule):
            setattr(owner, child, Bridged(model.get_submodule(name)))


class DeadEnds:
    """A forward hook on all modules, for one pass: which keep their input's shape and have no derivative."""

    def __init__(self, model: nn.Module) -> None:
        self.names = {id(module): name for name, module in model.named_modules() if name}
        self.met: list[tuple[str, Tensor, Tensor]] = []

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        name = self.names.get(id(module))
        if name is None or not inputs or not isinstance(output, Tensor) or not isinstance(inputs[0], Tensor):
            return
        if output.shape == inputs[0].shape and inputs[0].requires_grad and output.is_floating_point():
            self.met.append((name, inputs[0], output))

    def found(self) -> list[str]:
        """Their names, only the innermost where one stands in another."""
        names = list(dict.fromkeys(name for name, x, out in self.met if dead(out, x)))
        return [name for name in names if not any(other.startswith(f"{name}.") for other in names)]


def clip(model: nn.Module) -> None:
    """Have each layer of a copy clip each image's gradient at its output to twice that gradient's 95 % quantile."""

    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad and output.dim() > 1:
            with torch._C.DisableTorchFunction():
                output.register_hook(clipped)  # type: ignore[no-untyped-call]

    for module in model.modules():
        if not isinstance(module, torch.jit.ScriptModule | Classifier):
            module.register_forward_hook(hook)


def clipped(slope: Tensor) -> Tensor:
    """Each image's gradient (n, ...) within twice the 95 % quantile of its sizes; as it was where that is zero."""
    sizes = slope.flatten(1).abs()
    k = min(sizes.shape[1], max(1, round(CLIP * sizes.shape[1])))
    bound = 2 * sizes.kthvalue(k, dim=1).values
    bound = torch.where(bound > 0, bound, torch.full_like(bound, torch.inf)).view(-1, *[1] * (slope.dim() - 1))
    return slope.clamp(-bound, bound)

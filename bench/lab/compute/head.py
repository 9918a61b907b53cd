"""The last layer in float32: logits of 8-bit mantissas tie, and ties belong to the lowest class."""

from __future__ import annotations

import contextlib
from types import MethodType

import torch
from torch import Tensor, nn

from bench.models.classifier import Classifier

LAYERS = (nn.Linear, nn.Conv2d)


def widen(model: Classifier, shape: tuple[int, int, int] = (3, 32, 32)) -> bool:
    """Have the layer that puts out the model's logits computed in its weights' own precision, whatever autocast says.

    It is found by one image of `shape`: the last linear layer or convolution that is called, if it puts out as many
    numbers as there are classes. False where there is none, as in a network that ends in something else, and where
    somebody has put a forward pass of their own into it.
    """
    layer = _last(model, shape)
    own = {} if layer is None else vars(layer)
    if layer is None or ("forward" in own and not _ours(own["forward"])):
        return False
    own["forward"] = MethodType(_wide, layer)  # a method, so that a copy of the network has one of its own layer
    return True


def restore(model: nn.Module) -> None:
    """Undo `widen`: training keeps its arithmetic, a teacher's part in it too."""
    for module in model.modules():
        if _ours(vars(module).get("forward")):
            del vars(module)["forward"]


def _wide(layer: nn.Linear | nn.Conv2d, features: Tensor) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        return type(layer).forward(layer, features.to(layer.weight.dtype))  # type: ignore[arg-type]


def _ours(forward: object) -> bool:
    return getattr(forward, "__func__", None) is _wide


def _last(model: Classifier, shape: tuple[int, int, int]) -> nn.Linear | nn.Conv2d | None:
    """The last of the model's layers to be called, if its output has one number a class."""
    called: list[tuple[nn.Module, int]] = []

    def look(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            called.append((module, output.numel()))

    place = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    generator = torch.Generator(device=place).manual_seed(0)  # it decides nothing
    hooks = [module.register_forward_hook(look) for module in model.modules() if isinstance(module, LAYERS)]
    try:
        # Whatever a stranger's network raises here, it raises again, and is reported, where it is used.
        with torch.no_grad(), contextlib.suppress(Exception):
            model.realise((1, *shape), generator)(torch.zeros(1, *shape, device=place))
    finally:
        for hook in hooks:
            hook.remove()
    layer, size = called[-1] if called else (None, 0)
    return layer if isinstance(layer, LAYERS) and size == model.classes else None

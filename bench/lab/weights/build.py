"""The classifier that a recipe and its weights make."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bench import UserError
from bench.lab.streams import Streams
from bench.lab.weights.defend import through
from bench.models.classifier import Classifier, Plain
from bench.models.noise import ColoredNoise, Noisy
from bench.models.wide_resnet import WideResNet
from bench.recipes import Distilled, Trained


def build(recipe: Trained | Distilled, state: Mapping[str, Tensor] | None = None) -> Classifier:
    """The classifier of a recipe: with the weights given, or as its training seed initialises it.

    It normalises by its data's mean and std, which also say how many channels it takes; weights bring their own.

    On the CPU, in eval mode, parameters frozen. UserError if the weights are of another network.
    """
    streams = Streams(recipe.training.seed, 0, torch.device("cpu"))
    network = recipe.network
    mean, std = recipe.data.scale
    if state is not None and "net.mean" in state:
        mean = std = (1.0,) * state["net.mean"].numel()  # of the right length: the weights hold the values
    model: Classifier
    if isinstance(recipe, Trained) and recipe.defence is not None:
        own, other = streams.generator("train", 0, 0), streams.generator("train", 0, 1)
        image = (len(mean), *recipe.data.of_image[1:])
        return _filled(through(recipe.defence, network, own, other, (mean, std), image), recipe, state)
    dice = streams.generator("train", 0, 0)
    net = WideResNet(network.depth, network.width, network.classes, mean, std, generator=dice)
    if recipe.noise is None:
        model = Plain(net, network.classes)
    else:
        law = recipe.noise
        noise = ColoredNoise(
            net, scale=law.scale, rank=law.rank, diag_init=law.diag_init, factor_init=law.factor_init,
            linear=law.linear, generator=streams.generator("train", 0, 1),
        )  # fmt: skip
        model = Noisy(net, noise, network.classes)
    return _filled(model, recipe, state)


def _filled(model: Classifier, recipe: Trained | Distilled, state: Mapping[str, Tensor] | None) -> Classifier:
    if state is not None:
        fit(model, state, f"weights of {type(recipe).__name__} {recipe.key[:12]}")
    return model.eval().requires_grad_(False)


def fit(model: torch.nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load `state` into `model`; UserError, naming a tensor, unless names and shapes are the model's."""
    own = model.state_dict()
    for name in sorted(own.keys() ^ state.keys()):
        what = f"has no tensor {name}" if name in own else f"has a tensor {name} that the network lacks"
        raise UserError(where, what, "the weights are of another network: compare recipe and model.toml")
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            what = f"{name} is {tuple(state[name].shape)}, the network's {tuple(tensor.shape)}"
            raise UserError(where, what, "the weights are of another network: compare recipe and model.toml")
    model.load_state_dict(dict(state))

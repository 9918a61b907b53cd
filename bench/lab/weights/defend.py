"""Declared defences as classifiers: those that a network is trained through, and those over weights that exist."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import nn

from bench import UserError
from bench.models import defences
from bench.models.classifier import Classifier, Plain
from bench.models.wide_resnet import CIFAR10_MEAN, CIFAR10_STD, WideResNet
from bench.recipes import (
    CTRW,
    RNA,
    RND,
    RPF,
    SAP,
    SLWTA,
    WCA,
    CropEnsemble,
    Mixture,
    Network,
    NoiseOff,
    OfModel,
    RandomFeatures,
    RandomPrecision,
    ResizePad,
    Through,
)


def through(
    recipe: Through,
    network: Network,
    net_generator: torch.Generator,
    own_generator: torch.Generator,
    scale: tuple[tuple[float, ...], tuple[float, ...]] = (CIFAR10_MEAN, CIFAR10_STD),
    image: tuple[int, int, int] = (3, 32, 32),
) -> Classifier:
    """A new network with the defence in it; the first generator initialises the network, the second the rest.

    `scale` are the mean and std by channel that the network normalises by (that of SLWTA does not), `image` the
    channels, height and width that it is for. UserError where the network cannot have it.
    """
    depth, width, classes = network.depth, network.width, network.classes
    try:
        if isinstance(recipe, SLWTA):
            units = defences.LWTAWideResNet(depth, width, classes, net_generator, channels=image[0])
            return defences.SLWTA(units, classes, recipe.trained, recipe.judged)
        net = WideResNet(depth, width, classes, *scale, generator=net_generator)
        match recipe:
            case RNA():
                return defences.RNA(net, classes)
            case RPF():
                return defences.RPF(net, classes, recipe.random)
            case CTRW():
                return defences.CTRW(net, classes, recipe.position, recipe.bound, image)
            case WCA():
                return defences.WCA(net, classes, recipe.width, own_generator)
            case _:
                assert_never(recipe)
    except ValueError as error:
        raise UserError(f"defence {recipe.kind}", str(error)) from None


def over(recipe: OfModel, base: Classifier, other: Classifier | None = None) -> Classifier:
    """The defence over a classifier; a mixture needs the `other`. UserError where it cannot be had."""
    try:
        match recipe:
            case RND():
                return defences.RND(base, recipe.nu)
            case ResizePad():
                return defences.ResizePad(base, recipe.smallest, recipe.largest, recipe.canvas, recipe.fill)
            case CropEnsemble():
                return defences.CropEnsemble(base, recipe.smallest, recipe.largest, recipe.eight_bit)
            case Mixture():
                assert other is not None
                return defences.Mixture(base, other, recipe.share)
            case NoiseOff():
                if not base.stochastic:
                    fix = "name weights whose noise can be put off"
                    raise UserError("defence noise-off", "these weights have no noise", fix)
                return base.mean()
        net, classes = _network(recipe.kind, base), base.classes
        match recipe:
            case RandomFeatures():
                return defences.RandomFeatures(net, classes, recipe.sigma, recipe.sites, recipe.law)
            case SAP():
                return defences.SAP(net, classes, recipe.ratio, recipe.gradient)
            case RandomPrecision():
                return defences.RandomPrecision(net, classes, recipe.lowest, recipe.highest)
            case _:
                assert_never(recipe)
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"defence {recipe.kind}", str(error)) from None


def _network(kind: str, base: Classifier) -> nn.Module:
    """The network inside: its modules are what such a defence changes."""
    if not isinstance(base, Plain):
        fix = "name weights without noise, or a defence of the input"
        raise UserError(f"defence {kind}", f"it changes a plain network, not a {type(base).__name__}", fix)
    return base.net

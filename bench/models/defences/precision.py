"""Random precision inference: weights and activations rounded to a random number of bits.

Fu, Yu, Li, Chandra & Lin, "Double-Win Quant: Aggressively Winning Robustness of Quantized Deep Neural Networks via
Random Precision Training and Inference", ICML 2021.
Published claim: higher accuracy of adversarially trained networks under PGD, CW and AutoAttack, each run against one
precision and scored on another.
Definition: b ~ U{4..16} for a forward pass; in the convolutions inside the residual blocks (stem, shortcuts and linear
layer stay as they are) the weights, by output channel, and the inputs are rounded to the nearest of 2^b evenly spaced
levels between their extremes, with the gradient of the identity.
Here, over a network that was not trained so, the extremes of an input are each image's own; theirs are running means.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bench.models.classifier import Atom, Classifier, Plain, Realisation, Where
from bench.models.defences.base import altered, convolutions, fed, needed


class RandomPrecision(Classifier):
    """Over any network with inner convolutions: those with a kernel above 1 x 1, but the first.

    13 atoms of equal probability by default. ValueError unless 1 <= lowest <= highest <= 24, or without such a layer.
    """

    stochastic = True
    alters = True
    where = Where("weights", shared=True, held=True, redraw="set_precision")

    def __init__(self, net: nn.Module, classes: int, lowest: int = 4, highest: int = 16) -> None:
        super().__init__()
        if not 1 <= lowest <= highest <= 24:
            raise ValueError(f"bits must be 1 <= lowest <= highest <= 24: {lowest}, {highest}")
        self.net, self.classes, self.lowest, self.highest = net, classes, lowest, highest
        wide = [name for name in convolutions(net) if net.get_parameter(f"{name}.weight".lstrip(".")).shape[-1] > 1]
        self.sites = tuple(wide[1:])
        if not self.sites:
            raise ValueError("the network has no convolution but its first that could be rounded")

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        generator = needed(generator)
        high = self.highest + 1
        return self.at(int(torch.randint(self.lowest, high, (), generator=generator, device=generator.device)))

    def at(self, bits: int) -> Realisation:
        """The network at one precision."""
        weights = {f"{name}.weight": self.net.get_parameter(f"{name}.weight") for name in self.sites}
        rounded = {name: levels(weight, bits) for name, weight in weights.items()}

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            with altered(self.net, fed(self.net, self.sites, lambda h: levels(h, bits))):
                logits: Tensor = functional_call(self.net, rounded, (images,))
            return logits

        return realisation

    def atoms(self) -> tuple[Atom, ...]:
        several = range(self.lowest, self.highest + 1)
        return tuple(Atom(1 / len(several), self.at(bits)) for bits in several)

    def mean(self) -> Classifier:
        """The network at full precision."""
        return Plain(self.net, self.classes)


def levels(x: Tensor, bits: int) -> Tensor:
    """x (n, ...) at the nearest of 2^bits even levels between each row's extremes; the identity's gradient."""
    flat = x.detach().float().flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    step = ((high - low) / (2**bits - 1)).clamp_min(torch.finfo(torch.float32).tiny)
    nearest = (((flat - low) / step).round() * step + low).view(x.shape)
    moved: Tensor = x + (nearest - x.detach()).to(x.dtype)
    return moved

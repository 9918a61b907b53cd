"""Colored noise in the weights of a network (CNI), beside the network rather than inside its layers.

Source: Nemcovsky et al., "Smoothed Inference for Adversarially-Trained Models" (arXiv 1911.07198)
and Zheltonozhskii et al., "Colored Noise Injection for Training Adversarially Robust Neural
Networks" (arXiv 2003.02188); the element-wise noise of linear layers is parametric noise
injection (He et al. 2019).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bench.models.classifier import Classifier, Plain, Realisation, Where


class ColoredNoise(nn.Module):
    """The learned law of Gaussian noise on every convolution of `net`, drawn anew by each `draw`.

    A weight W of n elements becomes W + m, with z ~ N(0, I_n), z' ~ N(0, I_rank) and
    s = std(W), through which gradients flow into W:

    - ``scale="reference"``: m = sqrt(s |d|) z + F z', so m ~ N(0, diag(s |d|) + F F^T), as in
      the authors' code; F starts at `factor_init` everywhere (theirs: 0.01).
    - ``scale="relative"``: m = s (sqrt(|d| + 1e-8) z + F z'), the same noise in units of the
      weights' own spread, which trains at any width; F starts as `factor_init` * N(0, 1).

    d starts at `diag_init` (the authors': 0.25^2) everywhere. ``linear="elementwise"`` adds
    a s z to the weight of each linear layer, a starting at 0.25; biases are never noisy.

    Parameters are flat over all layers, in the order of `net.named_modules()`: `diag`
    [elements], `factor` [elements, rank] and, for linear layers, `alpha` [elements]: one
    kernel then serves all layers, and an optimizer sees three tensors. `layers()` splits them.
    ValueError for a network without a convolution, for a weight of one element (it has no
    spread), and for values out of range.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        scale: Literal["reference", "relative"] = "relative",
        rank: int = 5,
        diag_init: float = 0.25**2,
        factor_init: float = 0.05,
        linear: Literal["none", "elementwise"] = "none",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if scale not in ("reference", "relative") or linear not in ("none", "elementwise"):
            raise ValueError(f"unknown law: scale={scale!r}, linear={linear!r}")
        if rank < 0 or diag_init < 0:
            raise ValueError(f"rank and diag_init must not be negative: {rank}, {diag_init}")
        self.scale, self.rank, self.linear = scale, rank, linear
        self.colored = _sizes(net, nn.Conv2d)
        self.elementwise = _sizes(net, nn.Linear) if linear == "elementwise" else {}
        if not self.colored:
            raise ValueError("the network has no convolution to which noise could be added")
        alone = [name for name, size in (self.colored | self.elementwise).items() if size < 2]
        if alone:
            raise ValueError(f"a weight of one element has no spread to measure noise in: {', '.join(alone)}")
        elements = sum(self.colored.values())
        if scale == "reference":
            factor = torch.full((elements, rank), factor_init)
        else:
            factor = torch.randn(elements, rank, generator=generator) * factor_init
        self.diag = nn.Parameter(torch.full((elements,), diag_init))
        self.factor = nn.Parameter(factor)
        self.alpha = nn.Parameter(torch.full((sum(self.elementwise.values()),), 0.25)) if self.elementwise else None
        self._kept: tuple[Tensor, dict[str, Tensor]] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The noisy parameters of the network, by their names there."""
        return (*self.colored, *self.elementwise)

    def layers(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Views of `diag` [n] and `factor` [n, rank] for each noisy convolution weight."""
        sizes = list(self.colored.values())
        parts = zip(torch.split(self.diag, sizes), torch.split(self.factor, sizes), strict=True)
        return dict(zip(self.colored, parts, strict=True))

    def draw(self, weights: dict[str, Tensor], generator: torch.Generator | None) -> dict[str, Tensor]:
        """Noisy weights of one draw, by name, each in the shape and memory layout of its weight.

        `weights` holds at least the `names`. The draw depends on `generator` (on the weights'
        device; ValueError if None, since the global one is never used) and on the layout
        above only. It is computed in the parameters' precision, whatever autocast says, and
        has a graph only where gradients are enabled and something in it requires them.
        """
        if generator is None:
            raise ValueError("noise needs a generator: it is never drawn from the global one")
        n, low = self.diag.numel(), len(self.colored) * self.rank
        extra = 0 if self.alpha is None else self.alpha.numel()
        device, dtype = self.diag.device, self.diag.dtype
        # One call for all layers: a GPU at small batches is bound by the number of kernels.
        z = torch.randn(n + low + extra, generator=generator, device=device, dtype=dtype)
        white, mixing, element = torch.split(z, [n, low, extra])
        with torch.autocast(device.type, enabled=False):
            drawn = self._colored(weights, white, mixing.view(len(self.colored), self.rank))
            if self.alpha is not None:
                parts = torch.split(self.alpha * element, list(self.elementwise.values()))
                for name, part in zip(self.elementwise, parts, strict=True):
                    drawn[name] = torch.addcmul(weights[name], weights[name].std(), part.view(weights[name].shape))
        return drawn

    def settle(self, weights: dict[str, Tensor] | None) -> None:
        """Keep what every draw would compute anew of parameters that do not change: the roots of `diag` and the
        spread of each of the `weights`, a third of a draw's time on a CPU. None forgets them.

        Draws without gradient then use what is kept, to the same bits; whoever changes a parameter or moves
        the module calls this again.
        """
        with torch.no_grad():
            self._kept = None if weights is None else self._scales(weights)

    def _scales(self, weights: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        size = self.diag.abs()
        # Both floors keep the root's gradient finite where an element of diag reaches zero.
        size = size + 1e-8 if self.scale == "relative" else size.clamp_min(torch.finfo(size.dtype).tiny)
        return size.sqrt(), {name: weights[name].std() for name in self.colored}

    def _colored(self, weights: dict[str, Tensor], white: Tensor, mixing: Tensor) -> dict[str, Tensor]:
        constant = not torch.is_grad_enabled()
        roots, spreads = self._kept if constant and self._kept is not None else self._scales(weights)
        sizes = list(self.colored.values())
        scaled = white.mul_(roots) if constant else roots * white
        parts = zip(self.colored, torch.split(scaled, sizes), torch.split(self.factor, sizes), mixing, strict=True)
        drawn = {}
        for name, part, factor, mix in parts:
            weight, spread = weights[name], spreads[name]
            relative = self.scale == "relative"
            noise = torch.addmv(part if relative else spread.sqrt() * part, factor, mix).view(weight.shape)
            if constant:  # one copy into the weight's layout is faster than arithmetic across two
                noise = torch.empty_like(weight).copy_(noise)
            drawn[name] = torch.addcmul(weight, spread, noise) if relative else weight + noise
        return drawn


def _sizes(net: nn.Module, kind: type[nn.Conv2d] | type[nn.Linear]) -> dict[str, int]:
    """The weights of all layers of a kind, by parameter name, with their numbers of elements."""
    layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, kind)}
    return {f"{name}.weight".lstrip("."): layer.weight.numel() for name, layer in layers.items()}


class Noisy(Classifier):
    """A network under colored noise, in training mode and in evaluation mode alike.

    A realisation is one draw of the weights, shared by all images of the batch it is made for.
    """

    stochastic = True
    where = Where("weights", shared=True)

    def __init__(self, net: nn.Module, noise: ColoredNoise, classes: int) -> None:
        super().__init__()
        self.net, self.noise, self.classes = net, noise, classes

    def settle(self, keep: bool = True) -> None:
        """`ColoredNoise.settle` with this network's weights, or forget them."""
        self.noise.settle(self._weights() if keep else None)

    def _weights(self) -> dict[str, Tensor]:
        return {name: self.net.get_parameter(name) for name in self.noise.names}

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        drawn = self.noise.draw(self._weights(), generator)

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            logits: Tensor = functional_call(self.net, drawn, (images,))
            return logits

        return realisation

    def mean(self) -> Classifier:
        """The network with the mean of its weights: the noise is centred."""
        return Plain(self.net, self.classes)

"""Stochastic activation pruning.

Dhillon et al., "Stochastic Activation Pruning for Robust Adversarial Defense", ICLR 2018.
Published claim: higher accuracy under FGSM and PGD on CIFAR-10 without training; 0 % at eps 0.031 by Athalye, Carlini &
Wagner (ICML 2018).
Definition as they attacked it: after every convolution, with r the activations (C, H, W) of one image,
p = |r| / sum |r|, N = 2 C H W, q = 1 - exp(-N p), r <- 1[u < q] r / (q + 1e-8), u ~ U[0, 1) elementwise.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.models.classifier import Classifier, Plain, Realisation, Where
from bench.models.defences.base import PerImage, Stream, altered, convolutions, followed


class SAP(Classifier):
    """Over any network with convolutions; `ratio` samples are drawn for each activation (theirs: 2).

    gradient = "exact" differentiates through q; "straight" takes pruning for the identity (a second attack's view).
    ValueError for a ratio that is not positive, an unknown gradient, or a network without convolutions.
    """

    stochastic = True
    alters = True
    where = Where("features", shared=False)

    def __init__(
        self, net: nn.Module, classes: int, ratio: float = 2.0, gradient: Literal["exact", "straight"] = "exact"
    ) -> None:
        super().__init__()
        if not 0 < ratio < float("inf") or gradient not in ("exact", "straight"):
            raise ValueError(f"ratio must be positive, and gradient exact or straight: {ratio}, {gradient!r}")
        self.net, self.classes, self.ratio, self.gradient = net, classes, ratio, gradient
        self.sites = convolutions(net)

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        noise = PerImage(shape[0], generator)

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            stream = noise.stream(rows)
            with altered(self.net, followed(self.net, self.sites, lambda r: self.pruned(r, stream))):
                logits: Tensor = self.net(images)
            return logits

        return realisation

    def pruned(self, r: Tensor, stream: Stream) -> Tensor:
        """Activations (m, C, H, W), each kept with its probability and then divided by it."""
        size = r.to(torch.promote_types(r.dtype, torch.float32)).abs()
        total = size.sum((1, 2, 3), keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)
        q = -torch.expm1(-self.ratio * r[0].numel() * size / total)
        kept = (stream.uniform(r) < q) * r / (q + 1e-8)
        return (r + (kept - r).detach() if self.gradient == "straight" else kept).to(r.dtype)

    def mean(self) -> Classifier:
        """The network itself: pruning leaves the mean of every activation as it is."""
        return Plain(self.net, self.classes)

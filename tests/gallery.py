"""False defences: each makes an ordinary attack fail, or an ordinary judge err, and protects nothing.

All are wrapped around one undefended network. Each class's first line says what it claims to be.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from bench.models.classifier import Classifier, Plain, Realisation


class Around(nn.Module):
    """A network between a change of its input and a change of its output."""

    def __init__(
        self,
        net: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda z: z,
    ) -> None:
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.after(self.net(self.before(images)))
        return logits


def quantised(images: Tensor) -> Tensor:
    """Input quantised to 16 levels (Buckman et al. 2018 and many since): flat almost everywhere."""
    return (images * 15).round() / 15


def jpeg(images: Tensor) -> Tensor:
    """JPEG at quality 75 (Guo et al. 2018): autograd does not see through the codec."""
    decoded = []
    for image in (images.detach() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=75)
        decoded.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255


class FewBits(nn.Module):
    """k-bit activations: rounding in the middle of the network, and nothing that passes a gradient."""

    def __init__(self, inner: nn.Module, bits: int) -> None:
        super().__init__()
        self.inner, self.levels = inner, 2**bits - 1

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        top = y.detach().flatten(1).amax(1).view(-1, 1, 1, 1).clamp_min(1e-6)
        return (y / top * self.levels).round() / self.levels * top


def resized(images: Tensor) -> Tensor:
    """Random resize and pad (Xie et al. 2018), from torch's own generator: noise that nobody declared."""
    size = int(torch.randint(27, 33, ()))
    left, top = (int(torch.randint(0, 33 - size, ())) for _ in range(2))
    small = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    return F.pad(small, (left, 32 - size - left, top, 32 - size - top))


def standardised(images: Tensor) -> Tensor:
    """Input shifted and scaled to the statistics of its batch: the batch mates decide with it."""
    mean, std = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True)
    return (images - mean) / std * 0.25 + 0.47


class FalseSlope(torch.autograd.Function):
    """The identity, with a gradient from elsewhere in the image: a "custom backward" that is wrong."""

    @staticmethod
    def forward(ctx: object, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx: object, slope: Tensor) -> Tensor:
        return slope.flip(1, 2, 3).roll(7, 3)


def rippled(images: Tensor) -> Tensor:
    """A fast ripple on the input: gradients are of the ripple, not of the image (shattered)."""
    return images + 0.008 * torch.sin(images * 6283.0)


def resonant(step: float) -> Callable[[Tensor], Tensor]:
    """A ripple as long as three quarters of the attack's step: gradients hold locally, and mislead at every step."""
    return lambda images: images + 0.75 * step * torch.sin(2 * torch.pi * images / (0.75 * step))


def purified(net: nn.Module) -> Callable[[Tensor], Tensor]:
    """Input made more confident by gradient steps of its own before it is classified."""

    def steps(images: Tensor) -> Tensor:
        with torch.enable_grad():
            here = images.detach().requires_grad_(True)
            z = net(here)
            (slope,) = torch.autograd.grad(F.cross_entropy(z, z.argmax(1), reduction="sum"), here)
        return images - 0.004 * slope.sign()

    return steps


class Replayed(Classifier):
    """Noise that is declared, and the same at every draw: the attack sees what the judge will use."""

    stochastic = True

    def __init__(self, net: nn.Module, sigma: float) -> None:
        super().__init__()
        self.net, self.sigma, self.classes = net, sigma, 10

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        noise = self.sigma * torch.randn(shape, generator=torch.Generator().manual_seed(0))

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            logits: Tensor = self.net(images + (noise if rows is None else noise[rows]))
            return logits

        return realisation


def gallery(base: Callable[[], nn.Module]) -> dict[str, tuple[Callable[[], Classifier], str]]:
    """Name -> (how to build it, the check that must be the first to call it suspicious).

    `base()` gives a fresh copy of a network (n, 3, 32, 32) in [0, 1] -> logits (n, 10), in
    evaluation mode, with frozen parameters and with parts `layer1` and `linear`.
    """

    def around(before: Callable[[Tensor], Tensor] | None = None, after: Callable[[Tensor], Tensor] | None = None):
        def build() -> Classifier:
            return Plain(Around(base(), before or (lambda x: x), after or (lambda z: z)).eval(), 10)

        return build

    def few_bits() -> Classifier:
        net = base()
        net.layer1 = FewBits(net.layer1, 5)
        return Plain(net.eval(), 10)

    def training() -> Classifier:
        return Plain(base().train(), 10)

    def purifying() -> Classifier:
        return Plain(Around(base(), purified(base())).eval(), 10)

    return {
        "quantised input": (around(quantised), "gradients"),
        "JPEG": (around(jpeg), "gradients"),
        "k-bit activations": (few_bits, "gradients"),
        "detached": (around(lambda x: x.detach()), "gradients"),
        "huge temperature": (around(after=lambda z: z * 1e4), "saturation"),
        "softmax inside": (around(after=lambda z: z.softmax(1)), "softmax"),
        "resize and pad": (around(resized), "randomness"),
        "undeclared noise": (around(lambda x: x + 0.05 * torch.randn_like(x)), "randomness"),
        "replayed noise": (lambda: Replayed(base(), 0.05), "replay"),
        "batch statistics": (around(standardised), "batch-mates"),
        "training mode": (training, "mode"),
        "0 to 255": (around(lambda x: x / 255), "encoding"),
        "purification": (purifying, "optimises"),
        "false backward": (around(FalseSlope.apply), "differences"),
        "shattered": (around(rippled), "differences"),
    }

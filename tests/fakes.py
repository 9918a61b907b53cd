"""False defences: each hides the gradient of an undefended network, or misleads attacks, and defends nothing.

`FAKES[name](net)` wraps a network for images (n, 3, h, w) in [0, 1] with logits (n, classes). Clean accuracy stays that
of the network, or nearly. What each hides is said in its docstring; the first eighteen are those of the specification.
"""

from __future__ import annotations

import io
import math
import random
import warnings
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional


class Fake(nn.Module):
    """Something in front of a network, and something behind it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def before(self, x: Tensor) -> Tensor:
        return x

    def after(self, z: Tensor) -> Tensor:
        return z

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.net(self.before(x)))


class RoundedLogits(Fake):
    def after(self, z: Tensor) -> Tensor:
        return (z * 4).round() / 4


class Quantised(Fake):
    """Through bytes and back."""

    def before(self, x: Tensor) -> Tensor:
        return ((x * 255).byte() // 8 * 8).float() / 255 + 4 / 255


class Thermometer(Fake):
    """Each pixel as which of 16 levels it passes (Buckman et al. 2018), read back as their mean."""

    def before(self, x: Tensor) -> Tensor:
        levels = (torch.arange(16) + 0.5) / 16
        return (x.unsqueeze(-1) > levels).float().mean(-1)


class RoundedCosines(Fake):
    """The coefficients of a cosine transform of the whole image, rounded (JPEG's step without its blocks)."""

    def before(self, x: Tensor) -> Tensor:
        side = x.shape[-1]
        k, i = torch.arange(side).view(-1, 1), torch.arange(side)
        basis = torch.cos(math.pi * k * (2 * i + 1) / (2 * side)) * (2 / side) ** 0.5
        basis[0] /= 2**0.5
        return (basis.T @ ((basis @ x @ basis.T) * 10).round() @ basis / 10).clamp(0, 1)


class Staircase(Fake):
    """A sum of steep sigmoids: smooth on paper, flat in floats."""

    def before(self, x: Tensor) -> Tensor:
        edges = (torch.arange(16) + 0.5) / 16
        return torch.sigmoid(1e5 * (x.unsqueeze(-1) - edges)).mean(-1)


class Detached(Fake):
    def before(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return x.detach() * 1.0


class Numpy(Fake):
    """Out of torch and back, image by image."""

    def before(self, x: Tensor) -> Tensor:
        return torch.stack([torch.from_numpy(np.clip(one.detach().cpu().numpy(), 0, 1)) for one in x])


class Data(Fake):
    def before(self, x: Tensor) -> Tensor:
        return x.data + 0.0


class Grid(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * 32).round() / 32


class Traced(Fake):
    """A quantiser that no function mode sees."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch would rather have it compiled
            self.grid = torch.jit.trace(Grid(), torch.rand(2, 3, 8, 8))

    def before(self, x: Tensor) -> Tensor:
        return self.grid(x)


class Inference(Fake):
    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            z = self.net(x)
        return z.clone()


class Turn(Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        return -slope


class Turned(Fake):
    """A gradient of the wrong sign, by a function that the module keeps under a name of its own."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.turn = Turn.apply

    def before(self, x: Tensor) -> Tensor:
        return self.turn(x)


class Lie(Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1.0

    @staticmethod
    def backward(ctx, slope):
        return slope.roll(5, -1).roll(7, -2) * torch.linspace(-1, 1, slope.shape[-1])


class Lying(Fake):
    def before(self, x: Tensor) -> Tensor:
        return Lie.apply(x)


class Shrunk(Fake):
    """Hooks: on a tensor, and on a module's backward pass."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.front = nn.Identity()
        self.front.register_full_backward_hook(lambda module, given, left: (given[0] * -1e-30,))

    def before(self, x: Tensor) -> Tensor:
        x = self.front(x * 1.0)
        if x.requires_grad:
            x.register_hook(lambda slope: slope * 1e-30)
        return x


class Scaled(Fake):
    """Only cross-entropy minds this."""

    def after(self, z: Tensor) -> Tensor:
        return z * 1e4


class Sharpened(Fake):
    def after(self, z: Tensor) -> Tensor:
        return (z * 1e3).softmax(1)


class Decoyed(Fake):
    """One-hot answers, with the smooth answers of something else beside them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.pattern = nn.Parameter(torch.randn(3, 10, generator=torch.Generator().manual_seed(3)), False)

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        decoy = (x * torch.linspace(-1, 1, x.shape[-1])).mean((2, 3)) @ self.pattern[:, : z.shape[1]]
        return 10 * functional.one_hot(z.argmax(1), z.shape[1]) + decoy.tanh()


class Mixed(nn.Module):
    """One of three such views at random."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList([Quantised(net), Lying(net), Sharpened(net)])

    def forward(self, x: Tensor) -> Tensor:
        return self.parts[int(torch.randint(3, ()))](x)


class Sine(Fake):
    """A ripple that changes no answer, with a slope that drowns the rest."""

    def before(self, x: Tensor) -> Tensor:
        return x + 0.01 * torch.sin(2e4 * x)


EIGHTEEN: dict[str, Callable[[nn.Module], nn.Module]] = {
    "rounded logits": RoundedLogits,
    "quantised inputs": Quantised,
    "thermometer": Thermometer,
    "rounded cosines": RoundedCosines,
    "staircase": Staircase,
    "detached": Detached,
    "numpy": Numpy,
    "data": Data,
    "traced quantiser": Traced,
    "inference mode": Inference,
    "turned gradient": Turned,
    "lying backward": Lying,
    "shrinking hooks": Shrunk,
    "scaled logits": Scaled,
    "sharpened softmax": Sharpened,
    "one-hot beside a decoy": Decoyed,
    "one of three": Mixed,
    "sine": Sine,
}


class Winners(Fake):
    """k winners take all (Xiao et al. 2020) over the image's own edges: the rest of the mask's gradient is missing."""

    def before(self, x: Tensor) -> Tensor:
        steps = (x * 64).unsqueeze(-1) - torch.arange(65)
        nearest = (-steps.abs()).topk(1, -1).indices
        mask = torch.zeros_like(steps).scatter_(-1, nearest, 1.0)
        return (mask * torch.arange(65)).sum(-1) / 64


class Gate(Fake):
    """A noisy gate at low temperature between two copies of the image, as in stochastic local winner takes all."""

    def before(self, x: Tensor) -> Tensor:
        u = torch.rand_like(x).clamp(1e-6, 1 - 1e-6)
        chance = torch.sigmoid((x - x.mean((2, 3), keepdim=True) + 0.05 * torch.logit(u)) / 1e-3)
        return x + 0.01 * (chance - 0.5)

    def after(self, z: Tensor) -> Tensor:
        u = torch.rand_like(z).clamp(1e-6, 1 - 1e-6)
        return torch.sigmoid((z - z.mean(1, keepdim=True) + 0.01 * torch.logit(u)) / 1e-3) * 5 + (z / 1e4).detach()


class Hidden(Fake):
    """Noise in the logits whose slope to the image is large and whose mean says nothing."""

    def before(self, x: Tensor) -> Tensor:
        return x + 0.002 * torch.randn_like(x) * torch.sin(1e5 * x + 6.3 * torch.rand_like(x))


class Atom(Fake):
    """A pattern added or taken away, as a coin falls: the coin's mean falls on one side only."""

    def before(self, x: Tensor) -> Tensor:
        pattern = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(7)).sign()
        sign = 1 - 2 * (torch.rand(len(x), 1, 1, 1) < 0.5).float()
        return x + 0.02 * sign * pattern


class Borrowed(nn.Module):
    """The label of one network, in a branch without gradients, with the confidence of another."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.other = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(192, 10))
        dice = torch.Generator().manual_seed(5)
        self.other[2].weight.data = torch.randn(10, 192, generator=dice)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            label = self.net(x).argmax(1, keepdim=True)
        z = self.other(x)
        best = z.argmax(1, keepdim=True)
        swapped = z.scatter(1, label, z.gather(1, best))
        return torch.where(best == label, z, swapped.scatter(1, best, z.gather(1, label)))


class Remembering(Fake):
    """Repeats its first answer to whatever is near an image that it has seen."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        answers = []
        for one, z in zip(x, self.net(x), strict=True):
            past = [answer for image, answer in self.seen if (image - one).abs().amax() < 0.1]
            if not past:
                self.seen.append((one.detach().clone(), z.detach().clone()))
            answers.append(past[0] if past else z)
        return torch.stack(answers)


class Reversed(Fake):
    """The label kept, and less confidence the larger the margin."""

    def after(self, z: Tensor) -> Tensor:
        top = z.topk(2, 1).values
        size = 1 / (0.1 + (top[:, :1] - top[:, 1:2]))
        return size * functional.one_hot(z.argmax(1), z.shape[1]).to(z.dtype)


class Sparsen(Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1.0

    @staticmethod
    def backward(ctx, slope):
        keep = torch.zeros_like(slope).flatten()
        keep[:: slope[0].numel() // 4] = 1.0
        return slope * keep.view_as(slope)


class Drown(Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1.0

    @staticmethod
    def backward(ctx, slope):
        return slope + 1e3 * slope.abs().amax() * torch.randn_like(slope)


class Sparse(Fake):
    """One value in many of the gradient is kept."""

    def before(self, x: Tensor) -> Tensor:
        return Sparsen.apply(x)


class Drowned(Fake):
    """Noise in the backward pass alone."""

    def before(self, x: Tensor) -> Tensor:
        return Drown.apply(x)


class Half(Fake):
    """Most of the image goes in detached."""

    def before(self, x: Tensor) -> Tensor:
        mask = torch.zeros_like(x)
        mask[..., :1, :1] = 1.0
        return x.detach() * (1 - mask) + x * mask


class Jpeg(Fake):
    """Through Pillow's own compression."""

    def before(self, x: Tensor) -> Tensor:
        images = []
        for one in x:
            file = io.BytesIO()
            Image.fromarray((one * 255).round().byte().permute(1, 2, 0).cpu().numpy()).save(file, "JPEG", quality=95)
            images.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255)
        return torch.stack(images)


class TurnedOver(Fake):
    """Logits that fall again near the boundary, where an attack would have to pass."""

    def after(self, z: Tensor) -> Tensor:
        top = z.topk(2, 1).values
        gap = top[:, :1] - top[:, 1:2]
        return functional.one_hot(z.argmax(1), z.shape[1]) * (2 + torch.cos(gap))


class Scripted(Fake):
    """A scripted module, and a scripted function that the code keeps under a name of its own."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.grid = torch.jit.script(Grid())
            self.steps = torch.jit.script(_steps)

    def before(self, x: Tensor) -> Tensor:
        return self.steps(self.grid(x))


def _steps(x: Tensor) -> Tensor:
    return torch.floor(x * 64) / 64


class Lottery(Fake):
    """Python's own random numbers choose a rounding."""

    def before(self, x: Tensor) -> Tensor:
        levels = random.choice((16, 24, 32))
        return (x * levels).floor() / levels + 0.5 / levels


MORE: dict[str, Callable[[nn.Module], nn.Module]] = {
    "k-winners": Winners,
    "gate at low temperature": Gate,
    "noise that hides the gradient": Hidden,
    "an atom that the mean ignores": Atom,
    "borrowed confidence": Borrowed,
    "remembered queries": Remembering,
    "reversed confidence": Reversed,
    "sparse backward": Sparse,
    "drowned backward": Drowned,
    "half detached": Half,
    "jpeg": Jpeg,
    "turned over": TurnedOver,
    "scripted": Scripted,
    "python's random": Lottery,
}

FAKES = EIGHTEEN | MORE

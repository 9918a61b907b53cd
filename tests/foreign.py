"""Small networks as people hand them over: each function gives one, with the habit that its name says."""

from __future__ import annotations

from pathlib import Path

NETS = '''
"""What a user wrote."""
import random
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Small(nn.Module):
    """Three layers; `after` is what its kin change."""

    def __init__(self, classes=10, width=8):
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Conv2d(3, width, 3, stride=4, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.last = nn.Linear(width * 64, classes)

    def features(self, x):
        return F.relu(self.norm(self.first(x)))

    def forward(self, x):
        return self.last(self.features(x).flatten(1))


def plain(classes=10):
    return Small(classes)


class Before(Small):
    """A network behind a function of its input."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x):
        return super().forward(self.change(x))


class After(Small):
    """A network before a function of its output."""

    def __init__(self, change, classes=10):
        super().__init__(classes)
        self.change = change

    def forward(self, x):
        return self.change(super().forward(x))


# -- outputs
def many(): return Small(400)
def few(): return Small(3)
def single(): return Small(1)
def flat(): return After(lambda z: z[:, 0])
def labels(): return After(lambda z: z.argmax(1))
def maps(): return After(lambda z: z[:, :, None, None])
def short(): return After(lambda z: z[:-1])
def pair(): return After(lambda z: (z.mean(), z))
def listed(): return After(lambda z: [z])
def named(): return After(lambda z: {"loss": z.sum(), "logits": z})
def nothing(): return After(lambda z: None)
def array(): return After(lambda z: z.detach().numpy())
def holes(): return After(lambda z: z / (z[:, :1] - z[:, :1]))
def huge(): return After(lambda z: z * float("inf"))
def chances(): return After(lambda z: z.softmax(1))
def logged(): return After(lambda z: z.log_softmax(1))

class Out:
    def __init__(self, z): self.logits = z
def thing(): return After(Out)

# -- precisions, inputs, gradients
def sixteen(): return Small().half()
def brain(): return Small().bfloat16()
def sixtyfour(): return Small().double()
def bytes_inside(): return Before(lambda x: (x * 255).to(torch.uint8) / 255)
def rounded(): return Before(lambda x: (x * 16).round() / 16)
def through_numpy(): return Before(lambda x: torch.from_numpy(x.detach().cpu().numpy()))

class Cut(Small):
    @torch.no_grad()
    def features(self, x): return super().features(x)
def cut(): return Cut()

def _scribbles(x):
    x.sub_(0.5)
    x /= 0.25
    return x
def scribbles(): return Before(_scribbles)
def clamps(): return Before(lambda x: x.clamp_(0.1, 0.9))
def checks_range(): 
    def check(x):
        assert 0 <= x.min() and x.max() <= 1, "pixels"
        return x
    return Before(check)

# -- noise
def torch_noise(): return Before(lambda x: x + 0.2 * torch.randn_like(x))
def torch_dropout(): return After(lambda z: F.dropout(z, 0.5, training=True))
def _normal(dice, x): return torch.from_numpy(dice.normal(0, 0.2, tuple(x.shape)).astype("float32"))
def numpy_noise(): return Before(lambda x: x + _normal(np.random, x))
def random_shift(): return Before(lambda x: torch.roll(x, random.randint(-9, 9), 3))
def faint_noise(): return Before(lambda x: x + 1e-6 * torch.randn_like(x))

class Weights(Small):
    def forward(self, x):
        kept = self.last.weight
        noisy = kept + 0.3 * kept.std() * torch.randn(kept.shape)
        return F.linear(self.features(x).flatten(1), noisy, self.last.bias)
def weight_noise(): return Weights()

class Own(Small):
    def __init__(self, make):
        super().__init__()
        self.dice = make()
    def forward(self, x):
        if isinstance(self.dice, torch.Generator):
            noise = torch.randn(x.shape, generator=self.dice)
        elif isinstance(self.dice, random.Random):
            noise = torch.full((1,), self.dice.gauss(0, 1)).expand(x.shape)
        else:
            noise = torch.from_numpy(self.dice.normal(0, 1, tuple(x.shape)).astype("float32"))
        return super().forward(x + 0.2 * noise)
def own_torch(): return Own(lambda: torch.Generator().manual_seed(1))
def own_numpy(): return Own(lambda: np.random.default_rng(1))
def own_old_numpy(): return Own(lambda: np.random.RandomState(1))
def own_random(): return Own(lambda: random.Random(1))
dice = np.random.default_rng(5)
def module_dice(): return Before(lambda x: x + _normal(dice, x))

class Seldom(Small):
    """Noise that is drawn anew at every fifth pass."""
    def __init__(self):
        super().__init__()
        self.count, self.noise = 0, torch.zeros(())
    def forward(self, x):
        if self.count % 5 == 0:
            self.noise = torch.randn(3, 32, 32)
        self.count += 1
        return super().forward(x + 0.2 * self.noise)
def seldom(): return Seldom()
class Keeps(Small):
    """Noise that is drawn anew in every pass, and kept where others may look at it."""
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(3, 32, 32))
    def forward(self, x):
        self.noise = 0.2 * torch.randn_like(x)
        self.seen = torch.randn(3, 32, 32)
        return super().forward(x + self.noise + 0.1 * self.seen)
def keeps(): return Keeps()
class Looks(Small):
    def forward(self, x):
        self.activations = self.features(x)
        return self.last(self.activations.flatten(1))
def looks(): return Looks()
class Rarely(Small):
    """The same out of sight: a hook keeps the noise of thirteen passes."""
    def __init__(self):
        super().__init__()
        kept = []
        def turn(x):
            if len(kept) % 13 == 0:
                kept.append(torch.randn(3, 32, 32))
            else:
                kept.append(kept[-1])
            return x + 0.2 * kept[-1]
        self.turn = turn
    def forward(self, x): return super().forward(self.turn(x))
def rarely(): return Rarely()

def secret():
    def noise(x):
        seed = random.SystemRandom().randrange(2**31)
        return x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return Before(noise)
def frozen():
    def noise(x): return x + 0.2 * torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(4))
    return Before(noise)

# -- state and batches
class Counts(Small):
    def forward(self, x):
        self.last.bias.data.add_(1e-3)
        return super().forward(x)
def counts(): return Counts()
class Trains(Small):
    def forward(self, x):
        self.train()
        return super().forward(x)
def trains(): return Trains()
def mates(): return Before(lambda x: x - x.mean(0, keepdim=True))
def eights():
    def only(x):
        assert len(x) % 8 == 0, "eight at a time"
        return x
    return Before(only)
def squeezes(): return After(lambda z: z.view(len(z), 10, 1).squeeze())
def ones():
    class One(Small):
        def forward(self, x):
            if len(x) == 1:
                raise ValueError("a batch of one")
            return super().forward(x)
    return One()

def quantised():
    """Features of few levels, which last bits tip here and there."""
    class Levels(Small):
        def features(self, x):
            return (super().features(x) * 3e5).round() / 3e5
    return Levels()
def softly():
    """Statistics of the batch, blended in."""
    return Before(lambda x: x - 0.01 * x.mean(0, keepdim=True))

# -- what is no network
def raises(): raise KeyError("weights")
def leaves(): sys.exit(3)
def leaves_later():
    def leave(x): sys.exit("enough")
    return Before(leave)
def fails_later():
    def fail(x): return x @ torch.zeros(7, 7)
    return Before(fail)
def wants_gpu(): raise AssertionError("Torch not compiled with CUDA enabled")
def wants_gpu_later():
    def fail(x): raise RuntimeError("No CUDA GPUs are available")
    return Before(fail)
def number(): return 3
def weights(): return Small().state_dict()
def kind(): return Small
def function():
    net = Small().eval()
    return lambda x: net(x)
ready = Small()
def needs(width): return Small(width=width)
def listens(x): return ready(x)
def stranger():
    import not_installed_anywhere
def classes_named():
    net = Small()
    net.classes = list("abcdefghij")
    return net
def chatty():
    def talk(x):
        print("hello")
        return x
    return Before(talk)
def forgets_eval(): return Small().train()
def viewer():
    class View(Small):
        def forward(self, x):
            h = self.features(x)
            return self.last(h.view(h.size(0), -1))
    return View()
def parallel(): return nn.DataParallel(Small())
def scripted(): return torch.jit.script(Small().eval())
def traced(): return torch.jit.trace(Small().eval(), torch.rand(8, 3, 32, 32))
def deep():
    def down(x): return down(x)
    return Before(down)
'''


def nets(folder: Path, more: str = "") -> Path:
    """The file in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "nets.py"
    path.write_text(NETS + more)
    return path

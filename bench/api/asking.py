"""A program's network asked a few times: does it answer with logits, do passes differ, and can a seed hold them?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.models.adapters.randomised import Held
    from bench.models.classifier import Classifier

WHERE = "your model"
ALIKE = 1e-5
"""Distance of unit-length logits up to which two passes that drew nothing count as the same: kernels may sum in another
order."""
SEEDS = (1, 2, 3)
MORE = 60  # further passes of one image through a network that draws random numbers, though its answers are the same
WRAP = "wrap it: a function from images to logits, such as "


def logits_of(net: nn.Module, images: Tensor, seed: int, held: Sequence[Held] = ()) -> Tensor:
    """Logits (n, classes) of one pass, its noise fenced; UserError for anything that is none."""
    return _passed(net, images, seed, held)[0]


def _passed(net: nn.Module, images: Tensor, seed: int, held: Sequence[Held] = ()) -> tuple[Tensor, bool]:
    """Logits of one pass, and whether it drew from a global generator."""
    import torch

    from bench.lab.foreign.ask import global_states
    from bench.lab.foreign.theirs import described, precision_of, theirs
    from bench.models.adapters.randomised import seeded

    fix = f"images are {tuple(images.shape)} in [0, 1] on {images.device}; normalisation is the model's business"
    doing = f"{len(images)} images went through it"
    with seeded(seed, held), torch.no_grad(), theirs(WHERE, doing, fix=fix):
        before = global_states()
        out = net(images.to(precision_of(net), copy=True))
        drew = global_states() != before
    if not isinstance(out, torch.Tensor):
        raise UserError(WHERE, f"forward returned {described(out)}, not logits", _wrapped(out))
    if out.shape == (len(images),) and not out.is_floating_point():
        raise UserError(WHERE, "it gives a class an image, not logits", "return what is before the argmax")
    if out.shape in ((len(images),), (len(images), 1)):
        raise UserError(WHERE, "it gives one logit an image", "give two, such as torch.cat([-z, z], 1)")
    if out.dim() != 2 or len(out) != len(images):
        what = f"forward returned {tuple(out.shape)} for {len(images)} images"
        raise UserError(WHERE, what, "logits are (n, classes)")
    if not out.isfinite().all():
        raise UserError(WHERE, "its logits are not finite on clean images", "look at its weights and normalisation")
    return out.detach().float(), drew


def _wrapped(out: object) -> str:
    if isinstance(out, dict):
        key = next((key for key in out if "logit" in str(key).lower()), next(iter(out), "logits"))
        return f"{WRAP}lambda x: model(x)[{key!r}]"
    if isinstance(out, list | tuple):
        return f"{WRAP}lambda x: model(x)[0]"
    if hasattr(out, "logits"):
        return f"{WRAP}lambda x: model(x).logits"
    if hasattr(out, "__array__"):
        return f"{WRAP}lambda x: torch.from_numpy(model(x.numpy())): without a gradient, so attack it with square"
    return f"{WRAP}lambda x: ..."


def noisy(net: nn.Module, images: Tensor, first: Tensor, declared: bool) -> bool:
    """Whether passes differ: by more than kernels may, or at all where random numbers are drawn.

    A network that draws them is asked many times, because noise may be rare; `declared`: the caller says it is noise.
    """
    drew = False
    for seed in SEEDS:
        said, drawn = _passed(net, images, seed)
        drew |= drawn
        if apart(first, said) > (0 if drew else ALIKE):
            return True
    if not drew or declared:
        return drew
    one = images[:1]
    return any(apart(logits_of(net, one, 0), logits_of(net, one, seed)) > 0 for seed in range(len(SEEDS) + 1, MORE))


def randomised(net: nn.Module, classes: int, images: Tensor) -> Classifier:
    """The network behind a fence; UserError where its passes differ even under one seed."""
    from bench.lab.foreign.ask import REMEMBERS
    from bench.lab.foreign.state import fingerprint
    from bench.lab.foreign.theirs import Foreign
    from bench.models.adapters.randomised import GlobalRandom

    held, before = held_by(net), fingerprint(net)
    if apart(logits_of(net, images, 0, held), logits_of(net, images, 0, held)) > ALIKE:
        if fingerprint(net) != before:
            raise UserError(WHERE, *REMEMBERS)
        what = "its passes differ even under one seed: its noise comes from no generator that can be held"
        fix = (
            "draw it in forward from torch's, NumPy's or random's generator, or one that the model holds; or keep it "
            "in the model's state and give redraw=, a function of a generator that draws it anew"
        )
        raise UserError(WHERE, what, fix)
    return GlobalRandom(Foreign(net, WHERE, classes), classes, held)


def held_by(net: nn.Module) -> list[Held]:
    """The generators that a network has: in its parts, and among the names of the user's files that these are of."""
    import inspect
    import sys

    from bench.lab.weights.memory import function_of, own
    from bench.models.adapters.randomised import generators, held_in

    found = generators(net)
    for one in dict.fromkeys([function_of(net) or type(net), *map(type, net.modules())]):
        module = sys.modules.get(getattr(one, "__module__", None) or "")
        if module is not None and own(getattr(module, "__file__", None) or f"<{module.__name__}>"):
            found += held_in(vars(module).values())
        if inspect.isfunction(one):
            found += held_in([one])
    return list({id(one): one for one in found}.values())


def apart(one: Tensor, other: Tensor) -> float:
    """The largest distance of two images' logits (n, classes), each scaled to unit length."""
    a, b = (t.double() / t.double().norm(dim=1, keepdim=True).clamp_min(1e-12) for t in (one, other))
    return float((a - b).norm(dim=1).max())

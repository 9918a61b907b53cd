"""How each model's passes are best computed on this device: memory layout, precision, part size, compiled or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.lab.compute import compiling, head
from bench.lab.compute.passes import Compute, laid_out
from bench.lab.streams import Streams
from bench.models.classifier import Classifier, Realisation, alters
from bench.models.noise import Noisy
from bench.models.wide_resnet import WideResNet
from bench.recipes import Examples
from bench.recipes.base import Arithmetic, Precision
from bench.store.tasks import images_in

IMAGES = 64
"""Images that both precisions answer before the faster one is trusted."""
MOST = 2
"""Of these, how many may be answered differently: near ties that any change of arithmetic tips."""
WORTHWHILE = 16 * 32 * 32
"""Numbers that the widest layer has for one image in the smallest network known to gain on a CPU by bfloat16 (a
WRN-10-1: 1.6 times the gradients a second; a WRN-28-4: 1.9 times)."""


def supported(device: torch.device) -> bool:
    """Whether the device has arithmetic for bfloat16; emulated it is far slower than float32."""
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def gains(device: torch.device, widest: int) -> bool:
    """Whether bfloat16 is faster here for a network whose `widest` layer has so many numbers an image.

    It looks at no clock, so that every worker and every later run decides alike.
    """
    return supported(device) and (device.type != "cpu" or widest >= WORTHWHILE)


def answers_alike(model: Classifier, images: Tensor, float32: Compute, bfloat16: Compute) -> bool:
    """Whether `model` predicts the same classes for images (n, 3, h, w) in both precisions, but for MOST in IMAGES.

    One draw of a stochastic model, the same for both, from a stream that neither attacks nor judges.
    """
    realisation = _one_draw(model, images)
    one, other = (compute.logits(realisation, images).argmax(1) for compute in (float32, bfloat16))
    return int((one != other).sum()) * IMAGES <= MOST * len(images)


def _one_draw(model: Classifier, images: Tensor) -> Realisation:
    generator = Streams(0, 0, images.device).generator("train") if model.stochastic else None
    with torch.no_grad():
        return model.realise(images.shape, generator)


class Compiled(NamedTuple):
    """What a network is compiled for: parts of `size` images, with a gradient or only without one."""

    size: int
    precision: str
    backward: bool

    def serves(self, other: Compiled) -> bool:
        return self[:2] == other[:2] and (self.backward or not other.backward)


@dataclass
class Fitting:
    """What a worker has found out of its models, by their keys. `exact` forbids all that changes a last bit."""

    device: torch.device
    exact: bool
    note: Callable[[str], None]
    _widest: dict[str, int] = field(default_factory=dict)
    _alike: dict[tuple[str, str], bool] = field(default_factory=dict)
    _work: dict[str, float] = field(default_factory=dict)
    _compiled: dict[str, tuple[Compiled, Callable[[], None]]] = field(default_factory=dict)
    _failed: set[str] = field(default_factory=set)
    _fits: dict[str, int] = field(default_factory=dict)
    _heads: dict[str, bool] = field(default_factory=dict)
    _shapes: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def settle(self, key: str, model: Classifier, shape: tuple[int, int, int] = (3, 32, 32)) -> None:
        """Lay a frozen model out in memory, measured by an image of `shape`, and compute once what no draw changes."""
        self._compiled.pop(key, None)  # that was another copy
        self._failed.discard(key)
        self._heads.pop(key, None)
        self._shapes[key] = shape
        self._widest[key] = 0 if self.exact else laid_out(model, shape)
        for module in model.modules():
            if isinstance(module, Noisy):
                module.settle()

    def suit(
        self,
        compute: Compute,
        declared: Arithmetic,
        key: str,
        model: Classifier,
        data: str,
        images: Callable[[], Tensor],
    ) -> None:
        """Have passes through a settled model computed as declared, in parts that this device takes best.

        `images` gives the first of the dataset with the key `data`, which "auto" asks the model about.
        """
        compute.precision = declared if declared != "auto" else self._fastest(compute, key, model, data, images)
        if compute.precision == "bfloat16" and not self._head(key, model):
            self.note("a model does not end in a linear layer: its logits are rounded to bfloat16's 8 bits and may tie")
        compute.suit(self._widest[key])
        compute.microbatch = min(compute.microbatch, self._fits.get(key, compute.microbatch))
        compute.lowered = partial(self._fits.__setitem__, key)  # what did not fit once is not tried with every shard

    def teach(self, key: str, model: Classifier) -> None:
        """Have a settled model compute as training does, which keeps its arithmetic, until `suit` is called again."""
        self._heads.pop(key, None)
        head.restore(model)

    def _head(self, key: str, model: Classifier) -> bool:
        """Whether the model's logits are computed in float32 under autocast: from now on they are, if that can be."""
        if key not in self._heads:
            self._heads[key] = head.widen(model, self._shapes.get(key, (3, 32, 32)))
        return self._heads[key]

    def _fastest(
        self, compute: Compute, key: str, model: Classifier, data: str, images: Callable[[], Tensor]
    ) -> Precision:
        if self.exact or not gains(self.device, self._widest[key]) or not self._head(key, model):
            return "float32"
        if (key, data) not in self._alike:
            both = [Compute(self.device, precision, compute.microbatch) for precision in ("float32", "bfloat16")]
            for one in both:
                one.suit(self._widest[key])
            self._alike[key, data] = answers_alike(model, images()[:IMAGES], *both)
        if not self._alike[key, data]:
            self.note('a model answers otherwise in bfloat16: precision = "auto" is float32 for it')
            return "float32"
        return "bfloat16"

    def compile(
        self,
        compute: Compute,
        key: str,
        model: Classifier,
        examples: Examples,
        forwards: float,
        slopes: float,
        *,
        draws: int,
    ) -> None:
        """Compile a WideResNet if the passes an image that judging or crafting `examples` takes repay it; `draws`
        are those taken in a row, some of which may share a pass.

        Only ours: a stranger's network may draw random numbers, which a compiler draws otherwise.
        """
        net, slope = getattr(getattr(model, "base", model), "net", None), slopes > 0
        if self.device.type != "cuda" or self.exact or not isinstance(net, WideResNet) or alters(model):
            return
        if key in self._failed:
            return
        work = self._work.get(key) or compiling.gigaflops(net)
        self._work[key], n = work, images_in(examples)
        found = compiling.gain("cuda", compute.precision, work) if compiling.compiler("cuda") else None
        if not compiling.repays(n * slopes, 0.0, work, found, n * forwards):
            return
        shard = min(n, examples.shard)
        images = (shard * compute.joint(model, draws, shard), *examples.data.of_image)
        meant = Compiled(compute.part(images[0]), compute.precision, slope)
        done = self._compiled.get(key)
        if done is None or not done[0].serves(meant):
            self.plain(key)
            self.try_compiling(compute, model, net, images, slope, key=key)

    def plain(self, key: str) -> None:
        """Undo what was compiled of a model: for another purpose, or for others who would meet buffers that are used
        once (`retain_graph`)."""
        if key in self._compiled:
            self._compiled.pop(key)[1]()

    def is_compiled(self, key: str) -> bool:
        return key in self._compiled

    def try_compiling(
        self,
        compute: Compute,
        model: Classifier,
        net: nn.Module,
        shape: tuple[int, ...],
        backward: bool,
        backend: str = "inductor",
        *,
        key: str = "",
    ) -> None:
        """Compile `net` for the parts of a shard of this shape and do one pass; where that fails all runs as it did."""
        part, autocast = compute.part(shape[0]), compute.precision == "bfloat16"
        undo = compiling.compile_for(net, part, backend, backward=backward, autocast=autocast)
        images = torch.full((part, *shape[1:]), 0.5, device=self.device)
        own = Compute(self.device, compute.precision, compute.microbatch)
        try:
            realisation = _one_draw(model, images)
            own.logits(realisation, images)
            if backward:
                own.gradient(realisation, images, images, lambda logits, _: logits.sum(1))
        except Exception as error:  # whatever a compiler can raise, eager PyTorch does not need it
            undo()
            self._failed.add(key)
            self.note(f"torch.compile failed ({type(error).__name__}): going on without it")
            return
        self._compiled[key] = Compiled(part, compute.precision, backward), undo

"""The one interface behind which every classifier stands, deterministic or stochastic."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Realisation(Protocol):
    """One draw of a classifier's noise: from here on a deterministic function of the images.

    Called with images (n, 3, h, w) float32 in [0, 1]; returns logits (n, classes).
    `rows` says which rows of the batch the draw was made for these images are (an index
    tensor or a slice; None: all of them, in order), so that neither the microbatch nor the
    images that have left the batch change the noise an image meets.
    """

    def __call__(self, images: Tensor, rows: Tensor | slice | None = None) -> Tensor: ...


class Where(NamedTuple):
    """Where a classifier's noise lives.

    `shared`: one draw is for all images of a batch, not for each of them. `held`: its authors' code keeps the draw in
    the module's state until a hook redraws it (`redraw` is its name), so that an attack which does not call the hook
    meets one draw only; here, as everywhere, a realisation is a draw.
    """

    place: Literal["input", "features", "weights", "architecture"]
    shared: bool
    held: bool = False
    redraw: str = ""


class Atom(NamedTuple):
    """One of finitely many draws, and its probability."""

    chance: float
    realisation: Realisation


class Classifier(nn.Module):
    """A network and whatever noise is evaluated with it.

    Inputs are images (n, 3, h, w), float32 in [0, 1]; normalisation is the model's own
    business. Outputs are logits (n, classes), never probabilities. Noise does not depend on
    ``module.training``, and is drawn from the generator given, never from the global one.
    """

    classes: int
    stochastic: bool
    joins: bool = False
    """Whether several draws can share a pass through a network, as `realise_all` has them do."""

    alters: ClassVar[bool] = False
    """Whether a realisation has modules of the network act otherwise, which a compiled graph of it would not see."""

    where: ClassVar[Where | None] = None
    """Where the noise lives, if there is any and it is known."""

    @abstractmethod
    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        """Draw the noise for a batch of images of this shape (n, 3, h, w).

        `generator` lives on the model's device; deterministic classifiers ignore it. In a
        context with gradients the draw is differentiable in the noise's own parameters.
        """

    def realise_all(
        self,
        shape: torch.Size | tuple[int, ...],
        generators: Sequence[torch.Generator | None],
        rows: Tensor | None = None,
    ) -> Realisation:
        """The draws of several generators for the same m `rows` (None: all n) of a batch of this shape, as one draw.

        It answers len(generators) * m images, first those of the first generator, each with the noise that it
        meets in `realise(shape, generator)`; the rows that it is called with count among all of them.
        NotImplementedError where not `joins`: noise that is not on the input, such as in weights, has no pass to share.
        """
        raise NotImplementedError(f"{type(self).__name__} takes each draw for itself")

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits (n, classes) of one fresh draw."""
        return self.realise(images.shape, generator)(images)

    def mean(self) -> Classifier:
        """The network without its noise, or with the noise averaged out: deterministic, over the same tensors.

        Each class says which of the two it is. NotImplementedError where the noise is not known.
        """
        if self.stochastic:
            raise NotImplementedError(f"{type(self).__name__} does not say what it is without its noise")
        return self

    def atoms(self) -> tuple[Atom, ...]:
        """All draws with their probabilities, whose sum is 1, where they are few enough to be listed; else none."""
        return ()

    def penalty(self) -> Tensor | None:
        """What training adds to the loss: a scalar with a graph, or nothing."""
        return None


class Plain(Classifier):
    """A deterministic network: every realisation is the network itself."""

    stochastic = False

    def __init__(self, net: nn.Module, classes: int) -> None:
        super().__init__()
        self.net, self.classes = net, classes

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None = None) -> Realisation:
        return lambda images, rows=None: self.net(images)


def alters(model: nn.Module) -> bool:
    """Whether anything in `model` must not be compiled, as `Classifier.alters` says."""
    return any(isinstance(module, Classifier) and module.alters for module in model.modules())

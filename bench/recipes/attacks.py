"""Recipes of attacks: what each field means, and where its definition is from."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from bench.recipes.base import Arguments, Digest, Exact, Files, Natural, Recipe, Whole, exact


class Clean(Recipe):
    """No attack: the images as they are."""

    kind: Literal["clean"] = "clean"


Eps = Annotated[Exact, Field(ge=0, le=1)]
Radius = Annotated[Exact, Field(ge=0)]
Draw = Literal["moving", "frozen", "pseudo-eot", "none"]


class PGD(Recipe):
    """Projected gradient descent (Madry et al. 2018), in eval mode, noise fresh each step.

    `eps` and `step` are in units of `norm`: in L-inf a step follows the gradient's sign, in L2 its direction.

    `eot` draws a step average the gradient (Athalye et al. 2018); `gradient` says of what: of the
    mean loss over the draws, or of the loss of the mean softmax (SmoothAdv, Salman et al. 2019).
    `accumulate` follows the sign of the sum of all gradients so far (the CNI authors' code).
    `momentum` is MI-FGSM's decay (Dong et al. 2018). `pick = "best"` keeps the iterate, and
    restarts keep the start, that is wrong most often over `selection` draws of their own, the
    larger mean margin breaking ties.
    `keep_iterates` stores every iterate, so that accuracy by attack step can be judged.

    `draw` is the protocol of a stochastic source's draws: "moving", fresh ones for every gradient; "frozen", one for
    the whole attack, which then meets a deterministic network (RPF, RNA, CTRW and DWQ were published so);
    "pseudo-eot", copies that share a step's draw, so that their mean is one gradient and is computed once (L2P and
    WCA-Net); "none", the network without its noise. Scoring is on fresh draws whatever it says.
    """

    late: ClassVar[frozenset[str]] = frozenset({"norm", "draw"})

    kind: Literal["pgd"] = "pgd"
    eps: Radius = Fraction(8, 255)
    step: Radius = Fraction(2, 255)
    steps: Whole = 10
    random_start: bool = True
    restarts: Natural = 1
    eot: Natural = 1
    loss: Literal["ce", "margin", "dlr"] = "ce"
    gradient: Literal["mean-loss", "mean-softmax"] = "mean-loss"
    pick: Literal["last", "best"] = "last"
    selection: Natural = 8
    early_stop: bool = False
    accumulate: bool = False
    momentum: Annotated[float, Field(ge=0)] = 0.0
    keep_iterates: bool = False
    norm: Literal["Linf", "L2"] = "Linf"
    draw: Draw = "moving"

    @property
    def gradients_a_step(self) -> int:
        """Gradients that a step is really the mean of, on a stochastic source."""
        return self.eot if self.draw == "moving" else 1

    @model_validator(mode="after")
    def _within(self) -> PGD:
        if self.norm == "Linf" and max(self.eps, self.step) > 1:
            raise ValueError("in L-inf eps and step are at most 1, the whole range of a pixel; 8/255 is usual")
        return self


class Square(Recipe):
    """Square attack in L-inf (Andriushchenko et al. 2020) on the margin averaged over `draws` draws.

    Early stopping is off for randomised sources: the form AutoAttack's authors describe for them. There each query
    shows its draws to the best image so far as well, which otherwise would be the one with the luckiest draws.
    """

    kind: Literal["square"] = "square"
    eps: Eps = Fraction(8, 255)
    queries: Natural = 1000
    draws: Natural = 20
    p_init: Annotated[float, Field(gt=0, le=1)] = 0.8
    restarts: Natural = 1


class Peer(Recipe):
    """Another library's attack, by name and keyword arguments, fenced and re-checked.

    `eps` is in units of `norm`: an L1 or L2 ball of [0, 1]^(3 x 32 x 32) may be larger than 1. `draw` as in `PGD`;
    a frozen draw that is not shared by the batch goes by an image's place in the batch that the library hands over.

    Of a user's own attack (kind "python", `name` file.py:Name or package.module:Name), `code` is the digest of its
    source and of the declared `files`, and `place` the folder that its names start from.
    """

    late: ClassVar[frozenset[str]] = frozenset({"draw", "files", "code"})
    aside: ClassVar[frozenset[str]] = frozenset({"place"})

    kind: Literal["torchattacks", "autoattack", "foolbox", "python"]
    name: str = "standard"
    eps: Annotated[Exact, Field(ge=0)] = Fraction(8, 255)
    norm: Literal["Linf", "L2", "L1"] = "Linf"
    arguments: Arguments = Field(default_factory=dict)
    draw: Literal["moving", "frozen", "none"] = "moving"
    files: Files = ()
    code: Digest | None = None
    place: str | None = None

    @field_validator("eps", mode="before")
    @classmethod
    def _eps(cls, value: Any) -> Any:
        return exact(value)


class Strong(Recipe):
    """The attack that adapts (bench/lab/attacks/strong): losses, classes, starts and views, chosen by what they find.

    `gradients` bounds what an image may cost, a pass without a gradient counted as half of one. The search ends
    there, or where the last members together added less than `tolerance` to the error of all images.
    """

    kind: Literal["strong"] = "strong"
    eps: Annotated[Exact, Field(ge=0)] = Fraction(8, 255)
    norm: Literal["Linf", "L2"] = "Linf"
    gradients: Natural = 300
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.001


Single = PGD | Square | Peer | Strong
"""Every attack that is not made of others."""


class Worst(Recipe):
    """The strongest of several attacks for each image: wrong most often over selection draws, then by mean margin."""

    kind: Literal["worst"] = "worst"
    attacks: Annotated[tuple[Annotated[Single, Field(discriminator="kind")], ...], Field(strict=False)]
    selection: Natural = 64


Crafting = Single | Worst
"""Every attack that changes images. Whoever matches on it ends with assert_never: an attack that is added and not
handled there is an error of mypy's, not a number."""

Attack = Annotated[Clean | Crafting, Field(discriminator="kind")]

"""The kinds of replacement that a view may be made of, and what each says of the model it was needed for."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal[
    "expectation",
    "common-draw",
    "unit-scale",
    "unit-scale-both",
    "straight-through",
    "undone-detach",
    "hooks",
    "soft-choice",
    "custom-functions",
    "reconnected",
    "bridges",
    "steep",
    "clipped",
    "inner-logits",
]

WORDS: dict[Kind, str] = {
    "expectation": "the expectation in place of each random number",
    "common-draw": "one draw of the noise for all steps",
    "unit-scale": "saturated gates at unit scale in the backward pass",
    "unit-scale-both": "saturated gates at unit scale in both passes",
    "straight-through": "straight-through rounding, casts and comparisons",
    "undone-detach": "undoing what cuts the graph",
    "hooks": "leaving out backward hooks",
    "soft-choice": "soft choices in place of hard ones",
    "custom-functions": "differentiating custom autograd functions anew",
    "reconnected": "reconnecting detours out of torch",
    "bridges": "straight-through modules without a derivative",
    "steep": "dropping oscillating branches from the backward pass",
    "clipped": "clipped backward passes",
    "inner-logits": "a loss on inner logits",
}
"""What was put in place, as the subject of a finding: "... takes it from 100 to 0"."""

EVERYTHING: tuple[Kind, ...] = (
    "unit-scale",
    "straight-through",
    "undone-detach",
    "hooks",
    "soft-choice",
    "custom-functions",
    "reconnected",
    "bridges",
    "steep",
)
"""What "everything on" switches on: all that leaves the forward pass and its noise as they are."""


class Choice(NamedTuple):
    """One view: the kinds that are on, and which inner linear layer's output is the loss's logits (None: the model's).

    `inner` counts the outputs of shape (n, classes) in the order in which a pass meets them.
    """

    kinds: frozenset[Kind]
    inner: int | None = None

    def without(self, kind: Kind) -> Choice:
        """This view with one kind off."""
        return Choice(self.kinds - {kind}, None if kind == "inner-logits" else self.inner)

    def more(self, *kinds: Kind) -> Choice:
        """This view with more kinds on."""
        return Choice(self.kinds | set(kinds), self.inner)


NOTHING = Choice(frozenset())

"""A declared attack on a case, and what others leave beside it."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from torch import Tensor

from bench.lab.craft import craft
from bench.lab.examine import rules
from bench.lab.examine.family import LEVEL
from bench.lab.examine.outputs import Case
from bench.lab.examine.rules import Right
from bench.recipes import PGD, Peer, Square, Strong

WIDE = Fraction(1, 8)
"""How far a pixel may move, so that an honest model must lose much to gradients, be it robust or not."""
FEW = 100  # gradients an image, from which on `strong` looks for views of the model by interception


class Attacks:
    """A declared attack on a case, and what others leave beside it."""

    def __init__(self, case: Case, declared: PGD | Peer, queries: int, draws: int, *, thorough: bool = False) -> None:
        self.case, self.declared, self.queries, self.draws = case, declared, queries, draws
        self.gradients = Strong().gradients if thorough else max(FEW, queries // 2)
        self.sure = not case.model.stochastic
        # A peer's attack has no parameters of ours: the checks around it are a PGD's in the same ball.
        norm = declared.norm if declared.norm in ("Linf", "L2") else "Linf"
        self.base = declared if isinstance(declared, PGD) else PGD.model_validate({"eps": declared.eps, "norm": norm})
        fields = {name: getattr(self.base, name) for name in PGD.model_fields}
        # Where a model is deterministic, fooled images may leave early: fewer passes, the same verdicts.
        self.fields = fields | {"keep_iterates": False, "early_stop": self.sure, "draw": "moving"}
        self.crafted = self.made(self.changed() if self.sure and isinstance(declared, PGD) else declared)
        self.white = self.right(self.crafted)
        self.why = rules.nothing_lower(self.white, LEVEL)

    def changed(self, **changes: object) -> PGD:
        return PGD(**(self.fields | changes))

    def made(self, attack: PGD | Square | Peer | Strong, case: Case | None = None) -> Tensor:
        on = case or self.case
        if isinstance(attack, PGD) and not self.sure and on is self.case:
            attack = attack.model_copy(update={"keep_iterates": False})
        return craft(attack, on.model, on.images, on.labels, on.streams, on.compute).images

    def right(self, images: Tensor, case: Case | None = None) -> Right:
        """How often each image (n,) is right over fresh draws of the judge's stream; 0 or 1 where deterministic."""
        on = case or self.case
        return np.asarray(on.view.right(images, on.labels, self.draws).mean(axis=1), np.float64)

    def under(self, attack: PGD | Square | Peer | Strong) -> Right:
        return self.right(self.made(attack))

    def wide(self, factor: int = 4) -> PGD:
        """The attack in a ball in which no network stays as it was."""
        values = self.case.images[0].numel()
        reach = WIDE * (1 if self.base.norm == "Linf" else math.ceil(values**0.5 / 2))
        eps = max(factor * self.base.eps, reach)
        return self.changed(eps=eps, step=eps / 4, steps=10)

    def noise(self, attack: PGD) -> PGD:
        """Random points of an attack's ball, the best of a few."""
        return attack.model_copy(update={"steps": 0, "random_start": True, "restarts": 3})


def black_box(base: PGD, queries: int, draws: int) -> Square | Peer:
    """Square in the attack's norm: ours in L-inf, AutoAttack's in L2."""
    if base.norm == "Linf":
        return Square(eps=base.eps, queries=queries, draws=min(20, draws))
    part = {"n_queries": queries, "n_restarts": 1}
    arguments = {"attacks": ["square"], "square": part}
    return Peer(kind="autoattack", name="custom", eps=base.eps, norm=base.norm, arguments=arguments)

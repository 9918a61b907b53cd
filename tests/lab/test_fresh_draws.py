"""A model that is right with probability p whatever the image scores p here, and less under every-hit scoring."""

import numpy as np
import pytest
import torch
from oracles import compute, streams

from bench.lab.craft import craft
from bench.lab.judge import Judged, judge
from bench.models.classifier import Classifier
from bench.recipes import PGD, Peer, Square, Stopping, Worst
from bench.votes.numbers import fold

N, DRAWS = 400, 20


class Coin(Classifier):
    """Says class 0 with probability p at every draw, class 1 otherwise, whatever the image and its batch."""

    stochastic, classes = True, 10

    def __init__(self, p):
        super().__init__()
        self.p = p

    def realise(self, shape, generator):
        lucky = torch.rand(shape[0], generator=generator) < self.p
        table = torch.zeros(shape[0], 10)
        table[torch.arange(shape[0]), (~lucky).long()] = 1 + torch.rand(shape[0], generator=generator)
        # a slope too small to decide anything, so that attacks have a gradient to follow
        slope = torch.linspace(-1e-3, 1e-3, 10)
        return lambda images, rows=None: (
            table[slice(None) if rows is None else rows] + slope * images.flatten(1).mean(1, keepdim=True)
        )


def score(model, images, labels, seed):
    shard = Judged(
        images, labels, np.arange(len(images)), np.zeros(len(images), np.float32), np.zeros(len(images), np.int8)
    )
    return judge(model, shard, DRAWS, Stopping(), streams(seed), compute(512))


@pytest.mark.parametrize("p", [0.8, 0.95])
def test_no_attack_moves_a_constant(p, capsys):
    model = Coin(p)
    images = torch.rand(N, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(N, dtype=torch.long)
    ascent = PGD(steps=3, restarts=2, pick="best", selection=4)
    attacks = {
        "restarts and best iterate": ascent,
        "square": Square(queries=5, draws=4),
        "worst of an ensemble": Worst(attacks=(ascent, Square(queries=5, draws=4)), selection=8),
    }
    lines, ours = [], []
    for name, attack in attacks.items():
        made = craft(attack, model, images, labels, streams(1), compute(512))
        number = fold(score(model, made.images, labels, 2), "expected")
        ours.append(number.value)
        lines.append(f"{name:<28} {100 * number.value:6.2f} %")
        assert abs(number.value - p) < 4 * np.sqrt(p * (1 - p) / N / DRAWS)

    # AutoAttack `rand`, shortened: its any-hit flags against fresh draws of the same images
    short = Peer(kind="autoattack", name="rand, as published", arguments={"apgd": {"n_iter": 5, "eot_iter": 2}})
    made = craft(short, model, images, labels, streams(3), compute(512))
    its_own = 1 - float(made.claimed.float().mean())
    fresh = fold(score(model, made.images, labels, 4), "expected").value
    # the minimum over clean and two attacks of a 20-draw mean, as AutoAttack's open proposal has it
    means = [score(model, images, labels, 10 + k).counts[:, 0] / DRAWS for k in range(3)]
    least = float(np.minimum.reduce(means).mean())
    lines += [
        f"{'AutoAttack, any hit counts':<28} {100 * its_own:6.2f} %",
        f"{'AutoAttack, fresh draws':<28} {100 * fresh:6.2f} %",
        f"{'least of three 20-draw means':<28} {100 * least:6.2f} %",
    ]
    with capsys.disabled():
        print(f"\np = {100 * p:.0f} %\n" + "\n".join(lines))
    assert abs(fresh - p) < 4 * np.sqrt(p * (1 - p) / N / DRAWS)
    assert its_own < p - 0.05 and least < p - 0.02

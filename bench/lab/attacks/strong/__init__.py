"""`strong`: one attack for any source, which chooses among losses, classes, starts and views by what they find."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.lab.attacks import Crafted, adapt
from bench.lab.attacks.strong.race import Raced
from bench.lab.attacks.strong.search import Search
from bench.lab.attacks.strong.sure import Sure
from bench.lab.attacks.view import View
from bench.lab.compute.passes import Compute
from bench.lab.streams import Streams
from bench.models.classifier import Classifier
from bench.recipes import Strong

SHARE = 0.2  # of the budget, at most, for the search for views by interception
ENOUGH = 100  # gradients, below which a budget is too small for one


def craft(
    attack: Strong, source: Classifier, images: Tensor, labels: Tensor, streams: Streams, compute: Compute
) -> Crafted:
    """Images within attack.eps of `images` (n, c, h, w) that the source gets wrong most often, as far as the search
    finds them; claimed is 1 where it is wrong, of a stochastic source on one draw of the attack's own.

    Views of the source by interception (bench/lab/attacks/adapt) are looked for first; what they find, as all else,
    counts by what the untouched source says. The account says what each member bought.
    """
    judge, views, findings, hidden = source, tuple[Classifier, ...](), tuple[str, ...](), False
    before = compute.forwards, compute.backwards
    if attack.gradients >= ENOUGH and attack.eps > 0:
        some = min(len(images), adapt.Budget().images)
        most = min(adapt.Budget().gradients, int(SHARE * attack.gradients * len(images) / some))
        ball = adapt.Ball(float(attack.eps), attack.norm)
        budget = adapt.Budget(images=some, gradients=most)
        adapted = adapt.search(source, images, labels, ball, streams, compute, budget=budget)
        judge, views, findings = adapted.judge, adapted.views[:-1], adapted.findings
        hidden = bool(adapted.kept)
    search = Search(attack, View(judge, images.shape, streams, compute), images, labels)
    forwards, backwards = compute.forwards - before[0], compute.backwards - before[1]
    search.looked(forwards, backwards)
    if source.stochastic:
        Raced(search, views).hunt()
    else:
        Sure(search, views, hidden).hunt()
    best = search.best
    claimed = search.view.claims(best.images, labels) if source.stochastic else best.fooled.to(torch.int8)
    return Crafted(best.images, claimed, account=search.account(findings))

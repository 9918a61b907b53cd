"""`strong`: one attack for any source, which chooses among losses, classes, starts and views by what they find."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.lab.attacks import Crafted
from bench.lab.attacks.strong.race import Raced
from bench.lab.attacks.strong.search import Search
from bench.lab.attacks.strong.sure import Sure
from bench.lab.attacks.view import View
from bench.lab.compute.passes import Compute
from bench.lab.streams import Streams
from bench.models.classifier import Classifier
from bench.recipes import Strong


def craft(
    attack: Strong, source: Classifier, images: Tensor, labels: Tensor, streams: Streams, compute: Compute
) -> Crafted:
    """Images within attack.eps of `images` (n, c, h, w) that the source gets wrong most often, as far as the search
    finds them; claimed is 1 where the best image was wrong on every draw that selected it."""
    search = Search(attack, View(source, images.shape, streams, compute), images, labels)
    if source.stochastic:
        Raced(search).hunt()
    else:
        Sure(search).hunt()
    return Crafted(search.best.images, search.best.fooled.to(torch.int8))

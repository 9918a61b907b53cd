"""The first suite for a model: what `init` writes. Complete, commented, and without a question asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from bench import UserError, nearest
from bench.recipes import Fetched

TEXT = '''\
# A suite of freshdraws. What it would cost: `freshdraws plan {file}`. Do it: `freshdraws run {file}`.
# A line that begins with # is a choice you may make. Every key: docs/suite.md, or `freshdraws schema`.

[datasets.test]
{data}
[weights.mine]
{weights}
[models.mine]
weights = "mine"
# sigma = [0, 0.05, 0.1]      # Gaussian noise on the input; a list makes one model of each value
# rule = "vote"               # a randomised model's prediction is the vote of its draws; without it each draw counts
# samples = 128               # the draws of a vote

[attacks.pgd20]
kind = "pgd"                  # L-inf, eps 8/255, step 2/255, random start
steps = 20
# eps = ["2/255", "8/255"]    # a list makes one attack of each value
# eot = 20                    # draws a gradient, against a randomised model

[attacks.strong]
kind = "strong"               # adapts to the model: losses, starts, and stand-ins for layers that hide gradients
# gradients = 300             # what an image may cost

# [attacks.auto]
# kind = "autoattack"         # needs: pip install 'freshdraws[peers]'
# name = "standard"           # "rand" against a randomised model

[tables.mine]
rows = ["mine"]
columns = ["clean", "pgd20", "strong"]
'''
SHIPPED = '''\
stop = 1000                   # the first 1,000 images of a fixed shuffle of CIFAR-10's test set, which is shipped
# kind = "npz"                # your own images: a file of arrays `images` (n, h, w, 3) and `labels` (n,)
# path = "data.npz"
'''
OWN = '''\
kind = {kind}
path = {path}
stop = 1000                   # the first 1,000 images of a fixed shuffle; leave it out for all
'''
PYTHON = '''\
kind = "python"
name = {name}   # images (n, 3, h, w) in [0, 1] to logits (n, classes); beside this file
# files = ["weights.pt"]      # what your code reads: if one changes, the records are others
# stochastic = true           # if two passes of one image may differ; noise that is not declared is refused
# classes = 10
'''
LIBRARY = '''\
kind = {kind}
name = {name}
'''


def starter(model: str, data: str, file: str) -> str:
    """A suite that judges `model`: ``file.py:function``, ``package.module:Name``, or ``kind:name`` of a library.

    `data` is empty for CIFAR-10, or an .npz file, or a folder of a folder a class. UserError for anything else.
    """
    return TEXT.format(file=file, data=_data(data), weights=_weights(model))


def _weights(model: str) -> str:
    kinds = [kind for kind in get_args(Fetched.model_fields["kind"].annotation) if kind not in ("memory", "python")]
    kind, mark, name = model.partition(":")
    if model == "autoattack-example":
        return f"kind = {json.dumps(model)}\n"
    if mark and name and kind in kinds:
        return LIBRARY.format(kind=json.dumps(kind), name=json.dumps(name))
    if not mark or not kind or not name:
        fix = f"write file.py:function, or a library's as one of {', '.join(f'{one}:name' for one in kinds)}"
        raise UserError("init", f"{model!r} names no model", fix)
    if kind.endswith(".py") and not Path(kind).is_file():
        there = [path.name for path in Path().glob("*.py")]
        raise UserError("init", f"there is no file {kind} here", nearest(kind, there))
    return PYTHON.format(name=json.dumps(model))


def _data(data: str) -> str:
    if not data:
        return SHIPPED
    path = Path(data)
    if path.is_dir():
        return OWN.format(kind='"folder"', path=json.dumps(data))
    if path.suffix == ".npz" and path.is_file():
        return OWN.format(kind='"npz"', path=json.dumps(data))
    raise UserError("--data", f"{data} is neither an .npz file nor a folder of images", "see docs/own-data.md")

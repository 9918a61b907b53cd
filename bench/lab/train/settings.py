"""What stands around a training: PyTorch's switches, and what a kept state depends on."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from bench.lab.compute.device import switched
from bench.lab.train.inputs import Inputs
from bench.models.classifier import Classifier


def fingerprint(inputs: Inputs, teacher: Classifier | None) -> str:
    """SHA-256 over images, labels, targets and the teacher's weights, in their order: what a state depends on."""
    digest = hashlib.sha256()
    taught = [] if teacher is None else list(teacher.state_dict().values())
    for tensor in (inputs.images, inputs.labels, inputs.targets, *taught):
        if tensor is not None:
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def settings(exact: bool) -> Iterator[None]:
    """PyTorch's global switches for a training, put back afterwards."""
    with switched(exact), warnings.catch_warnings():
        # Tracing looks at the gradients of noisy weights, which are no leaves and have none.
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
        yield


def net_of(model: nn.Module) -> nn.Module:
    """The network inside a classifier, without its noise."""
    inner = model.base if hasattr(model, "base") else model
    net = inner.net  # type: ignore[union-attr]
    assert isinstance(net, nn.Module)
    return net

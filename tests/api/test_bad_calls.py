"""Calls with something wrong in them: each is told in words, with what is wrong, where, and how to mend it."""

from __future__ import annotations

import itertools
import random
import sys
import time
from pathlib import Path

import api_models
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import bench
from bench.recipes import PGD

CPU = {"device": "cpu", "progress": False}
X, Y = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(5)), torch.arange(12) % 4
NET = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
COUNT, ONES = itertools.count(), {"n": 0}


class Through(nn.Module):
    """A network with a habit of the user's."""

    def __init__(self, habit):
        super().__init__()
        self.net, self.habit = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), habit

    def forward(self, x):
        return self.habit(self.net, x)


class Fails(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, i):
        if i == 3:
            raise KeyError("the file is gone")
        return X[i], Y[i]


class Streamed(IterableDataset):
    def __iter__(self):
        yield from ([X[0], Y[0]], "and then")


def run(model=NET, data=(X, Y), **how):
    return bench.evaluate(model, data, **({"attacks": "pgd2"} | CPU | how))


def habit(function, **how):
    return run(Through(function), **how)


def switched(net, x):
    net.train()
    return net(x)


def biased(net, x):
    net[1].bias.data.add_(1e-3)
    return net(x)


def broken(batch):
    raise ValueError("mine")


def eights(net, x):
    assert len(x) % 8 == 0, "eight at a time"
    return net(x)


CALLS = {
    # the model
    "a number": (lambda: run(3), "a int is no model"),
    "a name": (lambda: run("resnet18"), "a str is no model"),
    "a class": (lambda: run(api_models.Small), "Small is a class"),
    "a state dict": (lambda: run(NET.state_dict()), "a state dict is no model"),
    "weights on meta": (lambda: run(nn.Sequential(nn.Flatten(), nn.Linear(192, 4, device="meta"))), "has no numbers"),
    "lazy layers": (lambda: run(nn.Sequential(nn.Flatten(), nn.LazyLinear(4))), "has no shape yet"),
    "another size": (lambda: run(NET, (torch.rand(6, 3, 9, 9), Y[:6])), "your code raised RuntimeError"),
    "raises": (lambda: habit(lambda net, x: net(x) @ torch.zeros(7, 7)), "your code raised RuntimeError"),
    "sys.exit": (lambda: habit(lambda net, x: sys.exit(3)), r"your code called sys.exit\(3\)"),
    "eight at a time": (lambda: habit(eights), "fails at a batch of 1: your code raised AssertionError"),
    "no large batches": (lambda: habit(lambda net, x: net(x) if len(x) < 9 else 1 / 0), "16 images went through it"),
    "needs CUDA": (lambda: habit(lambda net, x: net(x.to("cuda:0"))), "no GPU|not compiled with CUDA|NVIDIA"),
    "a tuple": (lambda: habit(lambda net, x: (net(x), 1)), r"model\(x\)\[0\]"),
    "a dict": (lambda: habit(lambda net, x: {"loss": 0, "logits": net(x)}), r"model\(x\)\['logits'\]"),
    "an array": (lambda: habit(lambda net, x: net(x).detach().numpy()), "returned a ndarray"),
    "nothing": (lambda: habit(lambda net, x: None), "returned a NoneType"),
    "classes, not logits": (lambda: habit(lambda net, x: net(x).argmax(1)), "a class an image"),
    "one logit": (lambda: habit(lambda net, x: net(x)[:, :1]), "one logit an image"),
    "another shape": (lambda: habit(lambda net, x: net(x)[0]), "forward returned"),
    "NaN": (lambda: habit(lambda net, x: net(x) * torch.nan), "not finite"),
    "infinite": (lambda: habit(lambda net, x: net(x) * torch.inf), "not finite"),
    "no gradient": (lambda: habit(lambda net, x: net(x).detach()), "does not depend differentiably"),
    "bytes inside": (lambda: habit(lambda net, x: net((x * 255).byte() / 255)), "does not depend differentiably"),
    "one-hot outputs": (lambda: habit(lambda net, x: F.one_hot(net(x).argmax(1), 4).float()), "differentiably"),
    "batch statistics": (lambda: habit(lambda net, x: net(x - x.mean(0, keepdim=True))), "with the images beside it"),
    "trains": (lambda: habit(switched), "training mode"),
    "learns": (lambda: habit(biased), "change as it is asked"),
    "held nowhere": (lambda: habit(lambda net, x: net(x) + next(COUNT)), "no generator that can be held"),
    "the time": (lambda: habit(lambda net, x: net(x + time.perf_counter() % 1)), "no generator that can be held"),
    "its own seed, anew": (
        lambda: habit(lambda net, x: net(x) + random.SystemRandom().random() * x.flatten(1)[:, :4]),
        "no generator that can be held",
    ),
    "redraw a number": (lambda: run(redraw=3), "3 is no function"),
    "redraw raises": (lambda: run(redraw=lambda g: 1 / 0), r"ZeroDivisionError while its noise was drawn \(redraw\)"),
    "redraw of nothing": (lambda: run(redraw=lambda: None), r"TypeError while its noise was drawn \(redraw\)"),
    "other classes": (lambda: run(classes=10), "gives 4 logits, not 10"),
    "classes in words": (lambda: run(classes="four"), "gives 4 logits, not four"),
    "no such builder": (lambda: run(build="nowhere.py:make"), "there is no file nowhere.py"),
    # the data
    "no data": (lambda: run(data=5), "is not data"),
    "no such name": (lambda: run(data="cifar1"), "no data set is called"),
    "no such split": (lambda: run(data="cifar10/val"), "no split 'val'"),
    "a dict of arrays": (lambda: run(data={"images": X, "labels": Y}), r"give \(images, labels\)"),
    "no images": (lambda: run(data=(X[:0], Y[:0])), "holds 0 images"),
    "flat images": (lambda: run(data=(X.flatten(1), Y)), "one label an image"),
    "an image too few": (lambda: run(data=(X[1:], Y)), "one label an image"),
    "normalised": (lambda: run(data=(X * 4 - 2, Y)), "images reach from"),
    "in 255ths": (lambda: run(data=(X * 255, Y)), "images reach from"),
    "whole numbers": (lambda: run(data=((X * 255).long(), Y)), "bytes 0 to 255"),
    "NaN pixels": (lambda: run(data=(X * torch.nan, Y)), "images reach from"),
    "labels as floats": (lambda: run(data=(X, Y.float())), "not whole numbers"),
    "one-hot labels": (lambda: run(data=(X, F.one_hot(Y))), "argmax"),
    "labels below 0": (lambda: run(data=(X, Y - 1)), "labels run from -1"),
    "labels beyond": (lambda: run(data=(X, Y + 2)), "labels reach 5, and the model has 4"),
    "names for labels": (lambda: run(data=[(x, "cat") for x in X]), "the label of item 0 is 'cat'"),
    "half a label": (lambda: run(data=[(x, 0.7) for x in X]), "the label of item 0 is 0.7"),
    "dicts for items": (lambda: run(data=[{"image": x} for x in X]), "item 0 is a dict"),
    "several sizes": (lambda: run(data=[(torch.rand(3, 8 + i, 8), 0) for i in range(3)]), "several sizes"),
    "a data set that raises": (lambda: run(data=Fails()), "your code raised KeyError while item 3 was read"),
    "a stream of other things": (lambda: run(data=Streamed()), "a batch is a str"),
    "a collate that raises": (
        lambda: run(data=DataLoader(TensorDataset(X, Y), collate_fn=broken)),
        "your code raised ValueError while batch 0 was read: mine",
    ),
    "a start past the end": (lambda: run(data=bench.dataset("cifar10", start=10_000)), "start = 10000 is past its"),
    "an index past the end": (lambda: bench.dataset("cifar10", indices=[10_000]), "index 10000 is past the 10,000"),
    "no such kind": (lambda: bench.dataset("npy", "x"), "no data set is called 'npy'"),
    "no such file": (lambda: bench.dataset("npz", "nowhere.npz"), "cannot be read"),
    # the attacks
    "no such attack": (lambda: run(attacks="pdg20"), "no attack is called 'pdg20'"),
    "a number as attack": (lambda: run(attacks=[3]), "3 is no attack"),
    "no such class": (lambda: run(attacks="torchattacks.Nope"), "torchattacks has no such attack"),
    "no queries": (lambda: run(attacks="square0"), "greater than or equal to 1"),
    "DLR of two classes": (lambda: run(lambda x: NET(x)[:, :2], (X, Y % 2), attacks="pgd2-dlr"), "three classes"),
    "an attack that raises": (lambda: run(attacks=lambda m, x, y, e: 1 / 0), "ZeroDivisionError while it attacked"),
    "an attack of nothing": (lambda: run(attacks=lambda m, x, y, e: None), "it returned NoneType"),
    "an attack too far": (lambda: run(attacks=lambda m, x, y, e: 1 - x), "more than Linf eps = 8/255"),
    "an attack in place": (lambda: run(attacks=lambda m, x, y, e: x.add_(e).clamp_(0, 1)), "it wrote into the"),
    "an attack that leaves": (lambda: run(attacks=lambda m, x, y, e: sys.exit()), r"sys.exit\(\) while it attacked"),
    "strong in L1": (lambda: run(attacks="strong", norm="L1", eps=12), "works in L-inf and L2"),
    "no norm": (lambda: run(norm="L3"), "no norm"),
    "eps in words": (lambda: run(eps="eight"), "no number"),
    "eps below 0": (lambda: run(eps=-1), "below 0"),
    "eps in 255ths": (lambda: run(eps=8), "at most 1"),
    "eps without end": (lambda: run(eps=float("inf")), "inf is no distance"),
    "eps that is none": (lambda: run(eps=float("nan")), "nan is no distance"),
    "no eps": (lambda: run(eps=[]), "an empty list"),
    "too many eps": (lambda: run(eps=np.full(15, 0.1)), "15 values for 12 images"),
    "eps of its own among others": (
        lambda: run(eps=np.full(12, 0.1), attacks=PGD(steps=1, eps="1/255")),
        "pgd1 says its own eps",
    ),
    # the rest
    "no images asked for": (lambda: run(n=0), "whole number from 1"),
    "half an image": (lambda: run(n=4.5), "whole number from 1"),
    "no draws": (lambda: run(draws=0), "whole number from 1"),
    "draws beyond a count": (lambda: run(api_models.Noisy(4), draws=70_000), "from 1 to 65,535"),
    "no draws for a gradient": (lambda: run(eot=0), "whole number from 1"),
    "a seed below 0": (lambda: run(seed=-1), "whole number from 0"),
    "a seed in words": (lambda: run(seed="a"), "whole number from 0"),
    "a seed too large": (lambda: run(seed=2**70), "to 9,223,372,036,854,775,807"),
    "no such precision": (lambda: run(precision="float8"), "did you mean 'float32'"),
    "no GPU": (lambda: run(device="cuda:7"), "no cuda:7"),
    "no such device": (lambda: run(device="tpu"), "no device is called 'tpu'"),
    "no device at all": (lambda: run(device=torch.device("meta")), "no device is called 'meta'"),
    "no images at once": (lambda: run(batch=0), "whole number from 1"),
    "a file for a folder": (lambda: run(out=__file__), "is a file"),
    "no place for a folder": (lambda: run(out="/proc/nowhere"), "cannot be made"),
    "a number for a folder": (lambda: run(out=3), "3 is no folder"),
    # the parts
    "two attacks for one": (lambda: bench.attack(NET, (X, Y), "standard", device="cpu"), "2 attacks"),
    "attack, labels beyond": (lambda: bench.attack(NET, (X, Y + 3), device="cpu"), "labels reach 6"),
    "judge under attack": (lambda: bench.judge(NET, (X, Y), attacks="pgd2", **CPU), "judged as they are"),
    "diagnose no PGD": (lambda: bench.diagnose(NET, (X, Y), "square5", device="cpu"), "neither a PGD"),
    "diagnose nothing": (lambda: bench.diagnose(NET, (X, Y), (), device="cpu"), "neither a PGD"),
    "diagnose by no queries": (lambda: bench.diagnose(NET, (X, Y), queries=0, device="cpu"), "whole number from 1"),
    "diagnose three images": (lambda: bench.diagnose(NET, (X, Y), n=3, device="cpu"), "3 images tell nothing"),
    "certify no noise": (lambda: bench.certify(NET, (X, Y), 0, device="cpu"), "is no noise"),
    "certify words": (lambda: bench.certify(NET, (X, Y), "a", device="cpu"), "is no deviation"),
    "certify without end": (lambda: bench.certify(NET, (X, Y), float("inf"), device="cpu"), "is no deviation"),
    "certify by few": (lambda: bench.certify(NET, (X, Y), draws=5, device="cpu"), "cannot certify"),
    "certify by too many": (lambda: bench.certify(NET, (X, Y), draws=100_000, device="cpu"), "to 65,535"),
    "certify for sure": (lambda: bench.certify(NET, (X, Y), alpha=2, device="cpu"), "no chance of being wrong"),
    "certify one radius": (lambda: bench.certify(NET, (X, Y), radii=0.5, device="cpu"), "are no radii"),
    "compare a number": (lambda: bench.compare(run(attacks=()), 3), "is no report"),
    "no results": (lambda: bench.results("nowhere"), "holds no results"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_a_mistake_is_told_in_words(name):
    """One UserError, that says where and what, and how to mend it unless that is plain; nothing of ours besides."""
    call, says = CALLS[name]
    with pytest.raises(bench.UserError, match=says) as caught:
        call()
    assert caught.value.where and (caught.value.fix or "\n" in caught.value.what or len(caught.value.what) > 20)


def test_there_are_many_and_nothing_is_left_behind(tmp_path, monkeypatch):
    assert len(CALLS) >= 100
    monkeypatch.chdir(tmp_path)
    with pytest.raises(bench.UserError):
        run(data=Fails(), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert Path.cwd() == tmp_path and not list(tmp_path.iterdir())

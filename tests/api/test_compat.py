"""The drop-in against the real AutoAttack: the same images, the same lines, and the line that it lacks."""

from __future__ import annotations

import logging
import random
import re

import api_models
import pyautoattack
import pytest
import torch
from oracles import test_images

from bench import UserError
from bench.compat import AutoAttack

EPS = 2 / 255


def short(made):
    """The version's attacks with fewer steps, queries and targets, as one may set them: the whole takes minutes."""
    made.apgd.n_iter = made.apgd_targeted.n_iter = made.fab.n_iter = 8
    made.apgd_targeted.n_target_classes = made.fab.n_target_classes = 3
    made.square.n_queries = 50


def sure(n, classes=10):
    """A small network, and images with the labels that it gives them."""
    net, images = api_models.Small(classes).eval().requires_grad_(False), test_images(n)[0]
    return net, images, net(images).argmax(1)


def theirs(net, images, labels, **how):
    """The library's own run, and what it logs."""
    lines = []
    logger, handler = logging.getLogger("auto-attack"), logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        made = pyautoattack.AutoAttack(net, eps=EPS, norm="Linf", seed=0, device="cpu", **how)
        short(made)
        return *made.run_standard_evaluation(images, labels, batch_size=8), lines
    finally:
        logger.removeHandler(handler)


def timeless(text):
    return [re.sub(r"\(total time .*?\)", "", line) for line in text if not line.startswith("running ")]


def test_standard_is_the_real_one_image_by_image(capsys):
    net, images, labels = sure(8)
    x, y, lines = theirs(net, images, labels)
    ours = AutoAttack(net, norm="Linf", eps=EPS, seed=0, device="cpu")
    short(ours)
    mine, said = ours.run_standard_evaluation(images, labels, bs=8, return_labels=True)
    assert torch.equal(mine, x) and torch.equal(said, y)
    assert float((mine != images).flatten(1).any(1).float().mean()) > 0
    printed = capsys.readouterr().out.splitlines()
    assert timeless(printed) == timeless(lines)
    assert any(line.startswith("robust accuracy after APGD-CE: ") for line in printed)
    assert any(line.startswith("max Linf perturbation: 0.00784") for line in printed)


def test_its_parts_can_be_set_as_there(capsys):
    net, images, labels = sure(4)
    ours = AutoAttack(net, "Linf", EPS, 0, False, [], "custom", False, "cpu")
    ours.attacks_to_run = ["apgd-ce", "fab-t"]
    ours.apgd.n_iter, ours.fab.n_iter = 5, 3
    found = ours.run_standard_evaluation_individual(images, labels, bs=4)
    assert list(found) == ["apgd-ce", "fab-t"] == ours.attacks_to_run
    alone = AutoAttack(net, "Linf", EPS, 0, False, ["apgd-ce"], "custom", device="cpu")
    alone.apgd.n_iter = 5
    assert torch.equal(alone.run_standard_evaluation(images, labels, bs=4), found["apgd-ce"])
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("classes", "attacks"), [(2, "apgd-ce fab-t"), (3, "apgd-ce apgd-dlr fab-t"), (8, "apgd-ce apgd-t fab-t")]
)
def test_fewer_than_ten_classes(classes, attacks, capsys):
    net, images, labels = sure(4, classes)
    ours = AutoAttack(
        net, "Linf", EPS, 0, attacks_to_run=["apgd-ce", "apgd-t", "fab-t"], version="custom", device="cpu"
    )
    for part in (ours.apgd, ours.apgd_targeted, ours.fab):
        part.n_iter = 4
    made = ours.run_standard_evaluation(images, labels, bs=4)
    assert ours.attacks_to_run == attacks.split() and ours.fab.n_target_classes == classes - 1
    assert (made - images).abs().max() <= EPS + 1e-6
    printed = capsys.readouterr().out
    assert ("apgd-t needs 4 classes" in printed) == (classes < 4)


def test_a_randomised_model_has_the_line_on_fresh_draws(capsys):
    net = api_models.Noisy(10).eval().requires_grad_(False)
    images, labels = test_images(8)
    ours = AutoAttack(net, "Linf", EPS, 0, attacks_to_run=["apgd-ce"], version="custom", device="cpu")
    ours.apgd.n_iter = 3
    made = ours.run_standard_evaluation(images, labels, bs=8)
    line = next(line for line in capsys.readouterr().out.splitlines() if "on fresh draws" in line)
    share, low, high = (float(word) / 100 for word in re.findall(r"([\d.]+)%", line)[:3])
    with torch.no_grad():
        truth = float(torch.stack([net(made).argmax(1) == labels for _ in range(200)]).float().mean())
    assert low <= truth <= high and low <= share <= high


def test_images_come_back_even_where_no_fresh_draws_can_judge_them(capsys):
    """Noise that no seed holds: AutoAttack runs as it does, and a line says why there is no other number."""

    class Secret(api_models.Small):
        def forward(self, images):
            return super().forward(images) + random.SystemRandom().random() * torch.eye(10)[0]

    images, labels = test_images(4)
    ours = AutoAttack(Secret(10).eval(), "Linf", EPS, 0, attacks_to_run=["apgd-ce"], version="custom", device="cpu")
    ours.apgd.n_iter = 2
    assert ours.run_standard_evaluation(images, labels, bs=4).shape == images.shape
    assert "Warning: not judged on fresh draws: your model: its passes differ" in capsys.readouterr().out


def test_what_it_cannot_do_is_said():
    net = api_models.Small()
    with pytest.raises(UserError, match="models are PyTorch's"):
        AutoAttack(net, is_tf_model=True)
    with pytest.raises(UserError, match="your model"):
        AutoAttack(net, device="cpu", verbose=False).run_standard_evaluation(
            torch.rand(2, 5, 8, 8), torch.zeros(2).long()
        )

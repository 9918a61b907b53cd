"""A suite of defences from nothing: trained through them, put over weights, attacked by each protocol, judged."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small import go, session

from bench import UserError
from bench.models.defences import LWTAWideResNet
from bench.suite.cells import Cell

SUITE = """
[protocol]
shard = 20
[datasets.test]
split = "excerpt"
stop = 40
[datasets.train]
split = "excerpt"
start = 5000
stop = 5100
[networks.small]
depth = 10
width = 1
[defences.rpf]
kind = "rpf"
[defences.precision]
kind = "random-precision"
lowest = 2
highest = 3
[defences.two]
kind = "mixture"
other = "rpf"
share = 0.5
[attacks.frozen]
kind = "pgd"
steps = 2
draw = "frozen"
[attacks.mean]
kind = "pgd"
steps = 2
draw = "none"
[trainings.short]
epochs = 1
batch = 50
augment = "none"
attack = "frozen"
[weights.plain]
kind = "trained"
network = "small"
data = "train"
training = "short"
[weights.rpf]
kind = "trained"
network = "small"
defence = "rpf"
data = "train"
training = "short"
[models.precision]
weights = "plain"
defence = "precision"
draws = 6
[models.two]
weights = "plain"
defence = "two"
draws = 6
[models.rpf]
weights = "rpf"
draws = 6
[tables.t]
rows = ["precision", "two", "rpf"]
columns = ["clean", "frozen", "mean"]
"""


def test_a_suite_of_defences_runs_and_a_second_run_finds_it_all(tmp_path: Path) -> None:
    counts = go(tmp_path, text=SUITE)
    opened = session(tmp_path, SUITE)
    votes = {(cell.target, cell.attack): opened.votes(cell.outcomes) for cell in opened.suite.cells()}
    assert len(votes) == 9 and all(found is not None for found in votes.values())
    for (_, attack), found in votes.items():
        assert found is not None and (found.drawn == 6).all()
        assert (found.linf > 0).all() == (attack != "clean")
    # Two precisions, two networks: what an image was told by six draws are at most two classes.
    for target in ("precision", "two"):
        clean = votes[target, "clean"]
        assert (clean is not None and ((clean.counts > 0).sum(1) <= 2).all()) or target == "two"
    tables = (tmp_path / "results" / "small" / "tables.md").read_text()
    assert "white-box (one frozen draw)" in tables and "white-box (mean network)" in tables
    assert counts.records > 0 and go(tmp_path, text=SUITE).records == 0


def test_the_other_network_of_a_mixture_is_fetched_before_the_mixture_is_judged(tmp_path: Path) -> None:
    opened = session(tmp_path, SUITE)
    two = next(cell for cell in opened.suite.cells() if cell.target == "two")
    assert isinstance(two, Cell)
    from bench.run.session import planned

    order = [type(work).__name__ for work in planned(opened, [two.outcomes], False).order]
    assert order == ["Trained", "Trained", "Outcomes"]


def test_a_users_checkpoint_is_judged_and_another_file_is_refused(tmp_path: Path) -> None:
    net = LWTAWideResNet(10, 1, generator=torch.Generator().manual_seed(0), spare=True)
    text = """
[protocol]
shard = 20
[datasets.test]
split = "excerpt"
stop = 20
[weights.slwta]
kind = "slwta"
file = "own/ckpt.pt"
[models.slwta]
weights = "slwta"
draws = 4
[attacks.mean]
kind = "pgd"
steps = 1
draw = "none"
[tables.t]
rows = ["slwta"]
columns = ["clean", "mean"]
"""
    with pytest.raises(UserError, match=r"There is no file .*ckpt.pt. Put your copy of"):
        go(tmp_path, text=text)
    (tmp_path / "own").mkdir()
    torch.save({"model_state_dict": net.state_dict()}, tmp_path / "own" / "ckpt.pt")
    go(tmp_path, text=text)
    opened = session(tmp_path, text)
    votes = [opened.votes(cell.outcomes) for cell in opened.suite.cells()]
    assert all(found is not None and (found.drawn == 4).all() for found in votes)
    assert not np.array_equal(votes[0].counts, votes[1].counts)  # type: ignore[union-attr]
    pinned = text.replace('file = "own/ckpt.pt"', f'file = "own/ckpt.pt"\nsha256 = "{"0" * 64}"')
    with pytest.raises(UserError, match="sha256"):
        go(tmp_path, text=pinned)

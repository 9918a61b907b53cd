"""A report saved is a suite that another program can run and audit; where it could not, it says what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import api_models
import own_data
import pytest
import torch
from safetensors.torch import load

import bench
from bench.lab.images.load import as_tensor
from bench.recipes import Peer
from bench.store.records import Store

CPU = {"device": "cpu", "progress": False}
ROOT = str(Path(bench.__file__).parents[1])


def some(n=12, classes=8):
    images, labels = own_data.excerpt(n, classes)
    return as_tensor(images), torch.from_numpy(labels)


def command(*words, cwd, path=ROOT):
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "300"}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=cwd, env=env)


def bench_(verb, folder, *more):
    return command(
        "-m", "bench", verb, str(folder / "suite.toml"), "--root", str(folder), "--device", "cpu", *more, cwd=folder
    )


def test_a_folder_of_ours_passes_its_own_audit(tmp_path):
    """Images in their own order, or some by number, were called a forgery."""
    bench.evaluate(api_models.Noisy(), some(), attacks="pgd1", eot=1, draws=4, out=tmp_path, **CPU)
    done = bench_("verify", tmp_path, "--sample", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| consistent |") == 3 and "inconsistent" not in done.stdout


PACKAGE = {
    "theirs/__init__.py": "",
    "theirs/parts/__init__.py": "SCALE = 0.5\n",
    "theirs/parts/block.py": "from torch import nn\nfrom . import SCALE\ndef block(n):\n    return nn.Linear(3072, n)",
    "tools.py": "def shifted(x):\n    return x - 0.5\n",
    "theirs/net.py": """
        import torch
        from tools import shifted
        from theirs.parts.block import block
        from .parts import SCALE

        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                torch.manual_seed(1)
                self.last = block(8)
            def forward(self, x):
                return self.last(shifted(x).flatten(1)) * SCALE + 0.1 * torch.randn(len(x), 8)
    """,
    "use.py": """
        import sys
        import bench, own_data, torch
        from bench.lab.images.load import as_tensor
        from theirs.net import Net
        images, labels = own_data.excerpt(12, 8)
        report = bench.evaluate(Net(), (as_tensor(images), torch.from_numpy(labels)), attacks="pgd1", eot=1, draws=4,
                                device="cpu", out=sys.argv[1])
        report.save(sys.argv[2])
    """,
}


def test_what_a_model_imports_of_the_users_is_saved_with_it(tmp_path):
    """A class in a package, with relative imports and a module beside it: run elsewhere, to the same votes."""
    for name, text in PACKAGE.items():
        file = tmp_path / "home" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    one, other = tmp_path / "one", tmp_path / "other"
    path = os.pathsep.join([ROOT, str(Path(own_data.__file__).parent)])
    done = command("use.py", str(one), str(other), cwd=tmp_path / "home", path=path)
    assert done.returncode == 0, done.stderr
    text = (other / "suite.toml").read_text()
    assert 'build = "theirs.net:Net"' in text and "missing" not in text
    for name in (
        "theirs/__init__.py",
        "theirs/net.py",
        "theirs/parts/block.py",
        "theirs/parts/__init__.py",
        "tools.py",
    ):
        assert (other / name).is_file(), name
    (tmp_path / "home").rename(tmp_path / "gone")
    done = bench_("run", other)
    assert done.returncode == 0 and "records made" in done.stdout, done.stderr + done.stdout
    made = [sorted(path.glob("results/records/*/*/votes.parquet")) for path in (one, other)]
    assert len(made[0]) == 3
    assert [path.read_bytes() for path in made[0]] == [path.read_bytes() for path in made[1]]


class Wide(api_models.Small):
    def __init__(self, classes=8, strength=0.1):
        super().__init__(classes)
        self.strength = strength

    def forward(self, images):
        return super().forward(images) * (1 + self.strength)


class Broken(api_models.Small):
    ready = False

    def __init__(self):
        assert Broken.ready, "not now"
        super().__init__()


def test_what_cannot_be_made_again_is_said(tmp_path):
    """Arguments other than the defaults were silently left out of the suite, which then could not be run."""
    ready = Wide()
    assert "missing" not in bench.evaluate(ready, some(), attacks=(), **CPU).suite()
    for net, words in (
        (Wide(classes=9), "head.weight is (8, 128) there and (9, 128) here"),
        (Wide(strength=0.3), "strength is 0.1 there and 0.3 here"),
    ):
        text = bench.evaluate(net, some(), attacks=(), **CPU).suite()
        assert "# missing: Wide() is another network than this: " in text and words in text
        assert "build = 'file.py:function'" in text
    Broken.ready = True
    net = Broken()
    Broken.ready = False
    assert (
        "# missing: Broken() cannot be made: AssertionError: not now"
        in bench.evaluate(net, some(), attacks=(), **CPU).suite()
    )


@pytest.mark.parametrize("guarded", [False, True])
def test_a_class_of_a_program_is_named_only_if_importing_it_runs_nothing(guarded, tmp_path):
    body = "print(bench.evaluate(Net(), (x, y), attacks=(), device='cpu').suite())"
    text = f"""
import torch, bench
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.last = torch.nn.Linear(192, 4)
    def forward(self, x):
        return self.last(x.flatten(1))
if {'__name__ == "__main__"' if guarded else True}:
    x, y = torch.rand(8, 3, 8, 8), torch.arange(8) % 4
    {body}
"""
    (tmp_path / "program.py").write_text(text)
    done = command("program.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert ("missing: program.py is a program, which runs when Net is imported" in done.stdout) != guarded
    assert ('build = "program.py:Net"' in done.stdout) == guarded


def test_records_of_a_folder_are_those_of_its_suite(tmp_path):
    report = bench.evaluate(api_models.Small(), some(), attacks=("pgd1", "fgsm"), out=tmp_path, **CPU)
    for cell in report.remade.suite.cells():
        assert Store(tmp_path).find(cell.outcomes) is not None


def grey(n):
    images, labels = own_data.excerpt(n, 2)
    return own_data.grey(images)[:, 2:30, 2:30], labels


def test_two_classes_by_dropout_under_our_attacks_and_a_peer(tmp_path):
    """Grey, 28 x 28, randomised: AutoAttack with the one target there is; the suite gives the same votes elsewhere."""
    parts = {"attacks": ["apgd-ce", "fab-t", "square"], "apgd": {"n_iter": 3, "n_restarts": 1}}
    parts |= {"fab": {"n_iter": 2, "n_restarts": 1, "n_target_classes": 1}, "square": {"n_queries": 5, "n_restarts": 1}}
    peer = Peer(kind="autoattack", name="custom", arguments=parts)
    report = bench.evaluate(
        api_models.Dropped(), grey(12), attacks=["pgd2", "square5", "strong", peer], eot=2, draws=8,
        out=tmp_path / "one", **CPU,
    )  # fmt: skip
    assert report.stochastic and report.votes["clean"].counts.shape == (12, 2)
    assert report.attacks.keys() == {"pgd2", "square5", "strong", "autoattack.custom"}
    report.save(tmp_path / "other")
    done = bench_("run", tmp_path / "other")
    assert done.returncode == 0 and "records made" in done.stdout, done.stderr + done.stdout
    for cell in report.remade.suite.cells():
        mine, theirs = (Store(tmp_path / name).find(cell.outcomes) for name in ("one", "other"))
        assert mine.read("votes.parquet") == theirs.read("votes.parquet"), cell.attack
    told = json.loads((tmp_path / "other" / "results" / "suite" / "tables.json").read_text())
    shown = {cell["attack"]: cell["value"] for cell in told["cells"] if cell["table"] == "report"}
    assert shown["pgd2"] == pytest.approx(report.attacks["pgd2"].expected.value, abs=1e-9)


APGD_L1 = {"attacks": ["apgd-ce"], "apgd": {"n_iter": 5, "n_restarts": 1}}


@pytest.mark.parametrize(
    ("norm", "eps", "attack"),
    [
        ("L1", 150, "foolbox.L1FastGradientAttack"),
        ("L1", 150, Peer(kind="autoattack", name="custom", eps=150, norm="L1", arguments=APGD_L1)),
        ("L2", 20, "square50"),
    ],
)
def test_other_norms_by_peers_end_to_end(norm, eps, attack, tmp_path):
    """Distances in the norm, from the examples themselves; some image is fooled; the suite gives the same votes."""
    images, _ = some(12)
    net = api_models.Small()
    with torch.no_grad():
        net.head.bias -= net(images).mean(0)  # so that no class has all the images
        labels = net(images).argmax(1)
    report = bench.evaluate(net, (images, labels), attacks=attack, norm=norm, eps=eps, out=tmp_path / "one", **CPU)
    (name,) = report.attacks
    assert report.attacks[name].norm == norm and report.attacks[name].eps == eps
    assert report.clean.value == 1 and report.expected.value < 1
    cell = next(cell for cell in report.remade.suite.cells() if cell.attack == name)
    made = load(Store(tmp_path / "one").find(cell.outcomes.examples).read("00000.safetensors"))["images"]
    far = (made - images).flatten(1)
    far = far.abs().sum(1) if norm == "L1" else far.norm(dim=1)
    assert far.max() <= eps * (1 + 1e-5) and far.max() > 0.1 * eps
    report.save(tmp_path / "other")
    done = bench_("run", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    for one in report.remade.suite.cells():
        mine, theirs = (Store(tmp_path / name_).find(one.outcomes) for name_ in ("one", "other"))
        assert mine.read("votes.parquet") == theirs.read("votes.parquet")

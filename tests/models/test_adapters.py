"""Models of other libraries, files and the user's code, loaded for real; where weights are random, it is said."""

from __future__ import annotations

import json
import pickle
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bench import UserError
from bench.lab.compute.passes import Compute
from bench.lab.images import load as data
from bench.lab.weights import build, files
from bench.lab.weights.fetch import NOTE, describe, fetch
from bench.lab.worker import Lab
from bench.models.adapters import checkpoint, robustbench
from bench.models.adapters.randomised import GlobalRandom
from bench.models.adapters.wrappers import Prepared
from bench.models.classifier import Plain
from bench.models.wide_resnet import WideResNet
from bench.recipes import Fetched, Model, Network, Noise, Trained
from bench.store.records import Store
from bench.store.tasks import Settings, Task

SMALL = Network(depth=10, width=1)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_MODELS", raising=False)


def recipe(kind: str, **given: object) -> Fetched:
    return Fetched(**({"kind": kind} | given))  # type: ignore[arg-type]


def some(n: int = 2, size: int = 32) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def refused(recipe: Fetched, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        fetch(recipe, root, download=False)
    return str(caught.value)


def test_the_resnet_that_comes_with_autoattack_is_as_accurate_as_said() -> None:
    images = data.load().take(slice(0, 200))
    model = fetch(recipe("autoattack-example"), Path())
    compute = Compute(torch.device("cpu"), microbatch=100)
    logits = compute.logits(model.realise((200, 3, 32, 32), None), data.as_tensor(images.images))
    assert 0.90 <= (logits.argmax(1) == torch.from_numpy(images.labels)).double().mean() <= 0.97
    assert not any(p.requires_grad for p in model.parameters()) and not any(m.training for m in model.modules())


# -- RobustBench: its own load_model, weights random ---------------------------------------------


def fabricate(name: str, place: Path) -> dict[str, Tensor]:
    """Random weights of a RobustBench architecture at `place`, in the format of its checkpoints."""
    torch.manual_seed(0)
    with robustbench.imported() as utils:
        zoo = utils.all_models[utils.BenchmarkDataset("cifar10")][utils.ThreatModel("Linf")]
        state = zoo[name]["model"]().state_dict()
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, place)
    return dict(state)


@pytest.mark.parametrize("name", ["Carmon2019Unlabeled", "Addepalli2021Towards_RN18"])
def test_robustbench_loads_a_file_in_place_through_its_own_loader(name: str, tmp_path: Path) -> None:
    """The path from a file to a model; the weights are random, so no accuracy is claimed."""
    place = tmp_path / ".bench" / "fetched" / "cifar10" / "Linf" / f"{name}.pt"
    state = fabricate(name, place)
    model = fetch(recipe("robustbench", name=name), tmp_path, download=False)
    assert isinstance(model, Plain) and type(model.net).__module__.startswith("robustbench.")
    loaded = model.net.state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    with torch.no_grad():
        assert model(some(1)).shape == (1, 10)
    assert "autoattack" not in sys.modules and "pkg_resources" not in sys.modules  # lent, and taken away


def test_the_suite_names_models_that_robustbench_has() -> None:
    from bench.suite.reader import load

    suite = load(Path(__file__).parents[2] / "suites" / "robustbench.toml", "full")
    with robustbench.imported() as utils:
        zoo = utils.all_models[utils.BenchmarkDataset("cifar10")][utils.ThreatModel("Linf")]
    assert {weights.name for weights in suite.weights.values()} <= set(zoo)


def test_robustbench_reads_a_file_from_anywhere_and_checks_its_hash(tmp_path: Path) -> None:
    name = "Addepalli2021Towards_RN18"
    fabricate(name, tmp_path / "mine.pt")
    digest = checkpoint.sha256(tmp_path / "mine.pt")
    fetch(recipe("robustbench", name=name, file="mine.pt", sha256=digest), tmp_path, download=False)
    wrong = recipe("robustbench", name=name, file="mine.pt", sha256="0" * 64)
    assert "is not the 000" in refused(wrong, tmp_path)
    other = recipe("robustbench", name="Wong2020Fast", file="mine.pt")
    assert "does not fit RobustBench's Wong2020Fast" in refused(other, tmp_path)


def test_robustbench_without_file_and_network_says_where_to_put_it(tmp_path: Path) -> None:
    said = refused(recipe("robustbench", name="Carmon2019Unlabeled"), tmp_path)
    assert str(tmp_path / ".bench" / "fetched" / "cifar10" / "Linf" / "Carmon2019Unlabeled.pt") in said
    assert "close: Carmon2019Unlabeled" in refused(recipe("robustbench", name="Carmon2019Unlabelled"), tmp_path)
    xcit = refused(recipe("robustbench", name="Debenedetti2022Light_XCiT-S12"), tmp_path)
    assert "Debenedetti2022Light_XCiT-S12.pt" in xcit


def test_a_download_that_the_drive_refused_leaves_nothing(tmp_path: Path) -> None:
    """The drive answers a refused download with a web page; it must not be there as .pt the next time."""

    class Utils:
        @staticmethod
        def download_gdrive_new(drive: str, path: Path) -> None:
            path.write_text("<!DOCTYPE html><html><title>Quota exceeded</title></html>")

    place = tmp_path / "cifar10" / "Linf" / "X.pt"
    with pytest.raises(FileNotFoundError, match="web page"):
        robustbench._fetch(Utils, "X", "id", place, True)
    assert list(place.parent.iterdir()) == []


def test_a_robustbench_that_torchattacks_overwrote_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A site-packages in which one of robustbench's files holds what another wheel brought."""
    package, info = tmp_path / "robustbench", tmp_path / "robustbench-9.9.dist-info"
    package.mkdir(), info.mkdir()
    (package / "__init__.py").write_text("own = True\n")
    digest = robustbench._digest(package / "__init__.py", "sha256")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: robustbench\nVersion: 9.9\n")
    (info / "RECORD").write_text(f"robustbench/__init__.py,sha256={digest},11\nrobustbench-9.9.dist-info/RECORD,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert robustbench.installed() == ("whole", "robustbench 9.9, its own files")
    (package / "__init__.py").write_text("from .old import *\n")
    state, words = robustbench.installed()
    assert state == "overwritten" and "1 of its files" in words
    with pytest.raises(ImportError, match="--force-reinstall"), robustbench.imported():
        pass


# -- timm, torchvision, Hugging Face --------------------------------------------------------------


def test_timm_and_torchvision_from_a_file_with_declared_preprocessing(tmp_path: Path) -> None:
    """Random weights: what is checked is that they arrive, behind the declared resize and normalisation."""
    import torchvision

    from bench.models.adapters.timm import library

    torch.manual_seed(0)
    declared = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "resize": 48, "file": "w.pth"}
    for kind, net in [
        ("timm", library().create_model("resnet18", num_classes=10)),
        ("torchvision", torchvision.models.get_model("resnet18", num_classes=10)),
    ]:
        torch.save({"state_dict": net.state_dict()}, tmp_path / "w.pth")
        model = fetch(recipe(kind, name="resnet18", **declared), tmp_path, download=False)
        images = some()
        bigger = nn.functional.interpolate(images, (48, 48), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(declared[key]).view(3, 1, 1) for key in ("mean", "std"))
        with torch.no_grad():
            assert torch.allclose(model(images), net.eval()((bigger - mean) / std), atol=1e-5)
        assert "set classes" not in refused(recipe(kind, name="resnet18", file="w.pth", classes=7), tmp_path)
        assert "close: " in refused(recipe(kind, name="resnet81", file="w.pth"), tmp_path)
    assert "Put https://" in refused(recipe("torchvision", name="resnet18", classes=1000), tmp_path)


def hub(cache: Path, name: str, config: dict[str, object] | None, state: dict[str, Tensor]) -> None:
    """A repository in Hugging Face's cache, as its client leaves one."""
    revision = "a" * 40
    folder = cache / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision)
    snapshot = folder / "snapshots" / revision
    snapshot.mkdir(parents=True)
    if config is not None:
        (snapshot / "config.json").write_text(json.dumps(config))
    if state:
        save_file(state, snapshot / "model.safetensors")


def test_hugging_face_offline_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    from bench.models.adapters.timm import library

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    torch.manual_seed(0)
    net = library().create_model("resnet18", num_classes=10).eval()
    config = {"architecture": "resnet18", "num_classes": 10, "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    hub(tmp_path / "hub", "someone/theirs", config, net.state_dict())
    model, images = fetch(recipe("huggingface", name="someone/theirs"), tmp_path, download=False), some()
    with torch.no_grad():
        assert torch.allclose(model(images), net((images - 0.5) / 0.25), atol=1e-5)
    ours = WideResNet(10, 1, 10).eval()
    hub(tmp_path / "hub", "someone/ours", None, ours.state_dict())
    model = fetch(recipe("huggingface", name="someone/ours", network=SMALL), tmp_path, download=False)
    with torch.no_grad():
        assert torch.allclose(model(images), ours(images), atol=1e-6)
    hub(tmp_path / "hub", "someone/empty", {"architecture": "resnet18"}, {})
    assert "has no safetensors" in refused(recipe("huggingface", name="someone/empty"), tmp_path)
    assert "not in Hugging Face's cache" in refused(recipe("huggingface", name="someone/else"), tmp_path)
    assert "names no architecture" in refused(recipe("huggingface", name="someone/ours"), tmp_path)


# -- files and the user's own code ----------------------------------------------------------------


def test_a_file_of_our_own_network_in_three_formats(tmp_path: Path) -> None:
    net = WideResNet(10, 1, 10, generator=torch.Generator().manual_seed(3)).eval()
    save_file(net.state_dict(), tmp_path / "a.safetensors")
    torch.save({"state_dict": net.state_dict()}, tmp_path / "b.pt")
    (tmp_path / "c").mkdir()
    files.save(tmp_path / "c", Plain(net, 10).state_dict())
    for name in ("a.safetensors", "b.pt", "c"):
        model = fetch(recipe("file", file=name, network=SMALL), tmp_path)
        with torch.no_grad():
            assert torch.allclose(model(some()), net(some()), atol=1e-6)
    assert "another network" in refused(recipe("file", file="b.pt", network=Network(depth=16, width=1)), tmp_path)
    assert "name one" in refused(recipe("file", file="b.pt"), tmp_path)
    assert "no file" in refused(recipe("file", file="d.pt", network=SMALL), tmp_path)


def test_a_file_with_noise_is_stochastic(tmp_path: Path) -> None:
    noisy = Trained(network=SMALL, noise=Noise())
    (tmp_path / "w").mkdir()
    built = build.build(noisy)
    files.save(tmp_path / "w", built.state_dict())
    model = fetch(recipe("file", file="w", network=SMALL, noise=Noise()), tmp_path)
    one, same = (torch.Generator().manual_seed(1) for _ in range(2))
    assert model.stochastic
    with torch.no_grad():
        assert torch.equal(model(some(), one), built(some(), same))


class Runs:
    """A pickle that would run code when read."""

    def __init__(self, proof: Path) -> None:
        self.proof = str(proof)

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.proof, "w")


@pytest.mark.parametrize("form", ["torch", "pickle", "state"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(form: str, tmp_path: Path) -> None:
    proof, path = tmp_path / "it-ran", tmp_path / "w.pt"
    match form:
        case "torch":
            torch.save(Runs(proof), path)
        case "state":
            torch.save({"state_dict": {"fc.weight": Runs(proof)}}, path)
        case _:
            path.write_bytes(pickle.dumps(Runs(proof)))
    for kind, given in [
        ("file", {"network": SMALL}),
        ("timm", {"name": "resnet18"}),
        ("torchvision", {"name": "resnet18"}),
        ("robustbench", {"name": "Carmon2019Unlabeled"}),
    ]:
        said = refused(recipe(kind, file="w.pt", **given), tmp_path)
        assert "refused" in said and "could run code" in said, kind
    assert not proof.exists()


def test_the_environment_cannot_make_robustbench_read_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    proof = tmp_path / "it-ran"
    torch.save(Runs(proof), tmp_path / "w.pt")
    assert "refused" in refused(recipe("robustbench", name="Carmon2019Unlabeled", file="w.pt"), tmp_path)
    assert not proof.exists()


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"<html>quota</html>", b"PK\x03\x04 broken"])
def test_files_that_are_no_checkpoints(content: bytes, tmp_path: Path) -> None:
    for suffix in (".pt", ".safetensors"):
        (tmp_path / f"w{suffix}").write_bytes(content)
        with pytest.raises(ValueError, match=f"w{suffix}"):
            checkpoint.read(tmp_path / f"w{suffix}")


CODE = """
import torch
from bench.models.classifier import Classifier

class Mine(Classifier):
    classes, stochastic = 4, True
    def realise(self, shape, generator):
        noise = torch.randn(shape[0], 4, generator=generator)
        return lambda images, rows=None: noise if rows is None else noise[rows]

def network(classes=10):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, classes))

def classifier():
    return Mine()

def number():
    return 3
"""


def test_the_users_own_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_models.py").write_text(CODE)
    model = fetch(recipe("python", name="own_models.py:network"), tmp_path)
    with torch.no_grad():
        assert model(some()).shape == (2, 10) and not model.stochastic
    monkeypatch.syspath_prepend(str(tmp_path))
    named = recipe("python", name="own_models:network", arguments={"classes": 5}, classes=5)
    assert fetch(named, tmp_path).classes == 5
    mine = recipe("python", name="own_models.py:classifier", classes=4, stochastic=True)
    assert fetch(mine, tmp_path).stochastic
    for name, words, given in [
        ("own_models.py:classifier", "stochastic = true", {"classes": 4}),
        ("own_models.py:classifier", "set classes = 4", {"stochastic": True}),
        ("own_models.py:number", "returned a int", {}),
        ("own_models.py:nothing", "has no function", {}),
        ("own_models.py:network", "unexpected keyword", {"arguments": {"width": 3}}),
        ("other.py:network", "no file", {}),
        ("no_such_module:network", "cannot be imported", {}),
        ("network", "names no function", {}),
    ]:
        assert words in refused(recipe("python", name=name, **given), tmp_path), words


def test_a_record_names_the_files_and_a_changed_file_is_noticed(tmp_path: Path) -> None:
    save_file(WideResNet(10, 1, 10).state_dict(), tmp_path / "w.safetensors")
    wanted = recipe("file", file="w.safetensors", network=SMALL)
    folder = tmp_path / ".bench" / "work" / "task"
    about, classifier = describe(wanted, folder)
    assert isinstance(classifier, Plain) and not classifier.training
    note = json.loads((folder / NOTE).read_text())
    assert about["fetched"] == note
    assert note["sha256"] == {"w.safetensors": checkpoint.sha256(tmp_path / "w.safetensors")}
    place = Store(tmp_path).place(wanted)
    place.mkdir(parents=True)
    (place / NOTE).write_text((folder / NOTE).read_text())
    fetch(wanted, tmp_path)
    save_file(WideResNet(10, 1, 10).state_dict(), tmp_path / "w.safetensors")
    assert "the file w.safetensors is not the one that the numbers here were made with" in refused(wanted, tmp_path)


def test_a_model_is_loaded_once_to_be_described_and_used(tmp_path: Path) -> None:
    """Not once for each: reading a large checkpoint takes long. A second model of the same weights has its own."""
    (tmp_path / "counting.py").write_text(
        CODE.replace("    return Mine()", "    calls.append(1)\n    return Mine()\ncalls = []")
    )
    wanted = recipe("python", name="counting.py:classifier", classes=4, stochastic=True)
    lab = Lab(Settings(tmp_path))
    lab.perform(Task(wanted, None, tmp_path / ".bench" / "work" / "task"))
    calls = next(module for name, module in sys.modules.items() if name.startswith("model_counting")).calls
    first = lab.model(Model(weights=wanted))
    assert len(calls) == 1 and lab.model(Model(weights=wanted)) is first
    smoothed = lab.model(Model(weights=wanted, sigma="1/10"))
    assert len(calls) == 2 and smoothed.base is not first


def test_a_described_model_is_not_used_once_the_record_is_of_another(tmp_path: Path) -> None:
    wanted = recipe("file", file="w.safetensors", network=SMALL)
    lab, place = Lab(Settings(tmp_path)), Store(tmp_path).place(wanted)
    for seed in (0, 1):
        net = WideResNet(10, 1, 10, generator=torch.Generator().manual_seed(seed))
        save_file(net.state_dict(), tmp_path / "w.safetensors")
        if seed == 0:
            lab.perform(Task(wanted, None, tmp_path / ".bench" / "work" / "task"))
    describe(wanted, place, tmp_path)  # by another worker, after the file was replaced
    used = lab.model(Model(weights=wanted))
    assert torch.equal(used.net.conv1.weight, net.conv1.weight)


# -- what stands in front of networks -------------------------------------------------------------


def test_a_network_that_draws_from_the_global_generators_is_fenced() -> None:
    class Draws(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            shift = np.random.rand() + random.random()
            return torch.randn(len(images), 3) + shift + images.mean()

    model = GlobalRandom(Draws(), 3)
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    images = some(6, 4)
    draws = [model.realise(images.shape, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    one, same, other = (draw(images) for draw in draws)
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(one, draws[0](images))  # a draw is fixed
    first, second = (draws[0](images[:3], rows) for rows in (torch.arange(3), torch.arange(3, 6)))
    assert not torch.allclose(first, second)  # another part of the batch has other noise, not the same again
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1], before[2]) == (random.getstate(), np.random.get_state()[1].tolist())
    with pytest.raises(ValueError, match="generator"):
        model.realise(images.shape, None)


def test_preprocessing_is_differentiated_through() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2)).double()
    model = Prepared(net, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), 8).double()
    images = torch.rand(1, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, (images,))
    for mean, std in [((0.1,), None), ((0.1,), (0.0,)), ((0.1, 0.2), (1.0,))]:
        with pytest.raises(ValueError, match="std"):
            Prepared(net, mean, std)

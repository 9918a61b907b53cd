"""Strangers' models: each kind of mistake gets its words, each kind of habit its right answer."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign import nets
from torch import Tensor, nn

from bench import Refused, UserError
from bench.lab.compute.passes import Compute, Disconnected
from bench.lab.craft import craft
from bench.lab.examine import noise, outputs
from bench.lab.foreign.ask import Asked, fits, steady
from bench.lab.images import load as images_of
from bench.lab.judge import Judged, judge
from bench.lab.streams import Streams
from bench.lab.weights.fetch import fetch, load, name_of
from bench.models.adapters.randomised import GlobalRandom
from bench.models.classifier import Classifier
from bench.recipes import PGD, Fetched, Peer, Square, Stopping
from bench.suite.files import placed

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    nets(folder)
    return folder


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return images_of.as_tensor(images_of.load().images[:16])


def recipe(root: Path, name: str, **given: object) -> Fetched:
    made, wrong = placed(Fetched(kind="python", name=f"nets.py:{name}", **given), [root])  # type: ignore[arg-type]
    assert not wrong
    return made


def met(root: Path, pixels: Tensor, name: str, **given: object) -> tuple[Classifier, Asked]:
    asked = recipe(root, name, **given)
    model = fetch(asked, root)
    fits(model, pixels, 10, name_of(asked))
    return model, steady(model, pixels, name_of(asked))


REFUSED = {
    # outputs
    "many": "gives 400 logits an image, the data has 10 classes",
    "few": "gives 3 logits an image, the data has 10 classes",
    "single": "return two logits",
    "flat": "one number an image, not logits",
    "labels": "a class an image, not logits",
    "maps": "shape (8, 10, 1, 1) for 8 images",
    "short": "shape (7, 10) for 8 images",
    "pair": "returned a tuple of () and (8, 10), not logits (say which are the logits: output = 0",
    "listed": "returned a list of (8, 10)",
    "named": 'output = "logits"',
    "thing": 'output = "logits"',
    "nothing": "returned a NoneType, not logits",
    "array": "returned a ndarray, not logits",
    "holes": "NaN or infinite for 8 of 8 images",
    "huge": "NaN or infinite for 8 of 8 images",
    # noise that is not declared
    "torch_noise": "drawn from the generator of torch: this noise is not declared",
    "torch_dropout": "stochastic = true",
    "numpy_noise": "drawn from the generator of numpy",
    "random_shift": "drawn from the generator of random",
    "faint_noise": "drawn from the generator of torch",
    "weight_noise": "stochastic = true",
    "own_torch": "passes over the same images differ",
    "own_numpy": "passes over the same images differ",
    "own_old_numpy": "passes over the same images differ",
    "own_random": "passes over the same images differ",
    "module_dice": "passes over the same images differ",
    "rarely": "passes over the same images differ",
    "secret": "passes over the same images differ",
    # state and batches
    "seldom": "change as it is asked",
    "counts": "change as it is asked",
    "trains": "switches it to training mode",
    "mates": "with the images beside it",
    "softly": "with the images beside it",
    "eights": "answers 8 images, and fails at a batch of 1: your code raised AssertionError",
    "ones": "answers 8 images, and fails at a batch of 1",
    # code that is no network
    "raises": "your code raised KeyError while nets.py:raises was loaded: 'weights'",
    "leaves": "your code called sys.exit(3) while nets.py:leaves was loaded",
    "leaves_later": "your code called sys.exit('enough') while 8 images went through it",
    "fails_later": "your code raised RuntimeError while 8 images went through it: mat1 and mat2 shapes",
    "deep": "your code raised RecursionError",
    "wants_gpu": "map_location='cpu'",
    "wants_gpu_later": "this machine has no GPU for it",
    "number": "returned a int, not a torch.nn.Module",
    "weights": 'kind = "file"',
    "needs": "if it makes the network, give its arguments",
    "stranger": "No module named 'not_installed_anywhere'",
    "absent": "has no function absent",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_judged_is_refused_in_words(name: str, root: Path, pixels: Tensor) -> None:
    with pytest.raises(UserError) as caught:
        met(root, pixels, name)
    assert REFUSED[name] in str(caught.value), str(caught.value)
    assert f"weights python nets.py:{name}" in str(caught.value)


def test_a_users_traceback_is_shown_from_their_first_line_on(root: Path, pixels: Tensor) -> None:
    with pytest.raises(Refused) as caught:
        met(root, pixels, "fails_later")
    said = str(caught.value)
    assert "nets.py" in said and "def fail(x)" in said
    assert "bench/lab" not in said and "_call_impl" not in said


WORKS = [
    "plain", "logged", "forgets_eval", "viewer", "squeezes", "checks_range", "parallel", "kind", "function", "listens",
    "ready", "looks", "quantised", "classes_named", "frozen", "bytes_inside", "rounded", "cut", "through_numpy",
]  # fmt: skip


@pytest.mark.parametrize("name", WORKS)
def test_what_can_be_judged_is_without_a_word(name: str, root: Path, pixels: Tensor) -> None:
    model, asked = met(root, pixels, name)
    assert asked == ("float32", "logits", ())
    assert not model.stochastic and not any(module.training for module in model.modules())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["scripted", "traced"])
def test_compiled_networks_are_networks(name: str, root: Path, pixels: Tensor) -> None:
    assert met(root, pixels, name)[1].outputs == "logits"


def test_what_a_network_prints_is_no_hindrance(root: Path, pixels: Tensor, capsys: pytest.CaptureFixture[str]) -> None:
    met(root, pixels, "chatty")
    said = capsys.readouterr()
    assert "hello" in said.err and not said.out, "so that --json stays JSON"


@pytest.mark.parametrize(
    ("name", "precision", "outputs", "words"),
    [
        ("chances", "float32", "probabilities", "cross-entropy of a softmax hides gradients"),
        ("sixteen", "float16", "logits", "images are converted"),
        ("brain", "bfloat16", "logits", "images are converted"),
        ("sixtyfour", "float64", "logits", "images are converted"),
        ("scribbles", "float32", "logits", "given a copy"),
        ("clamps", "float32", "logits", "given a copy"),
    ],
)
def test_habits_are_named(name: str, precision: str, outputs: str, words: str, root: Path, pixels: Tensor) -> None:
    model, asked = met(root, pixels, name)
    assert asked[:2] == (precision, outputs) and words in " ".join(asked.notes)
    before = pixels.clone()
    compute = Compute(CPU)
    logits = compute.logits(model.realise(pixels.shape, None), pixels)
    assert logits.dtype == torch.float32 and torch.equal(pixels, before)
    loss, labels = nn.CrossEntropyLoss(reduction="none"), torch.zeros(16, dtype=torch.long)
    _, slope, _ = compute.gradient(model.realise(pixels.shape, None), pixels, labels, loss)
    assert slope.dtype == torch.float32 and slope.abs().sum() > 0 and torch.equal(pixels, before)


def test_declared_outputs_are_picked(root: Path, pixels: Tensor) -> None:
    plain = met(root, pixels, "plain")[0](pixels)
    for name, output in (("pair", 1), ("listed", 0), ("named", "logits"), ("thing", "logits")):
        assert torch.equal(met(root, pixels, name, output=output)[0](pixels), plain)
    for name, output in (("pair", 2), ("named", "logit"), ("thing", "loss"), ("plain", "logits")):
        with pytest.raises(Refused, match="is not in what forward returned"):
            met(root, pixels, name, output=output)


def test_a_map_names_the_logits_of_the_classes(root: Path, pixels: Tensor) -> None:
    chosen = [399, 3, 20, 1, 0, 7, 8, 9, 10, 11]
    all_of_them = fetch(recipe(root, "many", classes=400), root)(pixels)
    assert torch.equal(met(root, pixels, "many", outputs=chosen)[0](pixels), all_of_them[:, chosen])
    with pytest.raises(Refused, match="outputs names logit 400, and it gives 400"):
        met(root, pixels, "many", outputs=[400, *chosen[1:]])
    with pytest.raises(Refused, match="it has 400 classes, the data has 10"):
        met(root, pixels, "many", classes=400)


DECLARED = {
    "torch_noise": False, "torch_dropout": False, "random_shift": False, "weight_noise": False, "keeps": False,
    "own_torch": False,
    "own_random": False, "faint_noise": False, "numpy_noise": True, "own_numpy": True, "own_old_numpy": True,
    "module_dice": True,
}  # fmt: skip


@pytest.mark.parametrize("name", DECLARED)
def test_declared_noise_is_judged_alike_in_every_microbatch(name: str, root: Path, pixels: Tensor) -> None:
    model, asked = met(root, pixels, name, stochastic=True)
    assert isinstance(model, GlobalRandom) and model.apart is DECLARED[name]
    assert bool(asked.notes) is DECLARED[name], "noise for a batch is slow, and said to be"
    draw = model.realise(pixels.shape, torch.Generator().manual_seed(1))
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    with torch.no_grad():
        whole, rows = draw(pixels), torch.tensor([5, 0, 15])
        assert torch.equal(whole, draw(pixels)), "a draw is fixed"
        assert (draw(pixels[rows], rows) - whole[rows]).abs().max() < 1e-4, "whatever the batch"
        other = model.realise(pixels.shape, torch.Generator().manual_seed(2))(pixels)
        assert not torch.equal(whole, other)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1], before[2]) == (random.getstate(), np.random.get_state()[1].tolist())


@pytest.mark.parametrize("name", ["torch_noise", "random_shift", "weight_noise", "numpy_noise", "own_torch"])
def test_declared_noise_bears_no_false_mark(name: str, root: Path, pixels: Tensor) -> None:
    model, _ = met(root, pixels, name, stochastic=True)
    streams, compute = Streams(0, 0, CPU), Compute(CPU, microbatch=8)
    case = outputs.Case(model, pixels, torch.zeros(16, dtype=torch.long), streams, compute)
    for check in (outputs.modes, noise.randomness, noise.replay, outputs.batch_mates):
        assert check(case).verdict == "ok", check(case)


def test_rows_of_one_draw_have_noise_of_their_own(root: Path, pixels: Tensor) -> None:
    model, _ = met(root, pixels, "torch_noise", stochastic=True)
    same = pixels[:1].expand(4, -1, -1, -1)
    with torch.no_grad():
        said = model.realise(same.shape, torch.Generator().manual_seed(1))(same)
    assert len({tuple(row.tolist()) for row in said}) == 4


def test_votes_do_not_depend_on_the_microbatch(root: Path, pixels: Tensor) -> None:
    model, _ = met(root, pixels, "torch_noise", stochastic=True)
    shard = Judged(
        pixels, torch.zeros(16, dtype=torch.long), np.arange(16), np.zeros(16, np.float32), np.full(16, -1, np.int8)
    )
    one, other = (
        judge(model, shard, 16, Stopping(), Streams(0, 0, CPU), Compute(CPU, microbatch=size)) for size in (16, 3)
    )
    assert (one.counts == other.counts).all()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("secret", "under one seed its answers differ"),
        ("rarely", "under one seed its answers differ"),
        ("seldom", "change as it is asked"),
    ],
)
def test_noise_that_no_seed_repeats_is_refused_even_if_declared(
    name: str, words: str, root: Path, pixels: Tensor
) -> None:
    with pytest.raises(Refused, match=words):
        met(root, pixels, name, stochastic=True)


def test_a_seed_of_the_networks_own_is_left_to_it(root: Path, pixels: Tensor) -> None:
    model, asked = met(root, pixels, "frozen", stochastic=True)
    assert "five draws are alike" in " ".join(asked.notes)
    bare = fetch(recipe(root, "frozen"), root)
    with torch.no_grad():
        draw = model.realise(pixels.shape, torch.Generator().manual_seed(1))
        assert torch.equal(draw(pixels), bare(pixels))


@pytest.mark.parametrize("name", ["bytes_inside", "cut", "through_numpy"])
def test_an_attack_by_gradient_needs_one(name: str, root: Path, pixels: Tensor) -> None:
    model, _ = met(root, pixels, name)
    labels, streams, compute = torch.zeros(16, dtype=torch.long), Streams(0, 0, CPU), Compute(CPU)
    with pytest.raises(Disconnected, match="does not depend differentiably"):
        craft(PGD(steps=1), model, pixels, labels, streams, compute)
    with pytest.raises(Refused, match="does not depend differentiably"):
        craft(Peer(kind="torchattacks", name="FGSM"), model, pixels, labels, streams, compute)
    assert craft(Square(queries=3), model, pixels, labels, streams, compute).images.shape == pixels.shape


# -- what a record says of code -------------------------------------------------------------------------


def test_the_state_of_a_loaded_network_is_part_of_what_its_record_says(tmp_path: Path) -> None:
    """Two checkpoints of one name, which nobody has declared: another state, and the file is named."""
    more = "\ndef loads():\n    net = Small()\n    net.load_state_dict(torch.load('%s'))\n    return net\n" % (
        tmp_path / "w.pt"
    )
    nets(tmp_path, more)
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = fetch(recipe(tmp_path, "plain"), tmp_path).net.net.state_dict()  # type: ignore[union-attr]
        torch.save(
            {name: torch.rand_like(t) if t.is_floating_point() else t for name, t in state.items()}, tmp_path / "w.pt"
        )
        states.append(load(recipe(tmp_path, "loads"), tmp_path)[0])
    assert states[0]["state"] != states[1]["state"]
    assert states[0]["read"].keys() == {"w.pt"} and states[0]["read"] != states[1]["read"]
    declared = recipe(tmp_path, "loads", files=["w.pt"])
    assert load(declared, tmp_path)[0]["read"] == {}
    torch.save({}, tmp_path / "w.pt")
    assert recipe(tmp_path, "loads", files=["w.pt"]).key != declared.key
    with pytest.raises(Refused, match="edited since the suite was read"):
        load(declared, tmp_path)
    with pytest.raises(Refused, match=r"there is no .*v\.pt, which files"):
        load(recipe(tmp_path, "plain", files=["v.pt"]), tmp_path)


def test_a_network_made_at_random_is_the_same_at_each_loading(tmp_path: Path) -> None:
    nets(tmp_path, "\ndef chance(): return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))\n")
    before = torch.get_rng_state()
    one, two = (load(recipe(tmp_path, "chance"), tmp_path)[0]["state"] for _ in range(2))
    assert one == two and torch.equal(before, torch.get_rng_state())


def test_a_loaders_folder_is_on_its_path_and_other_models_modules_are_not_taken(tmp_path: Path, pixels: Tensor) -> None:
    """Two folders, each with a sibling of one name; the second is edited within the second, at equal length."""
    made = {}
    for folder, size in (("one", 3), ("two", 4)):
        nets(tmp_path / folder, "\nimport sibling\ndef built(): return Small(width=sibling.width())\n")
        (tmp_path / folder / "sibling.py").write_text(f"def width(): return {size}\n")
        made[folder] = fetch(recipe(tmp_path / folder, "built"), tmp_path)
        assert made[folder].net.net.first.out_channels == size  # type: ignore[union-attr]
    before = recipe(tmp_path / "two", "built")
    (tmp_path / "two" / "sibling.py").write_text("def width(): return 5\n")
    after = recipe(tmp_path / "two", "built")
    assert after.key != before.key
    assert fetch(after, tmp_path).net.net.first.out_channels == 5  # type: ignore[union-attr]
    assert not list(tmp_path.rglob("__pycache__"))


def test_an_import_that_the_source_does_not_show_is_refused(tmp_path: Path) -> None:
    hidden = "\nimport importlib\ndef built():\n    importlib.import_module('hid' + 'den')\n    return Small()\n"
    nets(tmp_path, hidden)
    (tmp_path / "hidden.py").write_text("")
    with pytest.raises(Refused, match=r'files = \["hidden.py"\]'):
        load(recipe(tmp_path, "built"), tmp_path)
    load(recipe(tmp_path, "plain", files=["hidden.py"]), tmp_path)


ATTACKS = """
import torch
from steps import size

class Grey:
    def __init__(self, share=1.0):
        self.share = share
    def __call__(self, model, images, labels, eps):
        return images + (0.5 - images).clamp(-eps, eps) * self.share * size()

def noise(model, images, labels, eps, scale=1):
    return (images + scale * eps * torch.randn_like(images).sign()).clamp(0, 1)

def broken(model, images, labels, eps):
    return images / nothing

def leaves(model, images, labels, eps):
    raise SystemExit(0)
"""


def test_own_attacks_are_named_like_own_models(tmp_path: Path, root: Path, pixels: Tensor) -> None:
    (tmp_path / "attacks.py").write_text(ATTACKS)
    (tmp_path / "steps.py").write_text("def size(): return 1\n")
    model, labels = met(root, pixels, "plain")[0], torch.zeros(16, dtype=torch.long)

    def own(name: str, **given: object) -> Peer:
        made, _ = placed(Peer(kind="python", name=f"attacks.py:{name}", **given), [tmp_path])  # type: ignore[arg-type]
        return made

    def run(attack: Peer) -> Tensor:
        return craft(attack, model, pixels, labels, Streams(0, 0, CPU), Compute(CPU)).images

    grey = own("Grey")
    assert torch.equal(run(grey), pixels + (0.5 - pixels).clamp(-8 / 255, 8 / 255))
    assert (run(own("noise", arguments={"scale": 0.5})) - pixels).abs().amax() <= 4 / 255 + 1e-6
    for name, words in {
        "broken": "your code raised NameError while it attacked: name 'nothing' is not defined",
        "leaves": "your code called sys.exit(0) while it attacked",
        "none": "has no function none",
    }.items():
        with pytest.raises(Refused) as caught:
            run(own(name))
        assert words in str(caught.value)
    (tmp_path / "steps.py").write_text("def size(): return 0\n")
    with pytest.raises(Refused, match="edited since the suite was read"):
        run(grey)
    assert own("Grey").key != grey.key and torch.equal(run(own("Grey")), pixels)


def test_diagnosis_names_what_a_judge_refuses(root: Path, pixels: Tensor) -> None:
    """A network that switches itself to training mode is examined, not stumbled over."""
    asked = recipe(root, "trains")
    model = fetch(asked, root)
    fits(model, pixels, 10, name_of(asked))
    model.eval()
    case = outputs.Case(model, pixels, torch.zeros(16, dtype=torch.long), Streams(0, 0, CPU), Compute(CPU))
    assert outputs.modes(case).verdict == "suspicious" and not model.net.training  # type: ignore[union-attr]

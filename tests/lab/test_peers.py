"""Other libraries' attacks: by declaration alone, on our draws, fenced, and caught where they break the rules."""

from __future__ import annotations

import random
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import NoisyLinear
from torch import Tensor, nn

from bench import UserError
from bench.lab.attacks import peers
from bench.lab.attacks.peers.fence import Drawn
from bench.lab.compute.passes import Compute
from bench.lab.craft import craft
from bench.lab.images import load as data
from bench.lab.streams import Streams
from bench.lab.weights.fetch import fetch
from bench.models.classifier import Classifier, Plain
from bench.recipes import Fetched, Peer

CPU = torch.device("cpu")
STREAMS = Streams(0, 0, CPU)


def batch(n: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(n, 3, 4, 4, generator=generator)
    return images, torch.arange(n) % 5


def peer(kind: str, name: str, **given: object) -> Peer:
    return Peer(**({"kind": kind, "name": name, "arguments": {}} | given))  # type: ignore[arg-type]


def compute(notes: list[str] | None = None, microbatch: int = 512) -> Compute:
    return Compute(CPU, microbatch=microbatch, note=(notes if notes is not None else []).append)


@pytest.fixture(scope="module")
def resnet() -> tuple[Classifier, Tensor, Tensor]:
    """The ResNet-18 that comes with AutoAttack, and test images that it gets right."""
    images = data.load()
    model = fetch(Fetched(kind="autoattack-example"), Path())
    return model, data.as_tensor(images.images[:8]), torch.from_numpy(images.labels[:8])


# Ten families: sign of one gradient, projected steps, momentum, input diversity, translation, variance
# reduction, AutoPGD, query-based, decision boundary, minimum norm. (class, norm, eps, arguments)
TEN = [
    ("FGSM", "Linf", "8/255", {}),
    ("PGD", "Linf", "8/255", {"steps": 2}),
    ("MIFGSM", "Linf", "8/255", {"steps": 2}),
    ("DIFGSM", "Linf", "8/255", {"steps": 2}),
    ("TIFGSM", "Linf", "8/255", {"steps": 2}),
    ("VMIFGSM", "Linf", "8/255", {"steps": 1, "N": 1}),
    ("APGD", "Linf", "8/255", {"steps": 2}),
    ("Square", "Linf", "8/255", {"n_queries": 5}),
    ("PGDL2", "L2", "0.5", {"steps": 2}),
    ("CW", "L2", "0.5", {"steps": 2}),
]


@pytest.mark.parametrize(("name", "norm", "eps", "arguments"), TEN, ids=[name for name, *_ in TEN])
def test_ten_torchattacks_classes_run_by_declaration_alone(resnet, name, norm, eps, arguments) -> None:
    source, images, labels = resnet
    attack = peer("torchattacks", name, norm=norm, eps=eps, arguments=arguments)
    made = craft(attack, source, images[:2], labels[:2], STREAMS, compute())
    length = peers.distance(norm, made.images - images[:2])
    assert (length <= float(attack.eps) + 2e-6).all()
    wrong = compute().logits(source.realise(images[:2].shape, None), made.images).argmax(1) != labels[:2]
    assert torch.equal(made.claimed.bool(), wrong)
    if name in ("FGSM", "PGD", "MIFGSM", "APGD", "PGDL2"):
        assert wrong.all()  # an undefended network withstands none of these


def test_pgd_fools_what_a_formula_says_it_must() -> None:
    """On a linear model PGD reaches the corner of the ball: the closed form of the worst margin."""
    source, (images, labels) = NoisyLinear(0.0, 2), batch(64)
    labels = labels % 2
    images = images * 0.4 + 0.3  # away from 0 and 1, where the box would cut the ball
    eps = 0.01
    gap = (source.weight[1] - source.weight[0]) * (1 - 2 * labels.unsqueeze(1))
    margin = -(images.flatten(1) * gap).sum(1)
    fooled = margin < eps * gap.abs().sum(1)
    assert 0.2 < fooled.double().mean() < 0.95
    for kind, name, arguments in [
        ("torchattacks", "PGD", {"alpha": 0.01, "steps": 3}),
        ("foolbox", "LinfPGD", {"abs_stepsize": 0.02, "steps": 3}),
        ("autoattack", "custom", {"attacks": ["apgd-ce"], "apgd": {"n_iter": 10, "n_restarts": 1}}),
    ]:
        if kind == "foolbox":
            pytest.importorskip("foolbox")
        made = craft(peer(kind, name, eps="0.01", arguments=arguments), source, images, labels, STREAMS, compute())
        assert torch.equal(made.claimed.bool(), fooled), kind


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_autoattack_keeps_each_norm(norm) -> None:
    source, (images, labels) = NoisyLinear(0.0), batch()
    eps = {"Linf": "0.05", "L2": "0.4", "L1": "2"}[norm]
    arguments = {"attacks": ["apgd-ce", "square"], "apgd": {"n_iter": 10, "n_restarts": 1}, "square": {"n_queries": 20}}
    made = craft(
        peer("autoattack", "custom", norm=norm, eps=eps, arguments=arguments),
        source,
        images,
        labels,
        STREAMS,
        compute(),
    )
    length = peers.distance(norm, made.images - images)
    assert (length > 0).any()
    assert torch.equal(length[made.claimed == 0], torch.zeros_like(length[made.claimed == 0]))


SMALL = {"apgd": {"n_iter": 10, "n_restarts": 2, "eot_iter": 4}, "apgd_targeted": {"n_iter": 5, "n_target_classes": 3},
         "fab": {"n_iter": 5, "n_target_classes": 3}, "square": {"n_queries": 20}}  # fmt: skip


@pytest.mark.parametrize("part", ["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"])
def test_autoattack_hands_over_its_iterate_where_no_draw_was_wrong(part) -> None:
    """On a noisy source it returned the clean image there, and fresh draws then scored that clean image."""
    source = NoisyLinear(0.5)
    images = batch(16)[0]
    labels = (images.flatten(1) @ source.weight.T).argmax(1)
    given = {"eps": "0.004", "arguments": {"attacks": [part]} | SMALL}
    scored = craft(peer("autoattack", "custom", **given), source, images, labels, STREAMS, compute())
    published = peer("autoattack", "custom, as published", **given)
    itself = craft(published, source, images, labels, STREAMS, compute())
    moved = [(made.images != images).flatten(1).any(1) for made in (scored, itself)]
    assert torch.equal(moved[1], itself.claimed.bool() & moved[1]) and not moved[1].all(), "AutoAttack as it is"
    if not part.startswith("fab"):  # which looks for the nearest wrong image, and has none to hand over
        assert moved[0].all()

    def left(made) -> float:
        clear = made.images.flatten(1) @ source.weight.T
        own = clear.gather(1, labels[:, None])
        lead = (own - clear.scatter(1, labels[:, None], -torch.inf)).amin(1)
        return float(lead.mean())

    assert left(scored) <= left(itself) + (0 if part.startswith("fab") else -1e-3)


def test_autoattack_as_published_has_its_own_key_and_says_what_runs() -> None:
    one, other = peer("autoattack", "rand"), peer("autoattack", "rand, as published")
    assert one.key != other.key
    assert peers.effective(other)["version"] == "rand, as published"
    assert peers.effective(other)["attacks"] == peers.effective(one)["attacks"] == ["apgd-ce", "apgd-dlr"]


def test_every_call_is_a_fresh_draw_though_the_library_seeds_the_generator() -> None:
    source, (images, labels) = NoisyLinear(1.0), batch()
    torch.manual_seed(5)
    arguments = {"attacks": ["apgd-ce"], "apgd": {"n_iter": 5}}
    attack = peer("autoattack", "custom, as published", eps="0.01", arguments=arguments)
    made = craft(attack, source, images, labels, STREAMS, compute())
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))  # our global state was given back
    drawn = [noise for noise in source.drawn if len(noise) == len(images)]
    assert len(drawn) > 5
    assert len({float(noise[0, 0]) for noise in drawn}) == len(drawn)  # none twice, whatever was seeded
    again = NoisyLinear(1.0)
    same = craft(attack, again, images, labels, STREAMS, compute())
    assert torch.equal(made.images, same.images)
    other = craft(attack, NoisyLinear(1.0), images, labels, Streams(1, 0, CPU), compute())
    assert not torch.equal(made.images, other.images)


@pytest.mark.parametrize(
    "attack",
    [
        peer("torchattacks", "PGD", arguments={"steps": 3}),
        peer("torchattacks", "FAB", arguments={"steps": 3}),  # backward several times through one graph
        peer("torchattacks", "DeepFool", norm="L2", eps="0.5", arguments={"steps": 3}),
        peer("autoattack", "custom", arguments={"attacks": ["apgd-dlr"], "apgd": {"n_iter": 3}}),
    ],
    ids=lambda attack: attack.name,
)
def test_the_microbatch_does_not_matter(attack) -> None:
    (images, labels), made, counts = batch(), [], []
    for size in (512, 3):
        at = compute(microbatch=size)
        made.append(craft(attack, NoisyLinear(0.5), images, labels, STREAMS, at).images)
        counts.append(at.backwards)
    assert (made[0] - made[1]).abs().max() < 1e-6
    assert counts[0] == counts[1] > 0


def test_effective_says_what_runs() -> None:
    plain = peers.effective(peer("torchattacks", "AutoAttack"))
    assert [part["attack"] for part in plain["attacks"]] == ["APGD", "APGDT", "FAB", "Square"]
    assert [part["steps"] for part in plain["attacks"][:3]] == [100, 100, 100]
    assert peers.effective(peer("torchattacks", "APGD"))["steps"] == 100
    assert peers.effective(peer("torchattacks", "APGD", arguments={"steps": 7}))["steps"] == 7
    assert peers.effective(peer("torchattacks", "PGD", arguments={"alpha": "2/255"}))["alpha"] == 2 / 255
    standard = peers.effective(peer("autoattack", "standard"))
    assert standard["attacks"] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert (standard["apgd"]["n_iter"], standard["apgd"]["n_restarts"], standard["square"]["n_queries"]) == (
        100,
        1,
        5000,
    )
    rand = peers.effective(peer("autoattack", "rand"))
    assert (rand["attacks"], rand["apgd"]["eot_iter"]) == (["apgd-ce", "apgd-dlr"], 20)
    assert peers.effective(peer("autoattack", "standard"), classes=5)["apgd_targeted"]["n_target_classes"] == 4


def test_an_attack_without_eps_counts_only_within_it() -> None:
    source, (images, labels) = NoisyLinear(0.0), batch(16)
    lost: list[str] = []
    none: list[str] = []
    near = peer("torchattacks", "DeepFool", norm="L2", eps="1/20")
    far = peer("torchattacks", "DeepFool", norm="L2", eps=20)
    tight = craft(near, source, images, labels, STREAMS, compute(lost))
    wide = craft(far, source, images, labels, STREAMS, compute(none))
    assert (peers.distance("L2", wide.images - images) > 0.05).any()
    assert (peers.distance("L2", tight.images - images) <= 0.05).all()
    assert wide.claimed.sum() > tight.claimed.sum()
    assert any("count as not found" in note for note in lost) and not none


# -- the protocol of kind = "python", and attacks that break it ---------------------------------


class Sign:
    """A step of any size along the gradient's sign: right for size <= eps."""

    def __init__(self, size: float = 0.01) -> None:
        self.size = size

    def __call__(self, logits: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        leaf = images.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(logits(leaf), labels), leaf)
        return (images + self.size * slope.sign()).clamp(0, 1)


class Noisy(Sign):
    """Prints, warns, draws from every global generator, sets a trace function: none of it may get out."""

    def __call__(self, logits: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        print("loud")
        print("loud", file=sys.stderr)
        warnings.warn("mind the gap", stacklevel=1)
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
        sys.settrace(None)
        logits.eval().to(images.device)
        return super().__call__(logits, images, labels, eps)


class WrongShape(Sign):
    def __call__(self, logits: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        return images[:-1]


class NotANumber(Sign):
    def __call__(self, logits: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        return images / 0 * 0


class WritesInput(Sign):
    def __call__(self, logits: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        return images.add_(0.001).clamp_(0, 1)


class ChangesMode(Sign):
    def __call__(self, logits: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        logits.train()
        return images


class Reaches(Sign):
    """Gets at the network behind the wrapper, which takes intent, and changes it."""

    def __call__(self, logits: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        (source,) = logits._hidden  # type: ignore[union-attr, misc]
        with torch.no_grad():
            next(source.parameters()).mul_(2)  # type: ignore[union-attr]
        return images


class Fails(Sign):
    def __call__(self, logits: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        raise KeyError("of its own")


class RunsOut(Sign):
    """Out of memory until the microbatch is 2."""

    def __call__(self, logits: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        if logits.compute.microbatch > 2:  # type: ignore[union-attr]
            raise RuntimeError("CUDA out of memory")
        return super().__call__(logits, images, labels, eps)


def here(kind: type, **arguments: object) -> Peer:
    return peer("python", f"{__name__}:{kind.__name__}", eps="0.01", arguments=arguments)


@pytest.fixture(autouse=True)
def _findable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])


def test_a_class_that_follows_the_protocol_is_an_attack() -> None:
    source, (images, labels) = NoisyLinear(0.0), batch()
    made = craft(here(Sign), source, images, labels, STREAMS, compute())
    assert torch.allclose(made.images, Sign()(Drawn(source, STREAMS, compute()), images, labels, 0.01))


def test_nothing_gets_through_the_fence(capfd) -> None:
    (images, labels), notes = batch(), []
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    trace = sys.gettrace()
    craft(here(Noisy), NoisyLinear(0.3), images, labels, STREAMS, compute(notes))
    assert sys.gettrace() is trace
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1], before[2]) == (random.getstate(), np.random.get_state()[1].tolist())
    assert capfd.readouterr() == ("", "")
    assert notes == [f"attack python.{__name__}:Noisy: mind the gap"]


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        (Sign, {"size": 0.02}, "more than Linf eps"),
        (WrongShape, {}, "shape (7, 3, 4, 4)"),
        (NotANumber, {}, "NaN"),
        (WritesInput, {}, "wrote into the images"),
        (ChangesMode, {}, "changed the model's mode"),
        (Reaches, {}, "changed the model's mode or parameters"),
        (Fails, {}, "raised KeyError while it attacked: 'of its own'"),
        (Sign, {"length": 1}, "TypeError"),
    ],
)
def test_an_attack_that_breaks_the_rules_is_named(kind, arguments, words) -> None:
    images, labels = batch()
    with pytest.raises(UserError) as caught:
        craft(here(kind, **arguments), NoisyLinear(0.0), images, labels, STREAMS, compute())
    assert words in str(caught.value) and f"python.{__name__}:{kind.__name__}" in str(caught.value)


def test_out_of_memory_begins_again_with_smaller_batches() -> None:
    (images, labels), notes = batch(), []
    at = compute(notes)
    made = craft(here(RunsOut), NoisyLinear(0.2), images, labels, STREAMS, at)
    assert at.microbatch == 2 and all("out of memory" in note for note in notes) and notes
    whole = craft(here(Sign), NoisyLinear(0.2), images, labels, STREAMS, compute())
    assert (made.images - whole.images).abs().max() < 1e-6


def test_the_source_keeps_its_mode_and_its_module() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 5)).eval().requires_grad_(False)
    net[1].train()  # a defence may keep a layer in training mode
    images, labels = batch()
    craft(peer("torchattacks", "PGD", arguments={"steps": 2}), Plain(net, 5), images, labels, STREAMS, compute())
    assert net[1].training and not net[2].training


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (peer("torchattacks", "PDG"), "did you mean 'PGD'"),
        (peer("torchattacks", "PGD", arguments={"step": 3}), "did you mean 'steps'"),
        (peer("torchattacks", "PGD", arguments={"eps": 0.1}), "declare eps"),
        (peer("torchattacks", "PGDL2"), 'set norm = "L2"'),
        (peer("torchattacks", "LGV"), "joins other attacks"),
        (peer("autoattack", "standart"), "did you mean 'standard'"),
        (peer("autoattack", "custom"), "custom takes attacks"),
        (peer("autoattack", "standard", arguments={"attacks": ["square"]}), "custom takes attacks"),
        (peer("autoattack", "custom", arguments={"attacks": ["apgdce"]}), "did you mean 'apgd-ce'"),
        (peer("autoattack", "custom", arguments={"attacks": ["square"], "square": {"queries": 3}}), "n_queries"),
        (peer("foolbox", "LinfPDG"), "did you mean 'LinfPGD'"),
        (peer("foolbox", "L2PGD"), 'set norm = "L2"'),
        (peer("python", "nowhere:Attack"), "cannot be imported"),
        (peer("python", "math:Attack"), "has no function Attack"),
        (peer("python", "Attack"), "package.module:function"),
    ],
)
def test_mistakes_in_the_declaration_are_told(attack, words) -> None:
    if attack.kind == "foolbox":
        pytest.importorskip("foolbox")
    images, labels = batch()
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        peers.craft(attack, NoisyLinear(0.0), images, labels, STREAMS, compute())


@pytest.mark.parametrize("scale", ["full", "quick"])
def test_the_suite_of_peers_declares_ten_families_that_can_be_built(scale) -> None:
    from bench.suite.reader import load

    suite = load(Path(__file__).parents[2] / "suites" / "peers.toml", scale)
    attacks = [attack for attack in suite.attacks.values() if isinstance(attack, Peer)]
    names = {attack.name for attack in attacks if attack.kind == "torchattacks"}
    assert len(names) == 10 and suite.images("test").stop == 200
    for attack in attacks:
        effective = peers.effective(attack)
        assert effective["eps" if "eps" in effective else "attack"] in (float(attack.eps), "CW")

from __future__ import annotations

import itertools
import math
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from trainings import CPU, EVERYTHING, SMALL, TRAINING, centres, kill_at, run, same_weights

from bench import Paused, UserError
from bench.lab.attacks import pgd
from bench.lab.compute import compiling
from bench.lab.compute.compiling import AMX, GPU
from bench.lab.compute.passes import Compute
from bench.lab.images.load import Images
from bench.lab.streams import Streams
from bench.lab.train import Options, state
from bench.lab.train.batches import Batches
from bench.lab.train.optimise import optimiser, rate
from bench.lab.train.perturb import perturb
from bench.lab.train.step import Stepper, shadow
from bench.lab.train.teach import teach
from bench.lab.weights import build, files
from bench.models.classifier import Classifier, Plain, Realisation
from bench.recipes import PGD, Distilled, Model, Network, Noise, Optimiser, Schedule, Trained, Training


@pytest.fixture(scope="module")
def photos() -> Images:
    return centres()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def changed(recipe: Trained, **fields: Any) -> Trained:
    return Trained(network=recipe.network, noise=recipe.noise, training=recipe.training.model_copy(update=fields))


# -- what comes out ---------------------------------------------------------------------------


def test_it_learns_the_images_it_is_given(photos: Images, tmp_path: Path) -> None:
    """Sixteen photographs by heart: the loss has to come far below chance, in training and in the file."""
    optimiser = Optimiser(kind="adam", lr=5e-3)
    training = Training(epochs=25, batch=16, optimiser=optimiser, schedule=Schedule(kind="onecycle"), augment="none")
    result = run(Trained(network=SMALL, training=training), photos.take(slice(0, 16)), tmp_path)
    rows = pq.read_table(tmp_path / "out" / "curves.parquet").to_pylist()
    assert result["loss"] < 0.5 < 1.5 < rows[0]["loss"]
    model = build.build(Trained(network=SMALL), files.load(tmp_path / "out"))
    with torch.no_grad():
        inputs = torch.from_numpy(photos.images[:16]).permute(0, 3, 1, 2) / 255
        right = model(inputs).argmax(1) == torch.from_numpy(photos.labels[:16])
    assert right.float().mean() > 0.8


def test_curves_card_and_provenance(photos: Images, tmp_path: Path) -> None:
    recipe = Trained(network=SMALL, noise=Noise(), training=TRAINING)
    told: list[str] = []
    result = run(recipe, photos, tmp_path, options=Options(progress=lambda done, total, text: told.append(text)))
    rows = pq.read_table(tmp_path / "out" / "curves.parquet").to_pylist()
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 5), (2, 10)]
    assert all(0 <= row["attacked"] <= 1 and 0 <= row["clean"] <= 1 and row["loss"] > 0 for row in rows)
    assert result["loss"] == rows[-1]["loss"] and result["epochs"] == 2
    # One attack step and two halves in ten steps of sixteen images.
    assert result["forward_passes"] == result["backward_passes"] == 10 * 16 * 3
    card = (tmp_path / "out" / "model.toml").read_text()
    assert recipe.key in card and "[recipe.training.attack]" in card
    assert any(text.startswith("epoch 2 of 2: loss") for text in told)


def test_without_held_out_images_the_curves_have_gaps(photos: Images, tmp_path: Path) -> None:
    run(changed(Trained(network=SMALL, training=TRAINING), validation=0, epochs=1, attack=None), photos, tmp_path)
    (row,) = pq.read_table(tmp_path / "out" / "curves.parquet").to_pylist()
    assert row["clean"] is None and row["attacked"] is None and row["loss"] > 0


def test_held_out_images_do_not_touch_the_weights(photos: Images, tmp_path: Path) -> None:
    recipe = changed(Trained(network=SMALL, noise=Noise(), training=TRAINING), epochs=1)
    other = photos._replace(images=photos.images.copy())
    other.images[-16:] = 255 - other.images[-16:]
    run(recipe, photos, tmp_path / "a")
    run(recipe, other, tmp_path / "b")
    assert same_weights(tmp_path / "a", tmp_path / "b")
    other.images[0] = 255 - other.images[0]
    run(recipe, other, tmp_path / "c")
    assert not same_weights(tmp_path / "a", tmp_path / "c")


# -- stopping and going on --------------------------------------------------------------------


def test_killed_anywhere_it_ends_with_the_same_weights(photos: Images, tmp_path: Path) -> None:
    recipe = Trained(network=SMALL, noise=Noise(), training=EVERYTHING)
    run(recipe, photos, tmp_path / "whole")
    dice = random.Random(7)
    killed = [kill_at(recipe, photos, tmp_path / "cut", 1 + turn, dice.uniform(0, 0.3)) for turn in range(2)]
    assert killed[0]
    told: list[str] = []
    run(recipe, photos, tmp_path / "cut", options=Options(progress=lambda done, total, text: told.append(text)))
    assert any("going on from step" in text for text in told)
    assert same_weights(tmp_path / "whole", tmp_path / "cut")
    curves = [(tmp_path / name / "out" / "curves.parquet").read_bytes() for name in ("whole", "cut")]
    assert curves[0] == curves[1]


def test_paused_at_every_step_it_ends_with_the_same_weights(photos: Images, tmp_path: Path) -> None:
    recipe = changed(Trained(network=SMALL, noise=Noise(), training=TRAINING), epochs=1)
    run(recipe, photos, tmp_path / "whole")

    def every_second() -> Callable[[], bool]:
        asked = iter(range(100))
        return lambda: next(asked) > 0

    pauses = 0
    while True:
        try:
            run(recipe, photos, tmp_path / "cut", options=Options(should_stop=every_second()))
            break
        except Paused as paused:
            assert "the same command goes on" in str(paused)
            pauses += 1
    assert pauses == 4 and same_weights(tmp_path / "whole", tmp_path / "cut")


def test_time_that_is_up_pauses(photos: Images, tmp_path: Path) -> None:
    with pytest.raises(Paused, match="step 0 of 10"):
        run(Trained(network=SMALL, training=TRAINING), photos, tmp_path, options=Options(max_seconds=0.0))
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-000000000"]


def tensors(step: int) -> dict[str, Tensor]:
    return {"model/a": torch.full((5,), float(step)), "sum": torch.tensor(0.1, dtype=torch.float64)}


def test_a_damaged_state_gives_way_to_the_one_before(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        state.write(tmp_path, tensors(step), {"step": step, "key": "k", "inputs": "d"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000002", "step-000000003"]
    told: list[str] = []
    found = state.read(tmp_path, "k", "d", told.append)
    assert found is not None and torch.equal(found.tensors["model/a"], torch.full((5,), 3.0)) and not told
    assert found.tensors["sum"].dtype == torch.float64 and found.tensors["sum"].item() == 0.1

    shard = tmp_path / "step-000000003" / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x55")
    found = state.read(tmp_path, "k", "d", told.append)
    assert found is not None and found.facts["step"] == 2
    assert len(told) == 1 and "step-000000003 is damaged" in told[0]

    (tmp_path / "step-000000002" / "state.json").write_text("{")
    assert state.read(tmp_path, "k", "d", told.append) is None and "starts again" in told[-1]


def test_a_state_of_other_work_is_not_used(tmp_path: Path) -> None:
    state.write(tmp_path, tensors(1), {"step": 1, "key": "k", "inputs": "d"})
    told: list[str] = []
    assert state.read(tmp_path, "other", "d", told.append) is None
    assert state.read(tmp_path, "k", "other", told.append) is None
    assert len(told) == 2 and all("another training" in text for text in told)


# -- what goes wrong --------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(photos: Images, tmp_path: Path) -> None:
    # Without a bound on the gradient a huge learning rate overflows in its second step.
    wild = Optimiser(kind="sgd", lr=1e30, momentum=0.0, nesterov=False)
    recipe = changed(Trained(network=SMALL, training=TRAINING), optimiser=wild, schedule=Schedule(kind="constant"))
    with pytest.raises(UserError, match=r"Trained \w{12}: .*no number.* step 2 of 10.*step-000000001, is kept"):
        run(recipe, photos, tmp_path, options=Options(save_every_seconds=0.0))
    assert max(path.name for path in (tmp_path / "state").iterdir()) == "step-000000001"
    assert not list((tmp_path / "out").iterdir())


def test_a_training_at_chance_is_stopped_and_told_why(
    photos: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.lab.train import loop

    monkeypatch.setattr(loop, "STALL_AFTER", 100)
    still = Optimiser(kind="sgd", lr=1e-12)
    training = TRAINING.model_copy(update={"optimiser": still, "attack": None, "epochs": 100, "batch": 1})
    recipe = Trained(network=SMALL, noise=Noise(scale="reference"), training=training)
    with pytest.raises(UserError, match=r"chance is 2\.303.*noise\.scale = \"relative\""):
        run(recipe, photos, tmp_path)


class Hungry(Plain):
    """A real network that cannot take more than eight images at once."""

    def realise(self, shape: Any, generator: torch.Generator | None = None) -> Realisation:
        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            if len(images) > 8:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            logits: Tensor = self.net(images)
            return logits

        return realisation


def stepper(recipe: Trained, core: Classifier, note: Callable[[str], None] = print) -> Stepper:
    return Stepper(recipe, core, None, 10, CPU, "float32", note=note)


def test_short_memory_halves_the_batch_and_keeps_the_gradient() -> None:
    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))

    recipe = Trained(network=SMALL, training=TRAINING.model_copy(update={"batch": 30}))
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(30, 3, 8, 8, generator=generator), torch.randint(10, (30,), generator=generator)
    told: list[str] = []
    whole, parts = stepper(recipe, Plain(net(), 10)), stepper(recipe, Hungry(net(), 10), told.append)
    losses = [s(images, labels, None, at) for s in (whole, parts) for at in range(2)]
    assert losses[0].item() == pytest.approx(losses[2].item(), rel=1e-5)
    assert losses[1].item() == pytest.approx(losses[3].item(), rel=1e-4)
    assert told[-1] == "out of memory: batches of 30 go on in parts of 8" and len(told) == 2
    for a, b in zip(whole.core.parameters(), parts.core.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def teacher_of(classes: int = 10, noisy: bool = True) -> tuple[Model, Classifier]:
    made = Trained(network=Network(depth=10, width=1, classes=classes), noise=Noise() if noisy else None)
    return Model(weights=made), build.build(made)


def distilled(**fields: Any) -> Distilled:
    training = TRAINING.model_copy(update={"epochs": 1})
    return Distilled(**{"network": SMALL, "training": training, "teacher": teacher_of()[0], **fields})


def even(n: int, classes: int = 10) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.full((n, classes), 1 / classes, np.float32)


@pytest.mark.parametrize(
    ("recipe", "others", "match"),
    [
        (distilled(), {}, "teacher: the teacher is missing, and perturbed batches"),
        (distilled(training=Training(batch=16), targets="online"), {}, 'missing, and targets = "online"'),
        (distilled(training=Training(batch=16)), {}, "cached outputs are missing"),
        (distilled(), {"teacher": teacher_of(7)[1], "targets": even(96)}, "7 classes apart, the student 10"),
        (distilled(), {"teacher": teacher_of()[1], "targets": even(95)}, r"\(95, 10\), the data need \(96, 10\)"),
        (distilled(), {"teacher": teacher_of()[1], "targets": even(96) * 2}, "not probabilities"),
        (
            distilled(rule="soft", temperature=4.0),
            {"teacher": teacher_of()[1], "targets": even(96)},
            "temperature: cached soft",
        ),
        (Trained(training=Training(batch=97)), {}, "96 images, 0 of them held out, do not fill one batch of 97"),
        (Trained(training=Training(batch=90, validation=10)), {}, "10 of them held out"),
        (Trained(network=Network(classes=3), training=Training(batch=16)), {}, r"network has 3 classes"),
        (Trained(training=Training(batch=16, optimiser=Optimiser(betas=(0.9,)))), {}, "betas: 1 numbers"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit_are_refused_first(
    recipe: Trained | Distilled, others: dict[str, Any], match: str, photos: Images, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=match):
        run(recipe, photos, tmp_path, **others)
    assert not (tmp_path / "state").exists() and not list((tmp_path / "out").iterdir())


def test_labels_and_images_must_match(photos: Images, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="96 images but 95 labels"):
        run(Trained(training=Training(batch=16)), photos._replace(labels=photos.labels[:-1]), tmp_path)
    with pytest.raises(UserError, match="uint8"):
        run(Trained(training=Training(batch=16)), photos._replace(images=photos.images / 255), tmp_path)


# -- distillation -----------------------------------------------------------------------------


def test_a_student_of_weight_zero_is_trained_on_labels(photos: Images, tmp_path: Path) -> None:
    student = distilled(distil_weight=0.0, perturb_distil_weight=0.0)
    run(student, photos, tmp_path / "student")
    run(Trained(network=SMALL, training=student.training), photos, tmp_path / "alone")
    assert same_weights(tmp_path / "student", tmp_path / "alone")


def test_cached_and_online_teaching_run_and_differ(photos: Images, tmp_path: Path) -> None:
    _, teacher = teacher_of()
    run(distilled(), photos, tmp_path / "cached", teacher=teacher, targets=even(96))
    result = run(distilled(targets="online", online_draws=2), photos, tmp_path / "online", teacher=teacher)
    assert not same_weights(tmp_path / "cached", tmp_path / "online")
    # Five steps of sixteen: an attack step, two halves, and two draws of the teacher on each half.
    assert result["forward_passes"] == 5 * 16 * (1 + 2 + 2 * 2)


def test_a_student_learns_its_teachers_probabilities(photos: Images, tmp_path: Path) -> None:
    """With all weight on targets that say "class 3" of every image, the student says so too, against the labels."""
    targets = np.eye(10, dtype=np.float32)[np.full(96, 3)]
    optimiser = Optimiser(kind="adam", lr=3e-3)
    training = Training(epochs=4, batch=16, optimiser=optimiser, schedule=Schedule(kind="constant"))
    run(distilled(training=training, distil_weight=1.0), photos, tmp_path, targets=targets)
    model = build.build(Trained(network=SMALL), files.load(tmp_path / "out"))
    with torch.no_grad():
        logits = model(torch.from_numpy(photos.images[:32]).permute(0, 3, 1, 2) / 255)
    assert (logits.argmax(1) == 3).float().mean() > 0.9


def test_what_is_taught_is_the_mean_over_draws() -> None:
    _, teacher = teacher_of()
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    streams, compute = Streams(1, 0, CPU), Compute(CPU)
    with torch.no_grad():
        logits = [teacher(images, streams.generator("train", k)) for k in range(3)]
    soft = teach(teacher, images, "soft", 3, 2.0, streams, compute=compute)
    torch.testing.assert_close(soft, torch.stack([(z / 2).softmax(1) for z in logits]).mean(0))
    vote = teach(teacher, images, "vote", 3, 2.0, streams, compute=compute)
    torch.testing.assert_close(vote, torch.stack([F.one_hot(z.argmax(1), 10).float() for z in logits]).mean(0))


# -- the pieces -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack",
    [
        PGD(steps=3),
        PGD(steps=3, random_start=False),
        PGD(steps=2, eot=3),
        PGD(steps=3, accumulate=True),
        PGD(steps=3, momentum=0.9),
        PGD(steps=0),
        PGD(steps=2, restarts=2),
        PGD(steps=2, loss="margin"),
    ],
)
@pytest.mark.parametrize("noisy", [True, False])
def test_the_training_attack_is_the_harness_s_pgd(attack: PGD, noisy: bool, photos: Images) -> None:
    _, source = teacher_of(noisy=noisy)
    images = torch.from_numpy(photos.images[:12]).permute(0, 3, 1, 2) / 255
    labels, streams = torch.from_numpy(photos.labels[:12]), Streams(3, 0, CPU)
    ours = perturb(attack, source, images, labels, streams, Compute(CPU, microbatch=5))
    theirs = pgd.craft(attack, source, images, labels, streams, Compute(CPU, microbatch=5)).images
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert (ours - images).abs().max() <= float(attack.eps) + 1e-6


def test_the_shadow_sees_what_training_changes() -> None:
    model = build.build(Trained(network=SMALL, noise=Noise())).requires_grad_(True).train()
    twin = shadow(model)
    assert not twin.training and model.training and not any(p.requires_grad for p in twin.parameters())
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model(images, torch.Generator().manual_seed(1)).square().sum().backward()
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    for (name, own), shared in zip(twin.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(own, shared) and own.data_ptr() == shared.data_ptr(), name
    assert twin.net.bn.running_mean.abs().max() > 0  # type: ignore[union-attr]


@given(
    kind=st.sampled_from(["constant", "multistep", "onecycle", "cosine"]),
    epochs=st.integers(1, 20),
    steps=st.integers(1, 30),
    warmup=st.floats(0, 5),
)
@settings(max_examples=80, deadline=None)
def test_rates_lie_between_zero_and_one(kind: Any, epochs: int, steps: int, warmup: float) -> None:
    schedule = Schedule(kind=kind, warmup=warmup, milestones=(3, 6), gamma=0.2)
    rates = [rate(schedule, epochs, steps, at) for at in range(epochs * steps)]
    assert all(0 <= value <= 1 for value in rates)
    rising = rates[: int(warmup * steps)]
    if kind != "multistep":  # whose milestones may fall into the warm-up
        assert all(b >= a for a, b in itertools.pairwise(rising))


def test_one_cycle_is_pytorchs() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    plain = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(plain, max_lr=1.0, total_steps=100)
    for at in range(100):
        # PyTorch's rise ends one step before 30 % of the steps, so that shapes agree, shifted by that step.
        ours = rate(Schedule(kind="onecycle"), 10, 10, at)
        assert ours == pytest.approx(theirs.get_last_lr()[0], abs=0.06)
        plain.step()
        theirs.step()
    assert rate(Schedule(kind="onecycle"), 10, 10, 0) == pytest.approx(1 / 25)
    assert rate(Schedule(kind="onecycle"), 10, 10, 30) == 1.0
    assert rate(Schedule(kind="onecycle"), 10, 10, 99) == pytest.approx(1 / 250_000)


def test_milestones_are_epochs() -> None:
    schedule = Schedule(kind="multistep", milestones=(2, 4), gamma=0.1)
    assert [round(rate(schedule, 5, 3, at), 6) for at in range(15)] == [1.0] * 6 + [0.1] * 6 + [0.01] * 3


def test_decay_and_rates_by_group() -> None:
    model = build.build(Trained(network=SMALL, noise=Noise())).requires_grad_(True)
    recipe = Optimiser(
        lr=0.1, weight_decay=5e-4, norm_weight_decay=0.01, noise_weight_decay=0.02, norm_lr=2.0, noise_lr=3.0
    )  # fmt: skip
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = optimiser(recipe, model).param_groups
    assert [(g["base"], g["weight_decay"]) for g in groups] == [
        (0.1, 5e-4), (pytest.approx(0.2), 0.01), (pytest.approx(0.3), 0.02),
    ]  # fmt: skip
    weight, norm, noise = ({names[p] for p in g["params"]} for g in groups)
    assert noise == {"noise.diag", "noise.factor"} and {"net.fc.weight", "net.blocks.0.conv1.weight"} <= weight
    assert {"net.fc.bias", "net.bn.weight", "net.bn.bias"} <= norm and len(weight | norm | noise) == len(names)


def test_averaged_weights_are_the_average(photos: Images) -> None:
    recipe = changed(Trained(network=SMALL, training=TRAINING), ema=0.75, attack=None)
    made = stepper(recipe, build.build(recipe))
    images = torch.from_numpy(photos.images[:16]).permute(0, 3, 1, 2) / 255
    assert made.averaged is not None
    expected = made.core.net.fc.weight.detach().clone()  # type: ignore[union-attr]
    for at in range(6):
        made(images, torch.from_numpy(photos.labels[:16]), None, at)
        decay = min(0.75, (1 + at) / (10 + at))
        expected = decay * expected + (1 - decay) * made.core.net.fc.weight.detach()  # type: ignore[union-attr]
    torch.testing.assert_close(made.averaged.net.fc.weight, expected)  # type: ignore[union-attr]


@given(seed=st.integers(0, 2**20), augment=st.sampled_from(["none", "flip", "crop-flip"]))
@settings(max_examples=20, deadline=None)
def test_augmented_images_are_shifts_and_flips_of_their_own(seed: int, augment: Any) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(1, 256, (5, 8, 6, 3), generator=generator, dtype=torch.uint8)
    made, labels = Batches(images, torch.arange(5), augment, CPU)(torch.tensor([4, 0, 2]), generator)
    assert made.shape == (3, 3, 8, 6) and made.is_contiguous(memory_format=torch.channels_last)
    assert labels.tolist() == [4, 0, 2]
    shifts = [(y, x) for y in range(9) for x in range(9)] if augment == "crop-flip" else [(4, 4)]
    for image, row in zip(made, (4, 0, 2), strict=True):
        whole = F.pad(images[row].permute(2, 0, 1).float() / 255, (4, 4, 4, 4))
        options = [whole[:, y : y + 8, x : x + 6] for y, x in shifts]
        options += [option.flip(2) for option in options] if augment != "none" else []
        assert any(torch.equal(image, option) for option in options)


@pytest.mark.parametrize(
    ("device", "precision", "gflop", "instructions", "found"),
    [
        ("cuda", "float32", 0.01, [], GPU),
        ("cpu", "bfloat16", 0.43, ["avx2", "amx_bf16"], AMX),
        ("cpu", "float32", 0.43, ["avx2", "amx_bf16"], None),
        ("cpu", "bfloat16", 0.43, ["avx2", "avx512f"], None),
        ("cpu", "bfloat16", 0.03, ["avx2", "amx_bf16"], None),
    ],
)
def test_a_cpu_compiles_where_it_was_seen_to_gain(
    device: str, precision: str, gflop: float, instructions: list[str], found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the kind of processor, the precision and the network: no clock, so that a resumed training decides alike."""
    monkeypatch.setattr(compiling, "instructions", lambda: instructions)
    assert compiling.gain(device, precision, gflop) == found
    desk = {"gradients": 50_000 * 20 * 2.0, "trained": 50_000 * 20 * 2.0, "gflop": 0.43}
    assert found in (None, GPU) or compiling.repays(**desk, found=found)


def test_compiling_repays_only_with_enough_work() -> None:
    full = {"gradients": 50_000 * 100 * 10.0, "trained": 50_000 * 100 * 2.0, "gflop": 1.69}
    assert compiling.repays(**full, found=GPU)
    assert not compiling.repays(**full, found=None)
    quick = {"gradients": 9_500 * 7 * 2.0, "trained": 9_500 * 7 * 2.0, "gflop": 0.03}
    assert not compiling.repays(**quick, found=GPU) and not compiling.repays(**quick, found=AMX)
    # Seconds saved: 1.69 GFLOP, 1e7 gradients at 35,800 and at 83,500 a second.
    assert 1e7 / 35_800 - 1e7 / 83_500 < 2 * GPU.cost < 2e7 / 35_800 - 2e7 / 83_500
    assert not compiling.repays(1e7, 0, 1.69, GPU) and compiling.repays(2e7, 0, 1.69, GPU)
    # A vote of 512 draws on 10,000 images saves 23 s and compiles for longer; a hundred steps of EoT 16 save minutes.
    assert not compiling.repays(0, 0, 1.69, GPU, forwards=10_000 * 512)
    assert compiling.repays(10_000 * 100 * 16, 0, 1.69, GPU)
    assert compiling.repays(0, 0, 1.69, GPU, forwards=5e7)


def test_work_is_counted() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 10))
    assert compiling.gigaflops(net, 8) == pytest.approx((2 * 27 * 4 * 64 + 2 * 256 * 10) / 1e9)


def test_a_missing_tensorboard_is_named(photos: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="tensorboard is not installed"):
        run(Trained(network=SMALL, training=TRAINING), photos, tmp_path, options=Options(tensorboard=tmp_path / "tb"))


def test_chance_is_the_loss_of_even_probabilities() -> None:
    recipe = distilled(distil_weight=0.75, perturb_distil_weight=0.25, temperature=2.0)
    made = Stepper(recipe, build.build(recipe), teacher_of()[1], 10, CPU, "float32", note=print)
    halves = (0.25 + 0.75 * 4, 0.75 + 0.25 * 4)
    assert made.chance == pytest.approx(math.log(10) * sum(halves) / 2)

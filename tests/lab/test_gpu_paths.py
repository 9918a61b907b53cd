"""What a GPU would meet, on a CPU: waits for the device are counted, tensors are made where the images are, PyTorch's
switches are read inside the work, and memory that is short is told in the words a GPU's libraries use."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import CPU, shard_of
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from trainings import SMALL, TRAINING, centres, run

from bench import UserError
from bench.lab.attacks import pgd, square
from bench.lab.attacks.losses import cross_entropy
from bench.lab.compute import compiling, device, memory
from bench.lab.compute.passes import Compute
from bench.lab.compute.precision import Fitting
from bench.lab.judge import judge, looks
from bench.lab.streams import Streams
from bench.lab.train import Options
from bench.lab.train import compiled as compiled_training
from bench.lab.train.step import Stepper
from bench.lab.weights import build
from bench.models.adapters.randomised import seeded
from bench.models.classifier import Classifier, Plain
from bench.models.smoothing import Smoothed
from bench.recipes import PGD, Noise, Square, Stopping, Trained
from bench.run.engines.local import device_of
from bench.run.job import Job, provenance
from bench.store import machine
from bench.store.tasks import Done, Task

CUDA = torch.device("cuda")
ROOMS = tuple(str(Path(__file__).parents[2] / "bench" / room) for room in ("lab", "models"))
FACTORIES = {
    torch.zeros, torch.ones, torch.full, torch.empty, torch.arange, torch.linspace, torch.eye, torch.tensor, torch.rand,
    torch.randn, torch.randint, torch.randperm,
}  # fmt: skip
RANDOM = {
    "rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal", "uniform_", "normal_", "random_",
    "bernoulli_", "exponential_", "rand_like", "randn_like", "randint_like", "dropout",
}  # fmt: skip


def trained() -> Trained:
    training = TRAINING.model_copy(update={"attack": PGD(steps=2), "sigma": "1/20", "ema": 0.9})
    return Trained(network=SMALL, noise=Noise(), training=training)


def noisy() -> Classifier:
    return build.build(trained()).eval().requires_grad_(False)


def images(n: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, 16, 16, generator=generator), torch.arange(n) % 10


def streams(place: torch.device = CPU) -> Streams:
    return Streams(0, 0, place)


# -- waits -----------------------------------------------------------------------------------------


class Waits(TorchDispatchMode):
    """Counts what has the host wait for the device: values that are read, and indices that are counted first."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        counted = [one for part in args[1:2] if isinstance(part, list | tuple) for one in part]
        by_mask = name in ("index", "index_put_") and any(
            isinstance(one, torch.Tensor) and one.dtype in (torch.bool, torch.uint8) for one in counted
        )
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "unique2", "_unique2", "equal") or by_mask:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


class Reads(TorchFunctionMode):
    """Counts the methods that copy to the host, which on a CPU are no operation."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("cpu", "numpy", "tolist"):
            self.found[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def waits(work: Any) -> int:
    with Reads() as reads, Waits() as counted:
        work()
    return (reads.found + counted.found).total()


def test_the_counter_counts() -> None:
    x = torch.arange(4.0)
    assert waits(lambda: [x.sum().item(), x[x > 1], x.cpu(), x.tolist(), bool(x[0] > 0), x.nonzero()]) >= 6
    assert waits(lambda: x[1:] + x[torch.tensor([0, 1, 2])]) == 0


def stepper(recipe: Trained, core: Classifier | None = None) -> Stepper:
    return Stepper(recipe, core or build.build(recipe), None, 10, CPU, "float32", note=print)


def test_a_training_step_never_waits_for_the_device() -> None:
    made, (batch, labels) = stepper(trained()), images()
    made(batch, labels, None, 0)  # the optimiser's state is made by the first
    assert waits(lambda: made(batch, labels, None, 1)) == 0


def test_an_attack_waits_as_often_however_many_steps_it_takes() -> None:
    model, (batch, labels) = noisy(), images()

    def count(steps: int) -> int:
        return waits(lambda: pgd.craft(PGD(steps=steps, eot=2), model, batch, labels, streams(), Compute(CPU)))

    assert count(2) == count(6) <= 2


@pytest.mark.parametrize("soft", [False, True])
def test_a_judge_waits_once_a_look(soft: bool) -> None:
    model, (batch, labels) = noisy(), images()
    rule = Stopping(kind="adaptive", rule="soft") if soft else Stopping(kind="adaptive")

    def count(draws: int, rule: Stopping) -> int:
        return waits(lambda: judge(model, shard_of(batch, labels), draws, rule, streams(), Compute(CPU)))

    fixed = count(8, Stopping())
    assert fixed == count(32, Stopping()) <= 20, "reading the votes at the end"
    assert count(32, rule) <= fixed + 4 * len(looks(32, rule))


# -- places and generators -------------------------------------------------------------------------


class Strict(TorchFunctionMode):
    """Refuses a tensor that our code makes without saying where, and a random number without a generator."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if sys._getframe(1).f_code.co_filename.startswith(ROOMS):
            assert func not in FACTORIES or kwargs.get("device") is not None, f"{name} without a device"
            assert name not in RANDOM or kwargs.get("generator") is not None, f"{name} without a generator"
        return func(*args, **kwargs)


def test_tensors_say_where_they_are_made_and_draws_from_what() -> None:
    model, recipe, (batch, labels) = noisy(), trained(), images()
    made = stepper(recipe)
    smoothed = Smoothed(Plain(nn.Sequential(nn.Flatten(), nn.Linear(768, 10)), 10), 0.1).eval().requires_grad_(False)
    with Strict():
        made(batch, labels, None, 0)
        for source in (model, smoothed):
            pgd.craft(PGD(steps=2, eot=2, restarts=2, pick="best"), source, batch, labels, streams(), Compute(CPU))
            square.craft(Square(queries=3, draws=2), source, batch, labels, streams(), Compute(CPU))
            for rule in (Stopping(), Stopping(kind="adaptive", infinite=True), Stopping(kind="adaptive", rule="soft")):
                judge(source, shard_of(batch, labels), 32, rule, streams(), Compute(CPU))


# -- switches --------------------------------------------------------------------------------------


@pytest.fixture
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv(device.WORKSPACE, raising=False)
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.deterministic, torch.are_deterministic_algorithms_enabled()
    yield
    cudnn.allow_tf32, cudnn.deterministic = before[:2]
    torch.use_deterministic_algorithms(before[2])


def test_exact_work_on_a_gpu_is_ieee_and_the_same_each_time(as_it_was: None) -> None:
    device.switch(CUDA, False)
    assert torch.backends.cudnn.allow_tf32 and not torch.backends.cudnn.deterministic
    device.switch(CUDA, True)
    assert not torch.backends.cudnn.allow_tf32 and torch.backends.cudnn.deterministic
    assert torch.is_deterministic_algorithms_warn_only_enabled() and os.environ[device.WORKSPACE]


@pytest.mark.parametrize("exact", [False, True])
def test_inside_a_training_step_the_switches_are_what_the_record_says(
    exact: bool, as_it_was: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The context for cuDNN's flags turns TF32 on unless it is told not to: exact trainings ran in it."""
    seen, step, cudnn = set(), Stepper.__call__, torch.backends.cudnn

    def watched(self: Stepper, *words: Any) -> torch.Tensor:
        seen.add((cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, torch.are_deterministic_algorithms_enabled()))
        return step(self, *words)

    monkeypatch.setattr(Stepper, "__call__", watched)
    about = run(trained(), centres(48), tmp_path, options=Options(exact=exact, compile="always" if exact else "never"))
    assert seen == {(False, True, False, True) if exact else (True, False, True, False)}
    assert about["precision"] == "float32" and not about["compiled"], "never under exact"
    assert device.arithmetic_of("float32", CUDA, exact) == ("float32" if exact else "tf32")
    assert device.arithmetic_of("float32", CPU, exact) == "float32"


def test_a_gpu_that_torch_cannot_use_is_no_silent_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "gpus", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "the driver reports 2 GPUs" in str(device.passed_over("auto", device.pick_device("auto")))
    assert device.passed_over("cpu", CPU) is None
    with pytest.raises(UserError, match="the driver reports 2 GPUs, which this PyTorch"):
        device.pick_device("cuda")


def test_workers_share_out_the_gpus() -> None:
    assert [device_of("auto", k, 2) for k in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert (device_of("cpu", 1, 2), device_of("auto", 1, 0), device_of("cuda:1", 0, 4)) == ("cpu", "auto", "cuda:1")


def test_a_cpu_run_starts_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forking the generators of every visible GPU would start CUDA on each."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with seeded(3):
        one = torch.rand(2)
    with seeded(3):
        assert torch.equal(one, torch.rand(2))


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_short_memory_is_known_by_all_its_words(words: str) -> None:
    assert memory.out_of_memory(RuntimeError(words))
    assert not memory.out_of_memory(RuntimeError("CUDNN_STATUS_BAD_PARAM"))


def test_what_failed_is_freed_before_the_cache_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error's traceback held the pass's tensors while the cache was emptied, so that nothing came back."""
    alive: list[weakref.ref[Any]] = []
    left: list[int] = []

    def give_back(device: torch.device) -> None:
        gc.collect()
        left.append(sum(one() is not None for one in alive))

    def realisation(images: torch.Tensor, rows: Any = None) -> torch.Tensor:
        layer = images * 2
        alive.append(weakref.ref(layer))
        if len(images) > 4:
            raise RuntimeError("out of memory")
        return layer.flatten(1)[:, :10]

    monkeypatch.setattr("bench.lab.compute.passes.give_back", give_back)
    Compute(CPU, microbatch=8).logits(realisation, images()[0])
    assert left == [0]


def test_what_did_not_fit_is_not_tried_with_every_shard() -> None:
    fitting, model = Fitting(CPU, False, print), noisy()
    fitting.settle("key", model, (3, 16, 16))
    for number in range(2):
        compute = Compute(CPU, microbatch=64)
        fitting.suit(compute, "float32", "key", model, "data", lambda: images()[0])
        assert compute.microbatch == (64, 5)[number]
        compute.lower(10, "{} at a time")
    other = Compute(CPU, microbatch=64)
    fitting.settle("other", model, (3, 16, 16))
    fitting.suit(other, "float32", "other", model, "data", lambda: images()[0])
    assert other.microbatch == 64


class Tight(nn.Module):
    """A network with batch statistics whose first pass of over 8 images that are not the first batch is too large."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 196, 10)
        self.passes = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.fc(self.bn(self.conv(images)).flatten(1))
        self.passes += self.training
        if self.training and self.passes == 2:
            raise RuntimeError("CUDA out of memory")
        return result


def test_a_step_tried_again_counts_no_batch_twice() -> None:
    """The clean batch is learnt from, the perturbed one does not fit: the clean one counts once all the same."""
    torch.manual_seed(0)
    recipe = Trained(network=SMALL, training=TRAINING)
    net = Tight()
    made, (batch, labels) = stepper(recipe, Plain(net, 10)), images()
    made(batch, labels, None, 0)
    assert made.compute.microbatch == 8 and net.bn.num_batches_tracked == 4, "two parts of two batches"


# -- compiling -------------------------------------------------------------------------------------


def test_a_compiler_that_fails_in_training_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend's failure is a RuntimeError like others, which ended the training."""

    def broken(forward: Any, **how: Any) -> Any:
        def fails(*words: Any) -> Any:
            raise RuntimeError("backend='inductor' raised: no Triton")

        return fails

    told: list[str] = []
    without = run(trained(), centres(48), tmp_path / "eager", options=Options(compile="never"))
    monkeypatch.setattr(torch, "compile", broken)
    how = Options(compile="always", progress=lambda done, total, text: told.append(text))
    about = run(trained(), centres(48), tmp_path / "broken", options=how)
    assert not about["compiled"] and about["loss"] == without["loss"], "and nothing of the trial stays"
    assert [text for text in told if "torch.compile failed" in text] == [
        "torch.compile failed (RuntimeError): going on without it"
    ]


def test_training_compiles_again_for_the_parts_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """One size at a time: with every new size compiled beside the old ones the ninth ran uncompiled, without a word."""
    sizes: list[int] = []
    monkeypatch.setattr(torch, "compile", lambda forward, **how: lambda x: sizes.append(len(x)) or forward(x))
    made, (batch, labels) = stepper(trained()), images()
    kept = [one.clone() for one in made.statistics]
    passes = compiled_training.Compiled(made, (3, 16, 16), 0, Options(compile="always"))
    passes.begin()
    assert passes.on and sizes == [16, 16] and all(map(torch.equal, kept, made.statistics))
    sizes.clear()
    made.compute.microbatch = 6
    passes.follow()
    assert sizes == [6, 6]
    sizes.clear()
    made(batch, labels, None, 0)
    assert set(sizes) == {6}, "the last four of 16 run as they did"


def test_a_compiled_forward_pass_serves_no_other_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(torch, "compile", lambda forward, **how: lambda x: calls.append(x.requires_grad) or forward(x))
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 10)).requires_grad_(False)
    model, (batch, labels) = Plain(net, 10), images(8)
    fitting = Fitting(CPU, False, print)
    fitting.try_compiling(Compute(CPU), model, net, (8, 3, 16, 16), False, key="key")
    assert fitting.is_compiled("key") and calls == [False]
    Compute(CPU).gradient(model.realise(batch.shape), batch, labels, cross_entropy)
    Compute(CPU, "bfloat16").logits(model.realise(batch.shape), batch)
    assert calls == [False], "neither a gradient nor another precision"
    Compute(CPU).logits(model.realise(batch.shape), batch)
    assert calls == [False, False]
    fitting.plain("key")
    Compute(CPU).logits(model.realise(batch.shape), batch)
    assert len(calls) == 2 and not fitting.is_compiled("key")


@pytest.mark.parametrize(
    ("place", "there", "found"),
    [
        ("cpu", {"g++", "Python.h"}, True), ("cpu", {"cc", "Python.h"}, False), ("cpu", {"g++"}, False),
        ("cuda", {"cc", "triton", "Python.h"}, True), ("cuda", {"cc", "triton"}, False),
        ("cuda", {"g++", "triton", "Python.h"}, False), ("cuda", {"cc", "Python.h"}, False),
    ],
)  # fmt: skip
def test_a_compiler_is_all_that_it_needs(
    place: str, there: set[str], found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "Python.h" in there:
        (tmp_path / "Python.h").touch()
    monkeypatch.setattr(compiling.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(compiling.shutil, "which", lambda name: name if name in there else None)
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: name if name in there else None)
    assert compiling.compiler(place) is found


# -- records ---------------------------------------------------------------------------------------


def test_a_record_says_all_sizes_and_all_arithmetics_of_its_parts(tmp_path: Path) -> None:
    def done(size: int) -> Done:
        return Done(Task(trained(), None, tmp_path), 1.0, {"precision": "tf32", "microbatch": size, "compiled": False})

    for sizes, said in (((64, 64), 64), ((64, 16), "16, 64")):
        job = Job(trained(), tmp_path, {}, set(), [done(size) for size in sizes], {}, None)
        for one in job.about:
            job.made_by(one.provenance)
        about = provenance(job, "none")
        assert (about["microbatch"], about["precision"], about["compiled"]) == (said, "tf32", False)


def test_the_gpu_in_use_is_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver:
        def cuDeviceGet(self, handle: Any, number: int) -> int:
            self.asked = number
            return 0

        def cuDeviceGetName(self, name: Any, length: int, handle: Any) -> int:
            name.value = f"GPU {self.asked}".encode()
            return 0

    monkeypatch.setattr(machine, "gpus", lambda: 2)
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: Driver())
    assert [machine.here(name) for name in ("auto", "cuda", "cuda:1")] == ["GPU 0", "GPU 0", "GPU 1"]

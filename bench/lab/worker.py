"""The worker: trains, crafts and judges what a task names, with the models and images it has at hand."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench import Refused, UserError
from bench.lab.attacks import Crafted
from bench.lab.compute.passes import Compute, keep_memory, pick_device
from bench.lab.compute.precision import IMAGES, Fitting
from bench.lab.craft import craft
from bench.lab.foreign.met import Met
from bench.lab.images import load as datasets
from bench.lab.judge import Judged, judge, part
from bench.lab.provenance import made_with
from bench.lab.streams import Streams
from bench.lab.weights.build import build
from bench.lab.weights.defend import over
from bench.lab.weights.files import load as load_weights
from bench.models.classifier import Classifier
from bench.models.smoothing import Smoothed
from bench.recipes import PGD, Clean, Data, Distilled, Examples, Fetched, Mixture, Model, Outcomes, Peer, Trained

from bench.recipes import Strong, Weights, targets_of  # isort: skip
from bench.recipes.base import Arithmetic
from bench.store.bought import of_record
from bench.store.cost import gradients
from bench.store.disk import write_part, writing
from bench.store.machine import arithmetic, processor
from bench.store.records import Store
from bench.store.sealed import Damaged
from bench.store.tasks import Done, Hooks, Settings, Task, rows, shards
from bench.votes.votes import Votes, from_parquet, to_parquet

KEPT = 4  # models a worker keeps at hand


class Lab:
    """One worker's models, images and device. `hooks` report progress and ask whether to stop.

    `images` are splits that have been read already, by `Data.source`; `held` are models that the program has in
    memory, by the keys of their weights.
    """

    def __init__(
        self,
        settings: Settings,
        hooks: Hooks | None = None,
        images: Mapping[tuple[str, str, str], datasets.Images] | None = None,
        held: Mapping[str, Classifier] | None = None,
    ) -> None:
        self.settings = settings
        self.hooks = hooks or Hooks()
        self.store = Store(settings.root)
        self.device = pick_device(settings.device)
        keep_memory(self.device)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        # PyTorch's own default on a GPU that has it: convolutions of float32 numbers rounded to 10 bits of mantissa.
        torch.backends.cudnn.allow_tf32 = not settings.exact
        self.notes: list[str] = []
        self.fitting = Fitting(self.device, settings.exact, self.notes.append)
        self.met = Met(self.notes.append)
        self._reader = ThreadPoolExecutor(1)
        self._ahead: dict[tuple[str, int], Future[Crafted]] = {}
        self._last: tuple[str, int] | None = None
        self.held = dict(held or {})
        self._models: OrderedDict[str, Classifier] = OrderedDict()
        self._described: tuple[str, dict[str, Any], Classifier] | None = None
        self._data: OrderedDict[tuple[str, str, str], datasets.Images] = OrderedDict(images or {})

    def perform(self, task: Task) -> Done:
        """Do one task; its result is in the task's folder when this returns, unless it says that it was refused."""
        start, compute = time.perf_counter(), self.compute()
        self.notes.clear()
        try:
            about = self._perform(task, compute)
        except Refused as error:
            return Done(task, time.perf_counter() - start, {}, tuple(self.notes), error)
        passes = {"forward_passes": compute.forwards, "backward_passes": compute.backwards}
        made = made_with(self.device, self.device_name, self._arithmetic) | passes | about
        return Done(task, time.perf_counter() - start, made, tuple(self.notes))

    def _perform(self, task: Task, compute: Compute) -> dict[str, Any]:
        about: dict[str, Any]
        match task.recipe:
            case Trained() | Distilled() as recipe:
                with writing(task.folder):
                    about = self.train(recipe, task.folder)
            case Fetched() as recipe if recipe.key in self.held:
                from bench.lab.weights.memory import describe as note

                about = note(recipe, task.folder)
            case Fetched() as recipe:
                from bench.lab.weights.fetch import describe

                about, classifier = describe(recipe, task.folder, self.store.root, self.settings.download)
                self._described = recipe.key, about["fetched"], classifier
            case Examples() as recipe:
                assert recipe.source is not None
                made = self.craft(recipe, _number(task.shard), compute)
                about = self.met.about(recipe.source, recipe.data, compute.precision)
                self.leave(task, made, about["precision"])
                about |= self.attack(recipe)
            case Outcomes() as recipe:
                votes = self.judge(recipe, _number(task.shard), compute)
                about = self.met.about(recipe.target, recipe.examples.data, compute.precision)
                self.leave(task, to_parquet(votes), about["precision"])
                about |= self.crafting(recipe.examples)
        return about

    def leave(self, task: Task, data: bytes, precision: str) -> None:
        """Put a part into the task's folder, with what it was made with: a record's parts may have several makers."""
        about = {"precision": precision, "device": self.device_name, "arithmetic": self._arithmetic}
        write_part(task.folder / f"{task.shard:05d}", data, about)

    @cached_property
    def device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else processor()

    @property
    def _arithmetic(self) -> str:
        return arithmetic(torch.__version__, torch.get_num_threads(), self.settings.microbatch, self.settings.exact)

    def compute(self) -> Compute:
        """How this lab computes, until `suit` knows for which model."""
        size, joining = self.settings.microbatch, not self.settings.exact
        return Compute(self.device, microbatch=size, note=self.notes.append, joining=joining)

    def suit(self, compute: Compute, declared: Arithmetic, model: Model, data: Data, *, judging: bool = True) -> None:
        """Have the passes through `model` computed as declared, in parts that this device takes best.

        A stranger's model is asked first: Refused where it cannot be judged (not `judging`: cannot be run at all).
        """
        few = Examples(data=data, shard=IMAGES)
        images = lambda: self.shard(few, 0)[0]  # noqa: E731
        if isinstance(model.weights, Fetched):
            classes = len(self.split(data).classes)
            self.met.ask(model, self.model(model), data, images, classes, judging=judging)
        self.fitting.suit(compute, declared, model.key, self.model(model), data.key, images)

    # -- the three steps -------------------------------------------------------------------------

    def train(self, recipe: Trained | Distilled, folder: Path) -> dict[str, Any]:
        """Train weights into `folder`; Paused if time is up or somebody asks to stop."""
        from bench.lab.train import Options, train

        images = self.images(recipe.data)
        teacher, targets = None, None
        if isinstance(recipe, Distilled):
            teacher = self.model(recipe.teacher)
            self.suit(self.compute(), "float32", recipe.teacher, recipe.data)
            self.fitting.teach(recipe.teacher.key, teacher)
            targets = self.targets(recipe)
        options = Options(
            max_seconds=None if self.settings.stop_at is None else max(0.0, self.settings.stop_at - time.time()),
            should_stop=self.hooks.should_stop,
            progress=self.hooks.progress,
            exact=self.settings.exact,
            tensorboard=self.settings.tensorboard,
        )
        state = self.store.scratch / "state" / recipe.key
        return train(
            recipe, images.images, images.labels, teacher=teacher, targets=targets, device=self.device,
            state_dir=state, out=folder, options=options,
        )  # fmt: skip

    def targets(self, recipe: Distilled) -> NDArray[np.float32] | None:
        """The cached teacher's probabilities (n, classes) for each training image, or None if online."""
        wanted = targets_of(recipe)
        if wanted is None:
            return None
        votes = self.votes(wanted)
        if recipe.rule == "vote":
            return np.asarray(votes.counts / votes.drawn[:, None], np.float32)
        probs = votes.probs.astype(np.float32)
        return np.asarray(probs / probs.sum(1, keepdims=True), np.float32)

    def craft(self, recipe: Examples, shard: int, compute: Compute) -> bytes:
        """One shard of examples as a safetensors file."""
        from safetensors.torch import save

        assert recipe.source is not None
        images, labels, _ = self.shard(recipe, shard)
        source = self.model(recipe.source, recipe.data)
        self.suit(compute, recipe.precision, recipe.source, recipe.data)
        if isinstance(recipe.attack, PGD) and not recipe.attack.early_stop:  # a batch that shrinks has no one shape
            forwards, slopes = gradients(recipe.attack)
            draws = recipe.attack.gradients_a_step
            self.fitting.compile(compute, recipe.source.key, source, recipe, forwards, slopes, draws=draws)
        streams = Streams(recipe.seed, shard, self.device)
        made = craft(recipe.attack, source, images, labels, streams, compute, claim=recipe.claim)
        tensors = {"images": made.images, "claimed": made.claimed}
        if made.iterates is not None:
            tensors["iterates"] = made.iterates
        said = {"account": made.account.text()} if made.account is not None else None
        return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, said)

    def attack(self, recipe: Examples) -> dict[str, Any]:
        """For another library's attack, the configuration that really ran."""
        if not isinstance(recipe.attack, Peer) or recipe.source is None:
            return {}
        from bench.lab.attacks.peers import effective

        return {"attack": effective(recipe.attack, self.model(recipe.source).classes)}

    def crafting(self, recipe: Examples) -> dict[str, Any]:
        """What the examples were computed in, for the provenance of whoever is judged on them."""
        record = None if isinstance(recipe.attack, Clean) else self.store.find(recipe)
        about = {} if record is None else record.manifest.get("provenance", {})
        told = ("precision", "device", "device_type", "arithmetic")
        said = {f"crafting_{name}": about[name] for name in told if name in about}
        bought = of_record(record) if record is not None and isinstance(recipe.attack, Strong) else None
        return said if bought is None else said | {"bought": bought}

    def judge(self, recipe: Outcomes, shard: int, compute: Compute, chosen: NDArray[np.int64] | None = None) -> Votes:
        """The votes on one shard, or on the chosen rows of it."""
        judged = self.judged(recipe, shard)
        if chosen is not None:
            judged = part(judged, chosen)
        streams = Streams(recipe.seed, shard, self.device)
        target = self.model(recipe.target, recipe.examples.data)
        self.suit(compute, recipe.precision, recipe.target, recipe.examples.data)
        if recipe.stopping.kind == "fixed":
            draws = recipe.draws
            self.fitting.compile(compute, recipe.target.key, target, recipe.examples, float(draws), 0.0, draws=draws)
        return judge(target, judged, recipe.draws, recipe.stopping, streams, compute)

    # -- what they need --------------------------------------------------------------------------

    def judged(self, recipe: Outcomes, shard: int) -> Judged:
        """The images of one shard as the judge sees them."""
        clean, labels, index = self.shard(recipe.examples, shard)
        if isinstance(recipe.examples.attack, Clean):
            nothing = np.zeros(len(index), np.float32)
            return Judged(clean, labels, index, nothing, np.full(len(index), -1, np.int8))
        made = self.crafted(recipe.examples, shard)
        images = made.images
        if recipe.iterate is not None:
            assert made.iterates is not None
            images = made.iterates[recipe.iterate]
        images = images.to(self.device)
        linf = (images - clean).abs().flatten(1).amax(1)
        claimed = made.claimed if recipe.iterate is None else torch.full_like(made.claimed, -1)
        return Judged(images, labels, index, linf.cpu().numpy(), claimed.cpu().numpy().astype(np.int8))

    def crafted(self, recipe: Examples, shard: int) -> Crafted:
        """One shard of examples from the store; while it is worked on, the next is read."""
        waiting = self._ahead.pop((recipe.key, shard), None)
        made = self._read(recipe, shard) if waiting is None else waiting.result()
        self._ahead.clear()
        follows, self._last = shard == 0 or self._last == (recipe.key, shard - 1), (recipe.key, shard)
        if follows and shard + 1 in shards(recipe):  # of several workers none has them all
            self._ahead[recipe.key, shard + 1] = self._reader.submit(self._read, recipe, shard + 1)
        return made

    def _read(self, recipe: Examples, shard: int) -> Crafted:
        from safetensors.torch import load

        record = self.store.find(recipe)
        if record is None:
            raise UserError(str(self.store.place(recipe)), "the examples are not there", "run the suite again")
        tensors = load(record.read(f"{shard:05d}.safetensors"))
        return Crafted(tensors["images"], tensors["claimed"], tensors.get("iterates"))

    def pictures(self, recipe: Outcomes, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The first `count` images of shard 0, (n, 3, h, w) in [0, 1], before and after the attack."""
        before, after = self.shard(recipe.examples, 0)[0], self.judged(recipe, 0).images
        return before[:count].cpu().numpy(), after[:count].cpu().numpy()

    def shard(self, recipe: Examples, shard: int) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
        """Images (n, 3, h, w) float32 and labels (n,) on the device, and their index in the split."""
        images = self.split(recipe.data)
        chosen = datasets.rows_of(recipe.data, len(images.images))[rows(recipe, shard)]
        some = images.take(chosen)
        pixels = datasets.as_tensor(some.images).to(self.device)
        return pixels, torch.from_numpy(some.labels).to(self.device), some.index

    def images(self, data: Data) -> datasets.Images:
        """The images of a recipe's data, in its order."""
        images = self.split(data)
        return images.take(datasets.rows_of(data, len(images.images))[data.start : data.stop])

    def split(self, data: Data) -> datasets.Images:
        """All images of a recipe's split, in the data set's own order."""
        if data.source not in self._data:
            self._data[data.source] = datasets.of(
                data, self.settings.data_root, download=self.settings.download, kept=self.store.images
            )
            while len(self._data) > 2:
                self._data.popitem(last=False)
        return self._data[data.source]

    def model(self, model: Model, data: Data | None = None) -> Classifier:
        """The classifier of a model recipe, in eval mode, parameters frozen; laid out for images of `data`."""
        if model.key in self._models:
            self._models.move_to_end(model.key)
            return self._models[model.key]
        classifier = self._weights(model.weights)
        if model.defence is not None:
            other = self._weights(model.defence.other) if isinstance(model.defence, Mixture) else None
            classifier = over(model.defence, classifier, other)
        if model.sigma:
            std = getattr(getattr(classifier, "net", None), "std", None)
            classifier = Smoothed(classifier, float(model.sigma), model.unit, std)
        classifier = classifier.to(self.device).eval().requires_grad_(False)
        self.fitting.settle(model.key, classifier, (data or Data()).of_image)
        classifier.eval()  # in case that its first pass has switched it
        self._models[model.key] = classifier
        while len(self._models) > KEPT:
            self._models.popitem(last=False)
        return classifier

    def _weights(self, weights: Weights) -> Classifier:
        described, self._described = self._described, None
        if weights.key in self.held:
            return self.held[weights.key]
        match weights:
            case Fetched() as recipe:
                from bench.lab.weights.fetch import differs, fetch

                if described is not None and described[0] == recipe.key:  # loaded a moment ago
                    _, found, classifier = described
                    if differs(recipe, found, self.store.root) is None:
                        return classifier
                return fetch(recipe, self.store.root, self.settings.download)
            case Trained() | Distilled() as recipe:
                record = self.store.find(recipe, thorough=True)
                if record is None:
                    raise UserError(str(self.store.place(recipe)), "the weights are not there", "run the suite again")
                return build(recipe, load_weights(record.path))

    def votes(self, recipe: Outcomes) -> Votes:
        """A record's votes; UserError if they are not there."""
        record = self.store.find(recipe)
        if record is None:
            raise UserError(str(self.store.place(recipe)), "the outcomes are not there", "run the suite again")
        try:
            return from_parquet(record.read("votes.parquet"))
        except (Damaged, ValueError) as error:
            raise UserError(str(record.path), str(error), "delete this folder and run again") from None


def _number(shard: int | None) -> int:
    assert shard is not None
    return shard

"""The worker: trains, crafts and judges what a task names, with the models and images it has at hand."""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench import Refused
from bench.lab.at_hand import AtHand
from bench.lab.compute.device import arithmetic_of
from bench.lab.compute.passes import Compute
from bench.lab.compute.precision import IMAGES
from bench.lab.craft import craft
from bench.lab.foreign.met import alike
from bench.lab.judge import Judged, judge, part
from bench.lab.provenance import made_with
from bench.lab.streams import Streams
from bench.lab.weights.fetch import name_of
from bench.recipes import PGD, Clean, Data, Distilled, Examples, Fetched, Model, Outcomes, Peer, Trained

from bench.recipes import Strong, Worst, targets_of  # isort: skip
from bench.recipes.base import Arithmetic
from bench.store.bought import of_record
from bench.store.cost import gradients
from bench.store.disk import write_part, writing
from bench.store.machine import arithmetic, processor
from bench.store.tasks import Done, Task
from bench.votes.votes import Votes, to_parquet


class Lab(AtHand):
    """A worker: what its tasks name is trained, crafted and judged with what it has at hand."""

    def perform(self, task: Task) -> Done:
        """Do one task; its result is in the task's folder when this returns, unless it says that it was refused."""
        start, compute = time.perf_counter(), self.compute()
        self.notes[:], self.warnings = self.warnings, []
        try:
            about = self._perform(task, compute)
        except Refused as error:
            return Done(task, time.perf_counter() - start, {}, tuple(self.notes), error)
        passes = {"forward_passes": compute.forwards, "backward_passes": compute.backwards}
        made = made_with(self.device, self.device_name, self._arithmetic, self.settings.exact) | passes | about
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
                about = self.passes(recipe.source, recipe.data, compute)
                self.leave(task, made, about)
                about |= self.attack(recipe)
            case Outcomes() as recipe:
                votes = self.judge(recipe, _number(task.shard), compute)
                about = self.passes(recipe.target, recipe.examples.data, compute)
                self.leave(task, to_parquet(votes), about)
                about |= self.crafting(recipe.examples)
        return about

    def passes(self, model: Model, data: Data, compute: Compute) -> dict[str, Any]:
        """How a model's passes were computed in the end, for the provenance."""
        about = self.met.about(model, data, compute.precision)
        about["precision"] = arithmetic_of(about["precision"], self.device, self.settings.exact)
        return about | {"microbatch": compute.microbatch, "compiled": self.fitting.is_compiled(model.key)}

    def leave(self, task: Task, data: bytes, about: dict[str, Any]) -> None:
        """Put a part into the task's folder, with what it was made with: a record's parts may have several makers."""
        told = {name: about[name] for name in ("precision", "microbatch", "compiled")}
        told |= {"device": self.device_name, "arithmetic": self._arithmetic}
        write_part(task.folder / f"{task.shard:05d}", data, told)

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
        else:
            self.fitting.plain(recipe.source.key)
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
        bought = of_record(record) if record is not None and isinstance(recipe.attack, Strong | Worst) else None
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
        votes = judge(target, judged, recipe.draws, recipe.stopping, streams, compute)
        if isinstance(recipe.target.weights, Fetched) and not target.stochastic:
            once_more = judge(target, judged, recipe.draws, recipe.stopping, streams, compute)
            alike(votes, once_more, name_of(recipe.target.weights))
        return votes

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

    def pictures(self, recipe: Outcomes, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The first `count` images of shard 0, (n, 3, h, w) in [0, 1], before and after the attack."""
        before, after = self.shard(recipe.examples, 0)[0], self.judged(recipe, 0).images
        return before[:count].cpu().numpy(), after[:count].cpu().numpy()


def _number(shard: int | None) -> int:
    assert shard is not None
    return shard

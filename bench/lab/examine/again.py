"""Records made again for an audit: rows or whole shards, as they were recorded or in another arithmetic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.lab.compute.passes import Compute
from bench.lab.craft import craft
from bench.lab.images import load as datasets
from bench.lab.judge import Judged, judge, part
from bench.lab.streams import Streams
from bench.lab.worker import Lab
from bench.models.classifier import Classifier, Realisation
from bench.recipes import Clean, Fetched, Model, Outcomes
from bench.store.machine import arithmetic, sizes
from bench.store.tasks import Settings, rows, shards
from bench.votes.votes import Votes, concatenate

OTHER_SEED = 1 << 61  # added to a recipe's seed for other draws: no suite names so large a one


@dataclass(frozen=True)
class Way:
    """How votes are made again: as the `record`'s provenance says, but for `other`: "arithmetic", "draws" or ""."""

    record: Mapping[str, Any]
    other: str = ""

    def settle(self, lab: Lab, compute: Compute, model: Model, outcomes: Outcomes, name: str) -> None:
        """Have passes through `model` computed so; `name` is the provenance's for its precision."""
        found = sizes(str(self.record.get("arithmetic")))
        if found is not None:
            _, compute.microbatch, exact = found
            compute.joining = not exact
        declared = self.record.get(name, "auto")
        if declared in ("float16", "float64", "tf32"):  # a stranger's own weights, a GPU's word: passes are as they are
            declared = "float32"
        lab.suit(compute, declared if declared in ("float32", "bfloat16") else "auto", model, outcomes.examples.data)
        if self.other == "arithmetic":
            rounded = self.record.get("tf32") and lab.device.type == "cpu"  # bfloat16 is coarser still than tf32
            compute.precision = "bfloat16" if rounded and compute.precision == "float32" else "float32"
            compute.microbatch, compute.joining = max(1, compute.microbatch * 3 // 8), False


class Again:
    """Makes votes again on this machine. `mode` says what a comparison with a record can ask for."""

    def __init__(self, settings: Settings) -> None:
        self.lab = Lab(settings)

    def mode(self, outcomes: Outcomes, record: Mapping[str, Any]) -> str:
        """How near a record with this provenance is to what this machine makes.

        "as recorded": the same processor, torch, threads and parts, so the same bits. "other arithmetic": the
        same noise and the same random starts, other last bits. "other draws": neither, because another type of
        device draws other numbers, or because nobody knows how a stranger's model draws its own.
        """
        examples = outcomes.examples
        attacked = not isinstance(examples.attack, Clean)
        made = [record]
        if attacked:
            made.append({name.removeprefix("crafting_"): said for name, said in record.items() if "crafting_" in name})
        if self.lab.device.type == "cpu" and all(self._like(one) for one in made):
            return "as recorded"
        random = outcomes.target.stochastic or attacked
        strange = _strange(outcomes.target) or _strange(examples.source)
        types = {str(one.get("device_type")) for one in made}
        return "other draws" if random and (strange or types != {self.lab.device.type}) else "other arithmetic"

    def _like(self, made: Mapping[str, Any]) -> bool:
        """Whether this machine makes the same bits, given the same number of threads and the same parts."""
        said = str(made.get("arithmetic"))
        found = sizes(said)
        like = found is not None and said == arithmetic(torch.__version__, *found)
        return like and made.get("device") == self.lab.device_name

    def originals(self, outcomes: Outcomes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index and label of every image of a record, from the data that is here."""
        examples = outcomes.examples
        images = self.lab.split(examples.data)
        order = datasets.rows_of(examples.data, len(images.images))
        some = images.take(np.concatenate([order[rows(examples, shard)] for shard in shards(examples)]))
        return np.asarray(some.index, np.int64), np.asarray(some.labels, np.int64)

    def votes(self, outcomes: Outcomes, chosen: NDArray[np.int64], record: Mapping[str, Any], other: str = "") -> Votes:
        """The votes on these rows (ascending), in that order, with the weights that are here.

        `record` is the record's provenance. `other` is "arithmetic", for the same in another arithmetic than
        this machine would choose, or "draws", for fresh noise and random starts. UserError if it cannot be done.
        """
        size, way = outcomes.examples.shard, Way(record, other)
        with self._switched(way):
            return concatenate([
                self._shard(outcomes, int(number), way, chosen[chosen // size == number] - number * size)
                for number in np.unique(chosen // size)
            ])  # fmt: skip

    def whole(self, outcomes: Outcomes, numbers: Sequence[int], record: Mapping[str, Any]) -> Votes:
        """The votes on whole shards, each made exactly as a run makes it."""
        way = Way(record)
        with self._switched(way):
            return concatenate([self._shard(outcomes, number, way) for number in numbers])

    @contextlib.contextmanager
    def _switched(self, way: Way) -> Iterator[None]:
        threads, found = torch.get_num_threads(), sizes(str(way.record.get("arithmetic")))
        with contextlib.ExitStack() as switches:
            if way.other == "arithmetic":
                # PyTorch's own convolutions in place of oneDNN's or cuDNN's: other sums in another order.
                before = torch.backends.mkldnn.set_flags(_enabled=False)[0]  # type: ignore[no-untyped-call]
                switches.callback(torch.backends.mkldnn.set_flags, before)
                switches.enter_context(torch.backends.cudnn.flags(enabled=False))
            elif found is not None and self._like(way.record):
                torch.set_num_threads(found[0])
            try:
                yield
            finally:
                torch.set_num_threads(threads)

    def _shard(self, outcomes: Outcomes, shard: int, way: Way, chosen: NDArray[np.int64] | None = None) -> Votes:
        lab, examples = self.lab, outcomes.examples
        crafting, judging, seed = lab.compute(), lab.compute(), OTHER_SEED if way.other == "draws" else 0
        clean, labels, index = lab.shard(examples, shard)
        source = None
        if examples.source is not None:
            source = lab.model(examples.source)
            way.settle(lab, crafting, examples.source, outcomes, "crafting_precision")
        picked = None if chosen is None else torch.from_numpy(chosen).to(lab.device)
        streams = Streams(examples.seed + seed, shard, lab.device)
        made = craft(examples.attack, source, clean, labels, streams, crafting, rows=picked, claim=examples.claim)
        images = made.images if outcomes.iterate is None or made.iterates is None else made.iterates[outcomes.iterate]
        linf = (images - clean).abs().flatten(1).amax(1).cpu().numpy()
        claimed = made.claimed if outcomes.iterate is None else torch.full_like(made.claimed, -1)
        judged = Judged(images, labels, index, linf, claimed.cpu().numpy().astype(np.int8))
        target, score = lab.model(outcomes.target), Streams(outcomes.seed + seed, shard, lab.device)
        way.settle(lab, judging, outcomes.target, outcomes, "precision")
        if chosen is not None and picked is not None:
            target, judged = Among(target, clean.shape, picked), part(judged, chosen)
        return judge(target, judged, outcomes.draws, outcomes.stopping, score, judging)


class Among(Classifier):
    """A classifier asked about some rows of a batch only, each with the noise that it meets among all of them."""

    def __init__(self, whole: Classifier, shape: torch.Size, chosen: Tensor) -> None:
        super().__init__()
        self.whole, self.shape, self.chosen = whole, shape, chosen
        self.stochastic, self.classes, self.joins = whole.stochastic, whole.classes, whole.joins

    def realise(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None) -> Realisation:
        one, chosen = self.whole.realise(self.shape, generator), self.chosen

        def realisation(images: Tensor, rows: Tensor | slice | None = None) -> Tensor:
            return one(images, chosen if rows is None else chosen[rows])

        return realisation

    def realise_all(
        self,
        shape: torch.Size | tuple[int, ...],
        generators: Sequence[torch.Generator | None],
        rows: Tensor | None = None,
    ) -> Realisation:
        return self.whole.realise_all(self.shape, generators, self.chosen if rows is None else self.chosen[rows])


def _strange(model: Model | None) -> bool:
    """Whether a model draws noise in a way of its own, which may depend on what else is in the batch."""
    return model is not None and model.stochastic and isinstance(model.weights, Fetched)

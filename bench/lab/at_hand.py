"""What a worker has at hand: the images, models and records that its tasks ask for, each loaded once."""


from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench import UserError
from bench.lab.attacks import Crafted
from bench.lab.compute.device import passed_over, pick_device, switch
from bench.lab.compute.memory import keep_memory
from bench.lab.compute.precision import Fitting
from bench.lab.foreign.met import Met
from bench.lab.images import load as datasets
from bench.lab.weights.build import build
from bench.lab.weights.defend import over
from bench.lab.weights.files import load as load_weights
from bench.models.classifier import Classifier
from bench.models.smoothing import Smoothed
from bench.recipes import Data, Distilled, Examples, Fetched, Mixture, Model, Outcomes, Trained

from bench.recipes import Weights  # isort: skip
from bench.store.records import Store
from bench.store.sealed import Damaged
from bench.store.tasks import Hooks, Settings, rows, shards
from bench.votes.votes import Votes, from_parquet

KEPT = 4  # models a worker keeps at hand


class AtHand:
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
        switch(self.device, settings.exact)
        self.notes: list[str] = []
        self.warnings = [said] if (said := passed_over(settings.device, self.device)) else []  # with the first task
        self.fitting = Fitting(self.device, settings.exact, self.notes.append)
        self.met = Met(self.notes.append)
        self._reader = ThreadPoolExecutor(1)
        self._ahead: dict[tuple[str, int], Future[Crafted]] = {}
        self._last: tuple[str, int] | None = None
        self.held = dict(held or {})
        self._models: OrderedDict[str, Classifier] = OrderedDict()
        self._described: tuple[str, dict[str, Any], Classifier] | None = None
        self._data: OrderedDict[tuple[str, str, str], datasets.Images] = OrderedDict(images or {})

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

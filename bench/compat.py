"""AutoAttack with its authors' own interface (Croce & Hein 2020), and the line that it lacks.

``from bench.compat import AutoAttack`` instead of ``from autoattack import AutoAttack``: the same calls, the same
adversarial images, the same printed lines; for a model whose passes differ, one more: what fresh draws say. Its own
robust accuracy counts an image as broken if any one draw was, and so says little of such a model.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import UserError

if TYPE_CHECKING:
    from torch import Tensor

OWN = ("inner", "classes", "_began", "norm", "epsilon", "seed", "verbose", "version", "device", "log_path", "said")
DRAWS = 32


class AutoAttack:
    """`AutoAttack(model, norm, eps, ...)` of the authors' repository, run by their package pyautoattack.

    model: images (n, c, h, w) in [0, 1] to logits (n, classes). norm: "Linf", "L2" or "L1". version: "standard",
    "plus", "rand" or "custom" with `attacks_to_run`. Its parts (`apgd`, `apgd_targeted`, `fab`, `square`) can be set as
    there. With fewer than ten classes it takes as many targets as there are, and leaves out a DLR loss that is not
    defined for so few. `device`: "cuda", or the CPU where there is none. UserError without pyautoattack.
    """

    def __init__(
        self,
        model: Any,
        norm: str = "Linf",
        eps: float = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        attacks_to_run: Sequence[str] = (),
        *args: Any,
        version: str = "standard",
        is_tf_model: bool = False,
        device: Any = "cuda",
        log_path: str | Path | None = None,
    ) -> None:
        import torch

        named = dict(zip(("version", "is_tf_model", "device", "log_path"), args, strict=False))
        version, device = named.get("version", version), named.get("device", device)
        self.log_path = named.get("log_path", log_path)
        if named.get("is_tf_model", is_tf_model):
            raise UserError("AutoAttack: is_tf_model", "models are PyTorch's here", "use the authors' own package")
        try:
            import pyautoattack
        except ImportError:
            raise UserError("AutoAttack", "pyautoattack is not installed", "pip install 'freshdraws[peers]'") from None
        if not torch.cuda.is_available() and str(device).startswith("cuda"):
            device = "cpu"
        self.norm, self.epsilon, self.seed, self.verbose, self.version = norm, eps, seed, verbose, version
        self.device, self.classes = torch.device(device), 0
        given = list(attacks_to_run) or None
        with self._told():
            self.inner = pyautoattack.AutoAttack(
                model, attacks=given, device=self.device, eps=eps, norm=norm, seed=seed, version=version
            )
        if self.inner.attacks_to_run is None:
            self.inner.attacks_to_run = []

    def __getattr__(self, name: str) -> Any:
        if name in OWN:
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self.inner, name, value)

    def run_standard_evaluation(
        self,
        x_orig: Tensor,
        y_orig: Tensor,
        bs: int = 250,
        return_labels: bool = False,
        state_path: str | Path | None = None,
    ) -> Any:
        """Adversarial images (n, c, h, w), with `return_labels` also the classes (n,) that the model gave them.

        x_orig: images (n, c, h, w) float32 in [0, 1]; y_orig: labels (n,) int64; bs: images at once. `state_path`: a
        file to go on from. An image that no attack broke is returned as it was.
        """
        self._fitted(x_orig)
        with self._told():
            state = None if state_path is None else Path(state_path)
            x_adv, y_adv = self.inner.run_standard_evaluation(x_orig, y_orig, batch_size=bs, state_path=state)
            self._fresh(x_adv, y_orig, bs)
        return (x_adv, y_adv) if return_labels else x_adv

    def run_standard_evaluation_individual(
        self, x_orig: Tensor, y_orig: Tensor, bs: int = 250, return_labels: bool = False
    ) -> dict[str, Any]:
        """Each attack by itself on all images: its adversarial images by its name, as `run_standard_evaluation`."""
        self._fitted(x_orig)
        wanted, verbose = list(self.inner.attacks_to_run), self.inner.verbose
        try:
            with self._told():
                found = self.inner.run_standard_evaluation_individual(x_orig, y_orig, batch_size=bs)
                for name in wanted:
                    self._fresh(found[name][0], y_orig, bs, f" by {name.upper()}")
        finally:
            self.inner.attacks_to_run, self.inner.verbose = wanted, verbose
        return {name: pair if return_labels else pair[0] for name, pair in found.items()}

    def clean_accuracy(self, x_orig: Tensor, y_orig: Tensor, bs: int = 250) -> float:
        """The share of images that one pass gets right."""
        with self._told():
            return float(self.inner.clean_accuracy(x_orig, y_orig, bs=bs))

    def _fitted(self, images: Tensor) -> None:
        """Learn how many classes there are, and take that many targets."""
        from bench.api.asking import logits_of
        from bench.lab.attacks.peers.autoattack import fit

        self.classes = int(logits_of(self.inner.model, images[:2].to(self.device), 0).shape[1])
        for words in fit(self.inner, self.classes):
            self._say(words)

    def _fresh(self, images: Tensor, labels: Tensor, bs: int, which: str = "") -> None:
        """Judge the images on fresh draws, if passes differ; what was attacked for hours is given back in any case."""
        try:
            self._judged(images, labels, bs, which)
        except (UserError, RuntimeError) as error:
            self._say(f"Warning: not judged on fresh draws: {error}")

    def _judged(self, images: Tensor, labels: Tensor, bs: int, which: str) -> None:
        from bench.api.model import asked
        from bench.api.numbers import numbers
        from bench.lab.compute.passes import Compute
        from bench.lab.judge import Judged, judge
        from bench.lab.streams import Streams
        from bench.recipes import Stopping

        x, y = images.detach().float().to(self.device), labels.to(self.device)
        classifier = asked(self.inner.model, x[:8]).classifier
        if classifier is None or not classifier.stochastic:
            return
        import numpy as np

        n = len(x)
        shard = Judged(x, y, np.arange(n), np.zeros(n, np.float32), np.full(n, -1, np.int8))
        streams = Streams(0 if self.seed is None else int(self.seed), 0, self.device)
        votes = judge(classifier, shard, DRAWS, Stopping(), streams, Compute(self.device, microbatch=bs))
        found = numbers(votes, True)
        words = f"fresh draws{which}: {100 * found.expected.value:.2f}% ({100 * found.expected.low:.2f}% to "
        self._say(
            f"robust accuracy on {words}{100 * found.expected.high:.2f}%), vote of {DRAWS}: {found.vote.value:.2%}"
        )

    def _say(self, words: str) -> None:
        if self.verbose:
            print(words)
            if self.log_path is not None:
                with open(self.log_path, "a") as file:
                    print(words, file=file)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Print what the library logs, as the authors' own version prints it."""
        logger, handler = logging.getLogger("auto-attack"), _Printed(self)
        level, propagate = logger.level, logger.propagate
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


class _Printed(logging.Handler):
    """A logger's lines as prints, but for those that the authors' version has not."""

    def __init__(self, of: AutoAttack) -> None:
        super().__init__(logging.DEBUG)
        self.of = of

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage()
        if not words.startswith("running "):
            self.of._say(f"Warning: {words}" if record.levelno >= logging.WARNING else words)

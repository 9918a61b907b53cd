"""What a training is given, checked against its recipe before any work."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench import UserError
from bench.models.classifier import Classifier
from bench.recipes import Distilled, Trained


class Inputs(NamedTuple):
    """images (n, h, w, c) uint8; labels (n,) int64; targets (n, classes) float32 or None; on the CPU."""

    images: Tensor
    labels: Tensor
    targets: Tensor | None


def checked(
    recipe: Trained | Distilled,
    images: Tensor | NDArray[np.uint8],
    labels: Tensor | NDArray[np.int64],
    teacher: Classifier | None,
    targets: NDArray[np.float32] | None,
) -> Inputs:
    """The inputs as tensors; UserError, naming the recipe's key, for what does not fit the recipe."""
    name, training = f"{type(recipe).__name__} {recipe.key[:12]}", recipe.training
    pixels, answers = torch.as_tensor(images).cpu(), torch.as_tensor(labels).cpu().long()
    channels = len(recipe.data.scale[0])
    if pixels.dtype != torch.uint8 or pixels.dim() != 4 or channels not in (pixels.shape[1], pixels.shape[3]):
        what = f"images are {pixels.dtype} {tuple(pixels.shape)}"
        raise UserError(f"{name}: data", what, f"networks are trained on bytes: uint8 (n, h, w, {channels})")
    if pixels.shape[3] != channels:
        pixels = pixels.permute(0, 2, 3, 1).contiguous()
    n, classes = len(pixels), recipe.network.classes
    if len(answers) != n:
        raise UserError(f"{name}: data", f"{n} images but {len(answers)} labels", "one label for each image")
    kept = n - training.validation
    if kept < training.batch:
        what = f"{n} images, {training.validation} of them held out, do not fill one batch of {training.batch}"
        raise UserError(f"{name}: data", what, "take more images, or smaller training.batch or training.validation")
    if int(answers.min()) < 0 or int(answers.max()) >= classes:
        what = f"label {int(answers.max())} in the data, but the network has {classes} classes"
        raise UserError(f"{name}: network.classes", what, f"set classes = {int(answers.max()) + 1}")
    if len(training.optimiser.betas) != 2:
        raise UserError(f"{name}: training.optimiser.betas", f"{len(training.optimiser.betas)} numbers", "two numbers")
    return Inputs(pixels, answers, _taught(recipe, name, n, teacher, targets))


def _taught(
    recipe: Trained | Distilled, name: str, n: int, teacher: Classifier | None, targets: NDArray[np.float32] | None
) -> Tensor | None:
    if not isinstance(recipe, Distilled):
        return None
    training, classes = recipe.training, recipe.network.classes
    share = 0.0 if training.attack is None else training.adversarial_weight
    clean, perturbed = share < 1 and recipe.distil_weight > 0, share > 0 and recipe.perturb_distil_weight > 0
    if teacher is None and (perturbed or (clean and recipe.targets == "online")):
        why = "perturbed batches are always judged online" if perturbed else 'targets = "online"'
        raise UserError(f"{name}: teacher", f"the teacher is missing, and {why}", "train or fetch the teacher first")
    if teacher is not None and teacher.classes != classes:
        what = f"the teacher tells {teacher.classes} classes apart, the student {classes}"
        raise UserError(f"{name}: teacher", what, f"set network.classes = {teacher.classes}, or take another teacher")
    if not clean or recipe.targets == "online":
        return None
    if targets is None:
        raise UserError(f"{name}: targets", "the teacher's cached outputs are missing", "judge the teacher first")
    if recipe.rule == "soft" and recipe.temperature != 1:
        what = f"cached soft outputs are made at temperature 1, not {recipe.temperature:g}"
        fix = 'set targets = "online", rule = "vote" or temperature = 1'
        raise UserError(f"{name}: temperature", what, fix)
    array = np.asarray(targets, np.float32)
    if array.shape != (n, classes):
        what = f"the teacher's outputs are {array.shape}, the data need {(n, classes)}"
        raise UserError(f"{name}: targets", what, "make them anew, on the same data")
    # float16 records sum to one within their rounding; so are they used, but exactly normalised.
    sums = array.sum(1, keepdims=True)
    if not np.isfinite(array).all() or (array < 0).any() or (np.abs(sums - 1) > 0.02).any():
        raise UserError(f"{name}: targets", "the teacher's outputs are not probabilities", "make them anew")
    return torch.from_numpy(array / sums)

"""AutoAttack (Croce & Hein 2020, arXiv 2003.01690) through pyautoattack, its authors' package.

`name` is the version: standard, plus, rand, or custom with ``attacks = [...]``. Arguments:
`batch_size` (default: the shard; the library seeds its generator anew for each batch), `seed`,
and for each part a table of what it is to have instead of the version's own, such as
``apgd = { n_iter = 50 }``; parts are apgd, apgd_targeted, fab and square.

What to know of it: a point counts as fooled if any one draw was wrong, and the original image is
returned for the others. Scored by its own belief a randomised defence looks weaker than it is,
and on fresh draws stronger, for many of its images are not attacked at all. So on a stochastic
source each part attacks every image here, and hands over its iterate of highest loss, of which
selection draws choose; what AutoAttack itself does there is called so: "rand, as published".
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import torch
from torch import Tensor, nn

from bench import UserError, nearest
from bench.lab.attacks.peers.fence import Answer, Drawn, arguments_of, name_of
from bench.recipes import Peer

VERSIONS = ("standard", "plus", "rand", "custom")
PUBLISHED = ", as published"
"""Ends the name of a version that is to run on a stochastic source just as its authors' code does."""
ATTACKS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")
PARTS = {
    "apgd": ("n_iter", "n_restarts", "eot_iter", "thr_decr", "use_largereps"),
    "apgd_targeted": ("n_iter", "n_restarts", "eot_iter", "thr_decr", "use_largereps", "n_target_classes"),
    "fab": ("n_iter", "n_restarts", "alpha_max", "eta", "beta", "n_target_classes"),
    "square": ("n_queries", "n_restarts", "p_init", "rescale_schedule", "loss"),
}


def run(attack: Peer, model: Drawn, images: Tensor, labels: Tensor, seed: int) -> Answer:
    """The images and the any-hit flags of one evaluation; of a stochastic source each part's iterates instead."""
    made = build(attack, model, model.classes, images.device, seed=seed)
    size = attack.arguments.get("batch_size", len(images))
    if model.stochastic and not attack.name.endswith(PUBLISHED):
        starts = range(0, len(images), size)
        batches = [(images[start : start + size], labels[start : start + size]) for start in starts]
        candidates = [
            torch.cat(turn)
            for part in made.attacks_to_run
            for turn in zip(*(_iterates(made, part, *batch) for batch in batches), strict=True)
        ]
        return Answer(candidates[0], others=tuple(candidates[1:]))
    crafted, believed = made.run_standard_evaluation(images, labels, batch_size=size)
    return Answer(crafted, believed != labels)


def _iterates(made: Any, part: str, images: Tensor, labels: Tensor) -> list[Tensor]:
    """What a part reaches from all images (n, 3, h, w), whether or not a draw was wrong: of each restart and target
    class the iterate of highest loss, and the last one that fooled a draw."""
    seed = made.get_seed()
    torch.random.manual_seed(seed)
    if part == "square":
        made.square.init_hyperparam(images)
        with torch.no_grad():
            tries = range(made.square.n_restarts)
            return [made.square.attack_single_run(images.clone(), labels.clone())[1] for _ in tries]
    if part in ("fab", "fab-t"):
        made.fab.seed, made.fab.targeted = seed, part == "fab-t"
        made.fab.n_restarts = 1 if made.fab.targeted else made.fab.n_restarts  # as the library has it
        with torch.no_grad():
            return [made.fab.perturb(images.clone(), labels.clone())]
    apgd = made.apgd_targeted if part == "apgd-t" else made.apgd
    apgd.init_hyperparam(images)
    apgd.loss = {"apgd-ce": "ce", "apgd-dlr": "dlr", "apgd-t": "dlr-targeted"}[part]
    reached: list[Tensor] = []
    for target in range(2, apgd.n_target_classes + 2) if part == "apgd-t" else (0,):
        for _ in range(apgd.n_restarts):
            with torch.no_grad():
                if target:
                    apgd.y_target = made.get_logits(images).sort(dim=1)[1][:, -target]
                best, _, _, fooling = apgd.attack_single_run(images.clone(), labels.clone())
            reached += [best.detach(), fooling.detach()]
    return reached


def effective(attack: Peer, classes: int = 10) -> dict[str, Any]:
    """Attacks in their order, and the settings of the parts that they use."""
    made = build(attack, nn.Identity(), classes, "cpu", 0)
    attacks = list(made.attacks_to_run)
    uses = {
        "apgd": {"apgd-ce", "apgd-dlr"}, "apgd_targeted": {"apgd-t"}, "fab": {"fab", "fab-t"}, "square": {"square"},
    }  # fmt: skip
    parts = {
        part: {name: getattr(getattr(made, part), name) for name in names}
        for part, names in PARTS.items()
        if uses[part] & set(attacks)
    }
    if "fab-t" in attacks and "fab" in parts:
        parts["fab"]["n_restarts of fab-t"] = 1  # the library sets it just before it runs
    version = importlib.metadata.version("pyautoattack")
    size = attack.arguments.get("batch_size", "shard")
    settings = {"library": f"pyautoattack {version}", "version": attack.name, "norm": attack.norm}
    return {**settings, "eps": float(attack.eps), "batch_size": size, "attacks": attacks, **parts}


def build(attack: Peer, model: nn.Module, classes: int, device: Any, seed: int) -> Any:
    """The library's AutoAttack; UserError for an unknown version, attack, part or setting."""
    from pyautoattack import AutoAttack

    where, given = name_of(attack), arguments_of(attack)
    version = attack.name.removesuffix(PUBLISHED)
    if version not in VERSIONS:
        raise UserError(where, "AutoAttack has no such version", nearest(attack.name, VERSIONS))
    attacks = given.pop("attacks", None)
    if (attacks is None) == (version == "custom"):
        fix = f"custom takes attacks = [...], of {', '.join(ATTACKS)}, and no other version does"
        raise UserError(f"{where}: attacks", "they do not go with this version", fix)
    for name in attacks or ():
        if name not in ATTACKS:
            raise UserError(f"{where}: attacks", f"AutoAttack has no {name!r}", nearest(str(name), ATTACKS))
    given.pop("batch_size", None)
    seed = given.pop("seed", seed)
    for part, settings in given.items():
        if part not in PARTS:
            raise UserError(
                f"{where}: {part}", "it has no such argument", nearest(part, [*PARTS, "attacks", "batch_size", "seed"])
            )
        for name in settings:
            if name not in PARTS[part]:
                raise UserError(f"{where}: {part}.{name}", "it has no such setting", nearest(name, PARTS[part]))
    eps = float(attack.eps)
    made = AutoAttack(model, attacks=attacks, device=device, eps=eps, norm=attack.norm, seed=seed, version=version)
    left = fit(made, classes)
    if attack.name == "custom" and left:
        raise UserError(f"{where}: attacks", left[0], "leave it out")
    for part, settings in given.items():
        for name, value in settings.items():
            setattr(getattr(made, part), name, value)
        if "n_iter" in settings and part.startswith("apgd"):
            _checkpoints(getattr(made, part))
    return made


def fit(made: Any, classes: int) -> list[str]:
    """Have a library's AutoAttack take as many targets as there are, and leave out losses that are not defined.

    DLR divides by the gap to the third class, the targeted one by that to the fourth (Croce & Hein 2020, eq. 6 and 7);
    with three classes APGD on the DLR loss stands in for APGD-T. Returns what was left out, in words.
    """
    for part in (made.apgd_targeted, made.fab):
        part.n_target_classes = min(part.n_target_classes, classes - 1)
    wanted, said = list(made.attacks_to_run), []
    for name, least, gap in (("apgd-dlr", 3, "third"), ("apgd-t", 4, "fourth")):
        if name in wanted and classes < least:
            said.append(f"{name} needs {least} classes, there are {classes}: its loss divides by the gap to the {gap}")
            stands = ["apgd-dlr"] if name == "apgd-t" and classes == 3 and "apgd-dlr" not in wanted else []
            at = wanted.index(name)
            wanted[at : at + 1] = stands
    made.attacks_to_run = wanted
    return said


def _checkpoints(apgd: Any) -> None:
    """What the library derives from n_iter when it is built (the paper's section 3.1)."""
    apgd.n_iter_orig = apgd.n_iter
    apgd.n_iter_2 = max(int(0.22 * apgd.n_iter), 1)
    apgd.n_iter_min = max(int(0.06 * apgd.n_iter), 1)
    apgd.size_decr = max(int(0.03 * apgd.n_iter), 1)

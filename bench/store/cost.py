"""What work costs: multiply-adds, and the seconds they took on this machine before."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import assert_never

from bench.recipes import (
    PGD,
    AnyNetwork,
    Attack,
    Clean,
    Data,
    Distilled,
    Examples,
    Fetched,
    Model,
    Network,
    Outcomes,
    Peer,
)
from bench.store.disk import write

from bench.recipes import Square, Strong, Trained, Work, Worst  # isort: skip
from bench.store.tasks import images_in

UNKNOWN = Network(depth=16, width=4)  # stands in for a network we cannot see into
PUBLISHED = {"slwta": Network(depth=34, width=1)}  # checkpoints whose loader is ours
GUESS = {"cpu": 36e9, "cuda": 60e12}  # multiply-adds a second before anything was measured: two cores in float32
BACKWARD_TO_INPUT, BACKWARD = 1.1, 2.0  # in forward passes


def multiply_adds(network: AnyNetwork, image: tuple[int, int, int] = (3, 32, 32)) -> float:
    """Multiply-adds of one forward pass of one image (channels, height, width) through a network."""
    return network.multiply_adds(image)


def gradients(attack: Attack) -> tuple[float, float]:
    """Forward passes and gradients to the input that an attack on a stochastic source costs for one image."""
    match attack:
        case PGD():
            chosen = attack.selection if attack.pick == "best" or attack.restarts > 1 else 0
            looks = (attack.steps if attack.pick == "best" else 1) * chosen
            return attack.restarts * (looks + 1.0), float(attack.restarts * attack.steps * attack.gradients_a_step)
        case Square():
            return float(2 * attack.queries * attack.draws * attack.restarts), 0.0  # each beside the best so far
        case Strong():
            return 0.0, float(attack.gradients)  # at most: what is fooled leaves
        case Worst():
            parts = [gradients(inner) for inner in attack.attacks]
            return sum(p[0] for p in parts) + attack.selection * len(parts), sum(p[1] for p in parts)
        case Peer():
            return _autoattack(attack) if attack.kind == "autoattack" else _peer(attack)
        case Clean():
            return 0.0, 0.0
        case _:
            assert_never(attack)


def undrawn(attack: Attack) -> Attack:
    """The attack as a source without noise meets it: one draw where all would be the same."""
    match attack:
        case PGD():
            return attack.model_copy(update={"eot": 1, "selection": 1})
        case Worst():
            return attack.model_copy(update={"attacks": tuple(map(undrawn, attack.attacks)), "selection": 1})
        case Clean() | Square() | Peer() | Strong():
            return attack
        case _:
            assert_never(attack)


PARTS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
STAY = 0.6  # of AutoAttack's images, for each of its parts on average: what is fooled leaves


def _autoattack(attack: Peer) -> tuple[float, float]:
    """As declared: each part's iterations by restarts, target classes and draws; pyautoattack's defaults else."""
    version = attack.name.removesuffix(", as published")
    listed = attack.arguments.get("attacks")
    parts = PARTS.get(version, tuple(listed) if isinstance(listed, list | tuple) else ())
    stay, restarts = (1.0, 1) if version == "rand" else (STAY, {"standard": 1, "plus": 5}.get(version, 5))

    def declared(part: str, name: str, usual: int) -> int:
        table = attack.arguments.get(part)
        value = table.get(name, usual) if isinstance(table, dict) else usual
        return value if isinstance(value, int) else usual

    forward = slopes = 0.0
    for part in parts:
        if part == "square":
            forward += declared("square", "n_queries", 5000) * declared("square", "n_restarts", 1)
            continue
        name = {"apgd-ce": "apgd", "apgd-dlr": "apgd", "apgd-t": "apgd_targeted"}.get(str(part), "fab")
        turns = declared(name, "n_restarts", 1 if str(part).endswith("-t") else restarts)
        turns *= declared(name, "n_target_classes", 9) if str(part).endswith("-t") else 1
        steps = turns * (declared(name, "n_iter", 100) + (name != "fab"))
        slopes += steps * declared(name, "eot_iter", 20 if version == "rand" else 1) * (10 if part == "fab" else 1)
        forward += steps if name == "fab" else 0
    return stay * forward, stay * slopes


def _peer(attack: Peer) -> tuple[float, float]:
    """What an attack of torchattacks or foolbox, or of one's own, says of itself by the usual names, else a guess."""

    def declared(name: str, usual: int) -> int:
        value = attack.arguments.get(name, usual)
        return value if isinstance(value, int) and value > 0 else usual

    if attack.name == "AutoAttack":
        table = {"n_iter": declared("steps", 100)}
        version = str(attack.arguments.get("version", "standard"))
        same = {"apgd": table, "apgd_targeted": table, "fab": table}
        return _autoattack(attack.model_copy(update={"kind": "autoattack", "name": version, "arguments": same}))
    turns = declared("eot_iter", 1) * declared("n_restarts", 1) * declared("restarts", 1)
    if attack.name == "Square":
        return float(turns * declared("n_queries", 5000)), 0.0
    steps = declared("steps", {"FGSM": 1, "APGD": 100, "APGDT": 100, "FAB": 100}.get(attack.name, 20))
    return 10.0, float(steps * turns * (9 if attack.name == "APGDT" else 1))


def network_of(model: Model) -> AnyNetwork:
    """The network a model runs, as far as the recipe tells."""
    weights = model.weights
    return weights.network or (PUBLISHED.get(weights.kind, UNKNOWN) if isinstance(weights, Fetched) else UNKNOWN)


def stranger(model: Model) -> bool:
    """Whether no recipe says what a pass of the model costs."""
    weights = model.weights
    return isinstance(weights, Fetched) and weights.network is None and weights.kind not in PUBLISHED


def _runs(recipe: Work) -> Model | None:
    """The model whose passes the work consists of."""
    return recipe.source if isinstance(recipe, Examples) else recipe.target if isinstance(recipe, Outcomes) else None


def passes(recipe: Work) -> float:
    """Forward passes that the work costs, a gradient counted in forward passes."""
    match recipe:
        case Fetched():
            return 0.0
        case Examples(attack=Clean()):
            return 0.0
        case Examples():
            noisy = recipe.source is not None and recipe.source.stochastic
            forward, slopes = gradients(recipe.attack if noisy else undrawn(recipe.attack))
            if isinstance(recipe.attack, Square) and not noisy:
                forward = float(recipe.attack.queries * recipe.attack.restarts)  # one draw, and no second look
            return images_in(recipe) * (forward + slopes * (1 + BACKWARD_TO_INPUT))
        case Outcomes():
            share = 0.25 if recipe.stopping.kind == "adaptive" else 1.0
            return images_in(recipe) * max(1.0, recipe.draws * share)
        case Trained() | Distilled():
            training = recipe.training
            images = images_in(Examples(data=recipe.data)) - training.validation
            step = 0.0 if training.attack and training.adversarial_weight == 1 else 1 + BACKWARD
            if training.attack:
                slopes = training.attack.steps * training.attack.gradients_a_step
                step += slopes * (1 + BACKWARD_TO_INPUT) + 1 + BACKWARD
            if isinstance(recipe, Distilled):
                batches = (recipe.targets == "online") + (training.attack is not None)
                taught = multiply_adds(network_of(recipe.teacher)) / multiply_adds(recipe.network)
                step += batches * recipe.online_draws * taught
            check = gradients(training.validation_attack)[1] * (1 + BACKWARD_TO_INPUT)
            return training.epochs * (images * step + training.validation * (2 + check))


def work_of(recipe: Work) -> float:
    """Multiply-adds that the work costs."""
    match recipe:
        case Examples(source=Model() as source, data=data):
            network = network_of(source)
        case Outcomes(target=target, examples=Examples(data=data)):
            network = network_of(target)
        case Trained() | Distilled():
            network, data = recipe.network, recipe.data
        case _:
            network, data = UNKNOWN, Data()
    # Small layers leave a processor waiting; an addition per pass says so.
    return passes(recipe) * (multiply_adds(network, data.of_image) + 2e6)


class Rates:
    """What this machine does in a second, learnt from finished tasks: multiply-adds by kind of work, and passes of
    networks that no recipe describes, by their keys."""

    def __init__(self, scratch: Path, device: str) -> None:
        self.path, self.device = scratch / "rates.json", device
        self.known: dict[str, float] = {}
        with contextlib.suppress(OSError, ValueError, AttributeError):
            loaded = json.loads(self.path.read_text())
            self.known = {k: float(v) for k, v in loaded.items() if isinstance(v, int | float) and v > 0}

    def seconds(self, recipe: Work) -> float:
        """Estimated seconds of the work."""
        model = _runs(recipe)
        if model is not None and self._pace(model) in self.known:
            return passes(recipe) / self.known[self._pace(model)]
        guess = self.known.get(f"{self.device} pass", GUESS["cuda" if self.device == "cuda" else "cpu"])
        return work_of(recipe) / self.known.get(f"{self.device} {type(recipe).__name__}", guess)

    def guesses(self, recipe: Work) -> bool:
        """Whether the estimate rests on nothing that was measured here."""
        model = _runs(recipe)
        if model is not None and stranger(model):
            return passes(recipe) > 0 and self._pace(model) not in self.known
        return not {f"{self.device} {type(recipe).__name__}", f"{self.device} pass"} & self.known.keys()

    def blind(self, recipe: Work) -> bool:
        """Whether nothing is known of the work's network either, so that there is no estimate."""
        model = _runs(recipe)
        return model is not None and stranger(model) and self.guesses(recipe)

    def timed(self, model: Model, seconds: float) -> None:
        """A pass of one image through a model took this long."""
        rate = 1 / max(seconds, 1e-9)
        if stranger(model):
            self.known[self._pace(model)] = rate
        else:
            self.known[f"{self.device} pass"] = rate * (multiply_adds(network_of(model)) + 2e6)

    def _pace(self, model: Model) -> str:
        return f"{self.device} passes of {model.weights.key[:24]}"

    def learn(self, recipe: Work, seconds: float, share: float = 1.0) -> None:
        """A task that did `share` of the recipe's work took this long."""
        model = _runs(recipe)
        foreign = model is not None and stranger(model)
        work = (passes(recipe) if foreign else work_of(recipe)) * share
        if work <= 0 or seconds < 0.05:
            return
        name = self._pace(model) if foreign and model else f"{self.device} {type(recipe).__name__}"
        rate = work / seconds
        self.known[name] = rate if name not in self.known else 0.7 * self.known[name] + 0.3 * rate

    def save(self) -> None:
        """Keep what was learnt; only estimates depend on it."""
        with contextlib.suppress(Exception):
            write(self.path, json.dumps(self.known, indent=1).encode(), lasting=False)

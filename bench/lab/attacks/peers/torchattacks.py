"""Any attack class of torchattacks (Kim 2020, arXiv 2010.01950), by name and keyword arguments."""

from __future__ import annotations

import importlib.metadata
import inspect
from typing import Any

from torch import Tensor, nn

from bench import UserError, nearest
from bench.lab.attacks.peers.fence import Answer, Drawn, arguments_of, name_of
from bench.recipes import Peer

# Their papers' 100 steps, where the library has 10 by default: with those they are other, weaker attacks.
STEPS = {"APGD": 100, "APGDT": 100, "FAB": 100, "AutoAttack": 100}
# Classes that train models or join attacks, and so do not fit (model, **arguments).
LEFT_OUT = {"MultiAttack", "LGV"}
# Classes that take eps and no norm, where the norm is not L-inf.
NORMS = {"PGDL2": "L2", "PGDRSL2": "L2"}
EPS = ("eps", "max_epsilon")


def run(attack: Peer, model: Drawn, images: Tensor, labels: Tensor, seed: int) -> Answer:
    """What the class makes of the images; it is bounded if it takes eps."""
    made = build(attack, model, model.classes, seed)
    return Answer(made(images, labels), bounded=any(name in _parameters(_class(attack)) for name in EPS))


def effective(attack: Peer, classes: int = 10) -> dict[str, Any]:
    """The built attack's own settings, and those of AutoAttack's parts."""
    made = build(attack, nn.Linear(1, 1), classes, 0)
    version = importlib.metadata.version("torchattacks")
    settings: dict[str, Any] = {"library": f"torchattacks {version}", "attack": attack.name, **_plain(made)}
    if attack.name == "AutoAttack":
        settings["attacks"] = [{"attack": type(part).__name__, **_plain(part)} for part in made._autoattack.attacks]
    settings.pop("seed", None)
    return settings


def build(attack: Peer, model: nn.Module, classes: int, seed: int) -> Any:
    """The library's attack on `model`; UserError for an unknown class, argument or norm.

    eps and norm are the recipe's; `n_classes` is the model's and `seed` ours unless declared.
    """
    kind, given, where = _class(attack), arguments_of(attack), name_of(attack)
    known = _parameters(kind)
    for name in (*EPS, "norm", "model"):
        if name in given:
            raise UserError(f"{where}: {name}", "it is not an argument here", "declare eps and norm beside arguments")
    norm = NORMS.get(attack.name, "Linf")
    if "norm" not in known and any(name in known for name in EPS) and attack.norm != norm:
        raise UserError(f"{where}: norm", f"it works in {norm}, not {attack.norm}", f'set norm = "{norm}"')
    steps = given.pop("steps", STEPS["AutoAttack"]) if attack.name == "AutoAttack" else None
    for name in given:
        if name not in known:
            raise UserError(f"{where}: {name}", "it has no such argument", nearest(name, known))
    ours = {"eps": float(attack.eps), "max_epsilon": float(attack.eps), "norm": attack.norm, "n_classes": classes}
    ours |= {"seed": seed, "verbose": False} | ({"steps": STEPS[attack.name]} if attack.name in STEPS else {})
    made = kind(model, **({name: value for name, value in ours.items() if name in known} | given))
    for part in made._autoattack.attacks if attack.name == "AutoAttack" else ():
        if hasattr(part, "steps"):
            part.steps = steps
    return made


def _class(attack: Peer) -> Any:
    import torchattacks

    known = set(torchattacks.__all__) - LEFT_OUT
    if attack.name not in known:
        what = "joins other attacks" if attack.name in LEFT_OUT else "torchattacks has no such attack"
        raise UserError(name_of(attack), what, nearest(attack.name, known))
    return getattr(torchattacks, attack.name)


def _parameters(kind: Any) -> dict[str, inspect.Parameter]:
    parameters = dict(inspect.signature(kind.__init__).parameters)
    return {name: parameters[name] for name in parameters if name not in ("self", "model")}


def _plain(made: Any) -> dict[str, Any]:
    """The numbers and words among an attack's attributes."""
    own = {"attack", "model_name", "attack_mode", "targeted", "device", "verbose", "normalization_used"}
    return {
        name: value
        for name, value in vars(made).items()
        if isinstance(value, (bool, int, float, str, tuple)) and not name.startswith("_") and name not in own
    }

"""Any attack class of foolbox.attacks (Rauber et al. 2020), by name and keyword arguments."""

from __future__ import annotations

import importlib.metadata
import inspect
from typing import Any

from torch import Tensor

from bench import UserError, nearest
from bench.lab.attacks.peers.fence import Answer, Drawn, arguments_of, name_of
from bench.recipes import Peer

NORMS = {"Linf": float("inf"), "L2": 2, "L1": 1}


def run(attack: Peer, model: Drawn, images: Tensor, labels: Tensor) -> Answer:
    """The images clipped to eps, as the library returns them for one eps."""
    made = build(attack)
    import foolbox

    seen = foolbox.models.pytorch.PyTorchModel(model, bounds=(0, 1), device=images.device)
    _, clipped, _ = made(seen, images, foolbox.criteria.Misclassification(labels), epsilons=float(attack.eps))
    return Answer(clipped)


def effective(attack: Peer) -> dict[str, Any]:
    """The built attack's own settings."""
    plain = (bool, int, float, str)
    own = {name: value for name, value in vars(build(attack)).items() if isinstance(value, plain)}
    version = importlib.metadata.version("foolbox")
    settings = {"library": f"foolbox {version}", "attack": attack.name, "norm": attack.norm}
    return {**settings, "eps": float(attack.eps), **own}


def build(attack: Peer) -> Any:
    """The library's attack; UserError for a missing library, an unknown class, argument or another norm."""
    where = name_of(attack)
    try:
        import foolbox
    except ImportError as error:
        raise UserError(where, f"foolbox cannot be imported: {error}", "pip install 'freshdraws[foolbox]'") from None
    known = {name: kind for name, kind in vars(foolbox.attacks).items() if inspect.isclass(kind)}
    kind: Any = known.get(attack.name)
    if kind is None:
        raise UserError(where, "foolbox has no such attack", nearest(attack.name, known))
    arguments = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    for name in attack.arguments:
        if name not in arguments:
            raise UserError(f"{where}: {name}", "it has no such argument", nearest(name, arguments))
    made = kind(**arguments_of(attack))
    p = getattr(getattr(made, "distance", None), "p", None)
    if p is not None and p != NORMS[attack.norm]:
        fix = next((f'set norm = "{name}"' for name, value in NORMS.items() if value == p), "choose another attack")
        raise UserError(f"{where}: norm", f"it works in L{p}, not {attack.norm}", fix)
    return made

"""What the attacker knew, in words, read off the recipes."""

from __future__ import annotations

from typing import Any, assert_never

from bench.recipes import PGD, Attack, Clean, Model, Peer, Square, Strong, Worst


def other_arguments(attack: Peer) -> dict[str, Any]:
    """Arguments that make a library's AutoAttack another attack than the version of that name; {} of other attacks."""
    if attack.kind != "autoattack" and (attack.kind, attack.name) != ("torchattacks", "AutoAttack"):
        return {}
    return {key: value for key, value in attack.arguments.items() if key not in ("version", "norm", "eps")}


def access(source: Model | None, target: Model, attack: Attack) -> str:
    """What the attacker knew, read off the recipes: white-box means the target's own weights."""
    if isinstance(attack, Clean) or source is None:
        return ""
    if source.weights != target.weights:
        return "transfer"
    if source.defence != target.defence:
        return "oblivious" if source.defence is None else "transfer (another defence over the same weights)"
    details = []
    match attack:
        case PGD(eot=eot, gradient=gradient, draw=draw):
            if eot > 1 and draw in ("moving", "pseudo-eot"):
                details.append(f"{'pseudo-' * (draw != 'moving')}EoT {eot}")
            if draw in PROTOCOLS:
                details.append(PROTOCOLS[draw])
            if gradient == "mean-softmax":
                details.append("mean softmax")
        case Square(draws=draws):
            return f"scores only ({draws} draws a query)" if source.stochastic else "scores only"
        case Peer(draw=draw):  # the column says which library's attack it is
            details += [f"{key} = {value}" for key, value in sorted(other_arguments(attack).items())]
            if draw in PROTOCOLS:
                details.append(PROTOCOLS[draw])
        case Strong():
            pass  # it chooses what it averages
        case Worst(attacks=several):
            details.append(f"worst of {len(several)}")
        case _:
            assert_never(attack)
    if source.sigma != target.sigma:
        details.append(f"attacked at sigma {float(source.sigma):g}")
    return f"white-box ({', '.join(details)})" if details else "white-box"


PROTOCOLS = {"frozen": "one frozen draw", "none": "mean network"}
"""How an attack met the draws, where that is not by fresh ones."""

"""What the verbs found, as rows: one dictionary a line, with the same keys in every format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.report.forms import Answer

if TYPE_CHECKING:
    from bench.report.audit import AuditRow
    from bench.report.claims import Verdict
    from bench.report.leaderboard import Ours
    from bench.report.published import Published, Unread
    from bench.report.seals import Seal

Rows = list[dict[str, Any]]


def of_claims(verdicts: Sequence[Verdict], text: str) -> Answer:
    """A row a claim: effects and intervals are shares, in the direction of the claim."""
    rows = [
        {
            "claim": one.claim.id, "text": one.claim.text, "verdict": one.verdict, "effect": part.effect,
            "low": part.low, "high": part.high, "p": one.p, "p_holm": one.adjusted, "images": part.n,
            "more_images": one.more, "decides": part.text, "missing": part.why,
        }
        for one in verdicts for part in (one.deciding,)
    ]  # fmt: skip
    return Answer(rows, text)


def of_audit(seals: Sequence[Seal], found: Sequence[AuditRow], text: str) -> Answer:
    """A row a seal or record: what was looked at, and the verdict."""
    rows: Rows = [
        {"what": one.what, "where": one.where, "verdict": one.verdict, "images": None, "p": None, "detail": one.detail}
        for one in seals
    ]
    rows += [
        {
            "what": ", ".join(one.cells), "where": one.key, "verdict": one.verdict, "images": one.images, "p": one.p,
            "detail": one.detail,
        }
        for one in found
    ]  # fmt: skip
    return Answer(rows, text)


def of_published(found: Mapping[str, Published], text: str) -> Answer:
    """A row a claimed number, in percent as the paper has it; None where nobody here has read it."""
    from bench.report.published_table import flags

    flagged: dict[str, dict[int, list[str]]] = {name: {} for name in found}
    for name, entry in found.items():
        for at, said in flags(entry):
            flagged[name].setdefault(at, []).append(said)

    def read(number: float | Unread) -> float | None:
        return number if isinstance(number, float | int) else None

    rows = [
        {
            "defence": entry.name, "venue": entry.venue, "year": entry.year, "noise_in": list(entry.place),
            "data": claim.data, "network": claim.network, "clean": read(claim.clean), "robust": read(claim.robust),
            "attack": claim.attack, "eps": None if claim.eps is None else str(claim.eps), "norm": claim.norm,
            "draw": claim.draw, "images": claim.n, "read_in": claim.evidence, "flags": flagged[name].get(at, []),
        }
        for name, entry in found.items() for at, claim in enumerate(entry.claims)
    ]  # fmt: skip
    return Answer(rows, text)


def of_board(models: Sequence[Ours], text: str) -> Answer:
    """A row a model, the leaderboard's and ours: accuracies as shares, `place` where there is one."""
    from bench.report.board import leaderboard, place
    from bench.report.white_box import FEWEST

    board = leaderboard()
    rows: Rows = [
        {
            "place": board.rank(one.id), "model": one.id, "architecture": one.architecture, "ours": False,
            "clean": one.clean, "autoattack": one.autoattack, "robust": one.robust, "low": None, "high": None,
            "images": 10_000, "attack": "",
        }
        for one in board.entries
    ]  # fmt: skip
    for model in models:
        lowest = model.lowest
        robust = lowest.robust if lowest else None
        placed = robust is not None and robust.n >= FEWEST and lowest is not None
        rows.append({
            "place": place(lowest.clean.value, robust.value) if placed and lowest and robust else None,
            "model": model.name, "architecture": model.architecture, "ours": True,
            "clean": model.clean.value if model.clean else None,
            "autoattack": model.autoattack.value if model.autoattack else None,
            "robust": robust.value if robust else None, "low": robust.low if robust else None,
            "high": robust.high if robust else None, "images": robust.n if robust else None,
            "attack": lowest.attack if lowest else "",
        })  # fmt: skip
    return Answer(rows, text)


def of_crosscheck(found: Sequence[Any], text: str) -> Answer:
    """A row an attack: shares, and its difference from the reference with the paired p."""
    rows = [
        {
            "attack": one.attack, "reference": one.reference, "robust": one.robust.value, "low": one.robust.low,
            "high": one.robust.high, "agreement": one.agreement, "identical": one.identical,
            "difference": one.difference.value if one.difference else None,
            "difference_low": one.difference.low if one.difference else None,
            "difference_high": one.difference.high if one.difference else None,
            "p": one.difference.p if one.difference else None, "same_algorithm": one.alike,
        }
        for one in found
    ]  # fmt: skip
    return Answer(rows, text)


def of_speed(found: Mapping[str, Any], text: str) -> Answer:
    """A row a way of doing a case, in images a second; JSON has all that was measured."""
    rows = [
        {"case": case["title"], "images": case["images"], "way": row["way"], "images_a_second": row["rate"],
         "accuracy": row["accuracy"][0], "share_of_limit": row["share"], "note": row["note"]}
        for case in found["cases"] for row in case["rows"]
    ]  # fmt: skip
    return Answer(rows, text, found)

"""The seals of a suite's records, followed to the end: votes, examples, weights, and what each was made from."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from bench import UserError
from bench.recipes import Distilled, Examples, Fetched, Outcomes, Trained, Work, inputs, parse
from bench.report.contradictions import contradiction
from bench.run.session import Session
from bench.store.sealed import Damaged, Record, whole
from bench.votes.votes import from_parquet

Verdict = Literal["consistent", "inconsistent", "cannot be checked here"]


SHOWN = ("precision", "crafting_precision", "outputs", "bought")


class Seal(NamedTuple):
    """What is said of one thing: what it is, where it is, the verdict, and the reason."""

    what: str
    where: str
    verdict: Verdict
    detail: str = ""


class Chain(NamedTuple):
    """The records that a suite rests on. `absent` are works without a record here (examples can be made again).

    `digest` is a SHA-256 over the seals of votes and weights, and over what tables show of a manifest beside: what
    somebody else can hold a copy of.
    """

    seals: tuple[Seal, ...]
    absent: tuple[Work, ...]
    digest: str


def follow(session: Session) -> Chain:
    """Check every record that the suite rests on: bytes, seal, recipe, inputs, and votes against the recipe."""
    seals: list[Seal] = []
    absent: list[Work] = []
    lines: list[str] = []
    there: dict[str, Record | None] = {}
    for recipe in _closure(session.wanted()):
        found, faults = _copies(session, recipe)
        there[recipe.key] = record = found[0] if found else None
        what, where = _named(session, recipe), str(session.store.place(recipe) if record is None else record.path)
        if record is None and not faults:
            absent.append(recipe)
            continue
        if record is not None:
            faults += _faults(session, recipe, record, there)
            if not isinstance(recipe, Examples):
                lines.append(f"{recipe.key} {record.seal} {_shown(record)}")
        seals.append(Seal(what, where, "inconsistent" if faults else "consistent", "; ".join(faults)))
    digest = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    return Chain(tuple(seals), tuple(absent), digest)


def _shown(record: Record) -> str:
    """What is shown of how a record was computed and no seal of its files holds: arithmetic, outputs, the account."""
    about = record.manifest.get("provenance")
    said = {name: about[name] for name in SHOWN if name in about} if isinstance(about, dict) else {}
    return json.dumps(said, sort_keys=True)


def _closure(wanted: list[Outcomes]) -> list[Work]:
    """The works and all that they are made from, inputs first."""
    found: dict[str, Work] = {}

    def add(recipe: Work) -> None:
        if recipe.key not in found:
            for source in inputs(recipe):
                add(source)
            found[recipe.key] = recipe

    for outcomes in wanted:
        add(outcomes)
    return list(found.values())


def _copies(session: Session, recipe: Work) -> tuple[list[Record], list[str]]:
    """The recipe's whole records, and what is wrong with the others or with there being several."""
    found, faults = [], []
    for path in session.store.places(recipe):
        try:
            record = whole(path, recipe.key, thorough=True)
        except (Damaged, UserError) as damage:
            faults.append(str(damage))
            continue
        if record is not None:
            found.append(record)
    if len({record.seal for record in found}) > 1:
        faults.append("the same work stands with other seals in " + " and ".join(str(one.path) for one in found))
    return found, faults


def _faults(session: Session, recipe: Work, record: Record, there: dict[str, Record | None]) -> list[str]:
    manifest, faults = record.manifest, []
    try:
        told = parse(manifest.get("recipe")).key
    except (ValueError, TypeError):
        told = ""
    if told != recipe.key or manifest.get("kind") != type(recipe).__name__:
        faults.append("its manifest describes another recipe than its key")
    if not isinstance(manifest.get("provenance"), dict):
        faults.append("its manifest does not say how it was made")
    if manifest["made_from"].keys() != {source.key for source in inputs(recipe)}:
        faults.append("its manifest names other inputs than its recipe has")
    for source in inputs(recipe):
        now, then = there.get(source.key), manifest["made_from"].get(source.key)
        if now is not None and then is not None and now.seal != then:
            faults.append(f"it was made from another {_named(session, source)} than the one that is here")
    try:
        faults += _own(session, recipe, record)
    except (Damaged, ValueError, KeyError, OSError) as error:
        faults.append(f"cannot be read: {error}")
    return faults


def _own(session: Session, recipe: Work, record: Record) -> list[str]:
    """What its own files say against it."""
    match recipe:
        case Outcomes():
            said = contradiction(recipe, from_parquet(record.read("votes.parquet")))
            return [said] if said else []
        case Trained() | Distilled():
            card = tomllib.loads(record.read("model.toml").decode())
            return [] if card.get("key") == recipe.key else ["its card, model.toml, is of other weights"]
        case Fetched():
            then, root = json.loads(record.read("fetched.json")), session.settings.root
            files = {root / name: then["sha256"].get(Path(name).name) for name in (recipe.file, recipe.name) if name}
            files |= {Path(recipe.place or root) / name: digest for name, digest in then.get("read", {}).items()}
            for path, digest in files.items():
                if digest is not None and path.is_file() and _digest(path) != digest:
                    return [f"{path} is not the file that it was made with"]
    return []


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _named(session: Session, recipe: Work) -> str:
    """What people call it: votes of cni under pgd10, weights cni."""
    names = session.names
    match recipe:
        case Outcomes(examples=examples, target=target):
            return f"votes of {names.get(target.key, target.key[:12])} on {_images(session, examples)}"
        case Examples():
            return _images(session, recipe)
        case _:
            return f"weights {names.get(recipe.key, recipe.key[:12])}"


def _images(session: Session, examples: Examples) -> str:
    if examples.source is None:
        return "clean images"
    attack, source = examples.attack.key, examples.source.key
    return f"{session.names.get(attack, attack[:12])} images made on {session.names.get(source, source[:12])}"


def words(chain: Chain, published: Sequence[Seal]) -> str:
    """What the seals say, for a terminal: what is wrong, a line each, and a summary."""
    said = [one for one in (*chain.seals, *published) if one.verdict != "consistent"]
    lines = [f"{one.verdict}: {one.what} ({one.where}): {one.detail}" for one in said]
    kinds = Counter(one.what.split()[0] for one in chain.seals)
    records = ", ".join(f"{kinds[name]} of {name}" for name in ("votes", "weights") if kinds[name])
    lines.append(f"{len(chain.seals)} records are here" + (f" ({records})" if records else ""))
    images = sum(isinstance(work, Examples) for work in chain.absent)
    if len(chain.absent) > images:
        lines[-1] += f", {len(chain.absent) - images} are missing"
    if images:
        lines[-1] += f", {images} sets of attacked images are not (they can be made again)"
    if chain.seals:
        lines.append(f"seal of all votes and weights: {chain.digest}")
    return "\n".join(lines)

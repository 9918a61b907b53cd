"""A TOML file to a suite: names become recipes, all mistakes are found at once, with their lines."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from bench import UserError, nearest
from bench.recipes import Recipe
from bench.suite.cells import Suite
from bench.suite.files import Survey, placed
from bench.suite.grid import spread
from bench.suite.parts import DEFAULTS, PARTS, REFERENCES, SPELLED
from bench.suite.schema import Claim, Entry, Header, Protocol, Scale
from bench.suite.words import locate, merged, plain_name, words_of

LARGEST, DEEPEST, MOST_TOLD = 4 << 20, 64, 100


def scales(path: Path) -> dict[str, Scale]:
    """The scales a suite file declares, in its order ("" alone if none)."""
    raw = _read(path)[1].get("scales", {})
    known = Scale.model_fields
    if not isinstance(raw, dict) or not all(isinstance(value, dict) for value in raw.values()):
        raise UserError(f"{path}: scales", "each scale is a table", "[scales.quick]")
    try:
        return {name: Scale(**{k: v for k, v in raw[name].items() if k in known}) for name in raw} or {"": Scale()}
    except ValidationError as error:
        raise UserError(f"{path}: scales", error.errors()[0]["msg"], "about is text, gpu is true or false") from None


def load(
    path: Path, scale: str = "", limit: int | None = None, root: Path | None = None, survey: Survey | None = None
) -> Suite:
    """The suite of a TOML file at one of its scales; UserError lists every mistake.

    Files that it names are looked for beside it, then under `root` (the folder of the run). `survey` completes a
    data set of the user's own by what its files say.
    """
    text, raw = _read(path)
    declared = scales(path)
    if scale not in declared:
        raise UserError(str(path), f"declares no scale {scale!r}", nearest(scale, filter(None, declared)))
    patches = raw.pop("scales", {})
    patch = {name: value for name, value in patches.get(scale, {}).items() if name not in Scale.model_fields}
    reader = Reader(path, text, spread(merged(raw, patch), str(path)), scale if patch else "", root, survey=survey)
    suite = reader.suite(path.stem, declared, scale, limit)
    if reader.mistakes:
        told, more = reader.mistakes[:MOST_TOLD], len(reader.mistakes) - MOST_TOLD
        raise UserError(str(path), "\n".join(["this suite cannot run:", *told, *[f"  and {more} more"] * (more > 0)]))
    return suite


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(str(path), f"is larger than {LARGEST >> 20} MiB", "a suite is a short TOML file")
        text = path.read_text("utf-8-sig")  # some editors begin a file with a byte-order mark
        return text, tomllib.loads(text)
    except FileNotFoundError:
        there = [p.stem for p in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        raise UserError(str(path), "no such file", nearest(path.stem, there)) from None
    except IsADirectoryError:
        raise UserError(str(path), "is a folder", "name a .toml file") from None
    except RecursionError:
        raise UserError(str(path), "is not TOML: it is nested too deeply") from None
    except ValueError as error:  # of UTF-8, of TOML, and of numbers with more digits than Python reads
        raise UserError(str(path), f"is not TOML: {error}") from None
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {error.strerror}") from None


class Reader:
    """Resolves one raw suite, gathering mistakes instead of stopping at the first."""

    def __init__(
        self, path: Path, text: str, raw: dict[str, Any], scale: str, root: Path | None = None,
        *, survey: Survey | None = None,
    ) -> None:  # fmt: skip
        self.path, self.text, self.raw, self.scale, self.survey = path, text, raw, scale, survey
        self.folders = list(dict.fromkeys(folder.resolve() for folder in (path.parent, root or Path())))
        self.mistakes: list[str] = []
        self.done: dict[tuple[str, str], Recipe | None] = {}
        self.open: list[str] = []
        self.depth = 0

    def suite(self, name: str, declared: dict[str, Scale], scale: str, limit: int | None) -> Suite:
        known = {*PARTS, "suite", "protocol", "claims"}
        for section in self.raw:
            if section not in known:
                self.mistake((section,), f"unknown section; {nearest(section, known)}")
        parts = {section: self.section(section) for section in PARTS}
        header = self.make(Header, self.raw.get("suite", {}), ("suite",)) or Header()
        protocol = self.make(Protocol, self.raw.get("protocol", {}), ("protocol",)) or Protocol()
        listed = self.raw.get("claims", [])
        if not isinstance(listed, list):
            self.mistake(("claims",), "write [[claims]], one for each claim")
            listed = []
        claims = [self.make(Claim, value, ("claims", i)) for i, value in enumerate(listed)]
        for (section, word), recipe in DEFAULTS.items():
            parts[section].setdefault(word, recipe)
        self.names(parts, header.main)
        return Suite(
            name, self.path, scale, declared, header, protocol, parts["attacks"], parts["datasets"], parts["weights"],
            parts["models"], parts["tables"], parts["figures"], tuple(c for c in claims if c), limit,
            self.text,
        )  # fmt: skip

    def section(self, section: str) -> dict[str, Any]:
        entries = self.raw.get(section, {})
        if not isinstance(entries, dict):
            self.mistake((section,), f"write [{section}.name]")
            return {}
        for name in entries:
            if not plain_name(name):
                self.mistake((section, name), "a name is letters, digits, spaces and .-+=@%() and at most 80 of them")
        made = {name: self.named(section, name, (section, name)) for name in entries}
        return {name: recipe for name, recipe in made.items() if recipe is not None}

    def named(self, section: str, name: str, where: tuple[Any, ...]) -> Recipe | None:
        """The recipe a name stands for; None after a mistake."""
        entries = self.raw.get(section, {})
        if (section, name) in DEFAULTS and isinstance(entries, dict) and name not in entries:
            return DEFAULTS[section, name]
        if not isinstance(entries, dict) or name not in entries:
            self.mistake(where, f"no [{section}.{name}] in this file; {self.near(section, name)}".rstrip("; "))
            return None
        if (section, name) not in self.done:
            label = f"{section}.{name}"
            if label in self.open:
                cycle = " -> ".join([*self.open[self.open.index(label) :], label])
                self.mistake(where, f"a circle: {cycle}")
                return None
            self.open.append(label)
            self.done[section, name] = self.build(section, entries[name], (section, name))
            self.open.pop()
        return self.done[section, name]

    def near(self, section: str, name: str) -> str:
        entries = self.raw.get(section, {})
        return nearest(name, entries if isinstance(entries, dict) else ())

    def build(self, section: str, value: Any, where: tuple[Any, ...]) -> Recipe | None:
        if isinstance(value, str):
            return self.named(section, value, where)
        if not isinstance(value, dict):
            self.mistake(where, "write a table of keys, or the name of one")
            return None
        kind = self.kind(PARTS[section], value, where)
        if self.depth >= DEEPEST:
            self.mistake(where, f"more than {DEEPEST} tables deep")
            return None
        self.depth += 1
        made: Recipe | None = self.make(kind, value, where) if kind else None
        self.depth -= 1
        return made

    def kind(self, kinds: tuple[type[Recipe], ...], value: dict[str, Any], where: tuple[Any, ...]) -> Any:
        if len(kinds) == 1:
            return kinds[0]
        by_name = {word: kind for kind in kinds for word in get_args(kind.model_fields["kind"].annotation)}
        word = value.get("kind")
        if isinstance(word, str) and word in by_name:
            return by_name[word]
        what = f"kind = {word!r} is unknown" if word else "kind is missing"
        self.mistake((*where, "kind"), f"{what}; {nearest(str(word or ''), by_name)}")
        return None

    def make(self, kind: Any, value: Any, where: tuple[Any, ...]) -> Any:
        """One recipe of a known type, its references resolved; None after a mistake."""
        if not isinstance(value, dict):
            self.mistake(where, "write a table of keys")
            return None
        before = len(self.mistakes)
        fields = dict(value)
        if kind not in SPELLED:
            for name, item in value.items():
                section = REFERENCES.get(name)
                if section is None or name not in kind.model_fields:
                    continue
                if name == "attacks" and isinstance(item, list):
                    fields[name] = [self.build(section, entry, (*where, name)) for entry in item]
                else:
                    fields[name] = self.build(section, item, (*where, name))
        if isinstance(teacher := fields.get("teacher"), Entry):
            fields["teacher"] = teacher.model
            fields.setdefault("rule", teacher.rule or "vote")
            fields.setdefault("draws", teacher.judged_draws)
        broken = [name for name, item in fields.items() if item is None or (isinstance(item, list) and None in item)]
        if broken or len(self.mistakes) > before:
            return None  # said where the broken part itself stands
        try:
            made, wrong = placed(kind(**fields), self.folders, self.survey)
            for key, what in wrong.items():
                self.mistake((*where, key), what)
            return made
        except ValidationError as error:
            for item in error.errors(include_url=False):
                self.mistake((*where, *item["loc"]), words_of(item, kind))
        except TypeError as error:
            self.mistake(where, str(error))
        return None

    def names(self, parts: dict[str, Any], main: tuple[str, ...]) -> None:
        """Every name that tables and figures use must stand for something."""

        def check(section: str, name: str | None, where: tuple[Any, ...]) -> None:
            declared = self.raw.get(section)
            if name is None or name in parts[section] or (isinstance(declared, dict) and name in declared):
                return
            self.mistake(where, f"no [{section}.{name}] in this file; {self.near(section, name)}")

        for i, name in enumerate(main):
            check("tables", name, ("suite", "main", i))
        for name, entry in parts["models"].items():
            if entry.certify:
                check("datasets", entry.certify.data, ("models", name, "certify", "data"))
        for name, table in parts["tables"].items():
            where = ("tables", name)
            check("datasets", table.data, (*where, "data"))
            for row in table.rows:
                check("models", row.target, (*where, "rows"))
                check("models", row.source, (*where, "rows"))
            for column in table.columns:
                check("attacks", column.attack, (*where, "columns"))
                check("datasets", column.data, (*where, "columns"))
                for only in column.only or ():
                    check("models", only, (*where, "columns"))
        for name, figure in parts["figures"].items():
            where = ("figures", name)
            check("datasets", figure.data, (*where, "data"))
            check("attacks", figure.attack, (*where, "attack"))
            for model in (*figure.models, *figure.sources):
                check("models", model, (*where, "models"))

    def mistake(self, where: tuple[Any, ...], what: str) -> None:
        if len(self.mistakes) >= MOST_TOLD:
            self.mistakes.append("")  # counted; to find its line would take long, and who reads on?
            return
        key = ".".join(str(part) for part in where)
        line = locate(self.text, where, self.scale)
        self.mistakes.append(f"  {self.path.name}:{line}: {key}: {what}" if line else f"  {key}: {what}")

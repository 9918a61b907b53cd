"""The report: what an evaluation says, as numbers, as rows, as text, and as the suite that makes it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import UserError, nearest
from bench.api import words
from bench.api.numbers import Number, Numbers, plain
from bench.store.disk import write
from bench.votes import numbers as folds
from bench.votes.votes import Votes, to_parquet

if TYPE_CHECKING:
    from bench.api.suite import Remade


@dataclass(frozen=True)
class Report:
    """What fresh draws say of a model, without an attack and under each (see `bench.evaluate`).

    Every number is a share in [0, 1] with a 95 % interval, the images and the draws an image behind it. `clean` is the
    accuracy without an attack; `expected`, `vote`, `soft`, `infinite`, `frozen` and `claimed` are of the attack that
    leaves the least expected accuracy (`strongest`; at the largest eps where there are several); `attacks` has all of
    them by name. `flags` are what must be said beside the numbers, `cost` what they took.
    """

    model: str
    data: str
    norm: str
    stochastic: bool
    clean: Number
    attacks: Mapping[str, Numbers]
    flags: tuple[str, ...]
    cost: Mapping[str, float]
    protocol: Mapping[str, Any]
    votes: Mapping[str, Votes] = field(repr=False)
    names: tuple[str, ...] = field(default=(), repr=False)
    remade: Remade | None = field(default=None, repr=False, compare=False)
    digests: Mapping[int, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def strongest(self) -> str:
        """The name of the attack that leaves the least, at the largest eps; "clean" if there is none."""
        if not self.attacks:
            return "clean"
        largest = max(one.eps or 0.0 for one in self.attacks.values())
        there = {name: one for name, one in self.attacks.items() if (one.eps or 0.0) == largest}
        return min(there, key=lambda name: there[name].expected.value)

    @property
    def worst(self) -> Numbers:
        """All numbers of the strongest attack; of the clean images without one."""
        return self.attacks[self.strongest] if self.attacks else self._clean

    @property
    def _clean(self) -> Numbers:
        from bench.api.numbers import numbers

        return numbers(self.votes["clean"], self.stochastic)

    @property
    def expected(self) -> Number:
        """Expected accuracy under the strongest attack: of one fresh draw; of a deterministic model, its accuracy."""
        return self.worst.expected

    @property
    def vote(self) -> Number:
        """Accuracy of the class of most draws."""
        return self.worst.vote

    @property
    def soft(self) -> Number | None:
        """Accuracy of the class of the largest mean softmax."""
        return self.worst.soft

    @property
    def infinite(self) -> Number | None:
        """Accuracy of the vote of infinitely many draws: `value` is sure, up to `high` is open; None if too few draws
        could settle an image."""
        return self.worst.infinite

    @property
    def frozen(self) -> Number | None:
        """Expected accuracy under a PGD that was crafted on one held draw; None of a deterministic model."""
        found = [one.frozen for one in self.attacks.values() if one.frozen is not None]
        return self.worst.frozen or (found[0] if found else None)

    @property
    def claimed(self) -> Number | None:
        """What the strongest attack itself believed to leave; None where it says nothing."""
        return self.worst.claimed

    def curve(self, attack: str) -> list[tuple[float, Number]]:
        """The security curve of an attack that was run at several eps: (eps, expected accuracy), from eps 0 on."""
        found = [(one.eps or 0.0, one.expected) for name, one in self.attacks.items() if name.split("@")[0] == attack]
        if not found:
            known = {name.split("@")[0] for name in self.attacks}
            raise UserError("curve", f"no attack {attack!r} here", nearest(attack, known))
        return [(0.0, self.clean), *sorted(found, key=lambda pair: pair[0])]

    def images(self) -> Any:
        """A row an image: index, label, and for `clean` and each attack the share of draws that are right, the
        predicted class, its share of the draws, and the distance in L-inf. A pandas.DataFrame, or without pandas
        a pyarrow.Table. Images that a part of the attacks did not see have nulls there.
        """
        columns = rows(self.votes)
        try:
            import pandas
        except ImportError:
            import pyarrow

            return pyarrow.table({name: pyarrow.array(values, from_pandas=True) for name, values in columns.items()})
        return pandas.DataFrame(columns)

    def to_markdown(self) -> str:
        """A table of the numbers, in percent, with the protocol below."""
        return words.markdown(self)

    def to_latex(self) -> str:
        r"""A booktabs table, in percent, its protocol as a footnote with \cite keys; `bibtex()` has their entries."""
        return words.latex(self)

    def bibtex(self) -> str:
        """The BibTeX entries of every attack and method that was used."""
        return words.bibtex(self)

    def suite(self) -> str:
        """The TOML suite that makes the same numbers; comments say what of it only this program has."""
        if self.remade is None:
            raise UserError("suite", "this report was read from a file", "its folder holds suite.toml")
        return self.remade.toml()

    def save(self, folder: Path | str) -> Path:
        """Write report.json, report.md, report.tex, report.bib, the votes, and the suite with what it needs: the
        images, the weights as safetensors, the model's source with what it
        imports of the user's. Returns the folder.

        ``python -m bench run FOLDER/suite.toml --root FOLDER`` then makes the same numbers.
        """
        folder = Path(folder)
        files = {
            "report.json": json.dumps(self.plain(), indent=1) + "\n",
            "report.md": self.to_markdown(),
            "report.tex": self.to_latex(),
            "report.bib": self.bibtex(),
        }
        for name, text in files.items():
            write(folder / name, text.encode())
        for name, votes in self.votes.items():
            write(folder / "votes" / f"{words.file_name(name)}.parquet", to_parquet(votes))
        if self.remade is not None:
            self.remade.save(folder)
        return folder

    def plain(self) -> dict[str, Any]:
        """Everything but the votes, as JSON holds it; shares in [0, 1]."""
        return {
            "model": self.model, "data": self.data, "norm": self.norm, "stochastic": self.stochastic,
            "clean": vars(self.clean), "strongest": self.strongest, "attacks": plain(self.attacks),
            "flags": list(self.flags), "cost": dict(self.cost), "protocol": dict(self.protocol),
        }  # fmt: skip

    def __str__(self) -> str:
        return words.text(self)

    def _repr_html_(self) -> str:
        return words.html(self)


def rows(several: Mapping[str, Votes]) -> dict[str, Any]:
    """Columns of a table with a row an image, in the order of their index."""
    first = several["clean"]
    order = np.argsort(first.index)
    columns: dict[str, Any] = {"index": first.index[order], "label": first.labels[order].astype(np.int64)}
    for name, votes in several.items():
        at = {int(index): row for row, index in enumerate(votes.index)}
        here = np.array([at.get(int(index), -1) for index in columns["index"]])
        seen, winner = here >= 0, folds.predicted(votes, "vote")
        share = votes.counts[np.arange(len(winner)), winner] / votes.drawn
        kind = "expected" if votes.drawn.max() > 1 else "accuracy"

        def column(values: Any, here: Any = here, seen: Any = seen) -> Any:
            whole = np.full(len(here), np.nan)
            whole[seen] = np.asarray(values, np.float64)[here[seen]]
            return whole if not seen.all() else np.asarray(values)[here]

        columns[f"{name}.right"] = column(folds.correct(votes, kind))
        columns[f"{name}.predicted"] = column(winner)
        columns[f"{name}.share"] = column(share)
        if name != "clean":
            columns[f"{name}.linf"] = column(votes.linf)
    return columns

"""Expressions over cells, as claims are written: read without evaluating anything, names to recipes.

    table1[kd-vote, clean] > table1[smoothed-vote, clean]
    table3[student -> cni, pgd10] < table3[cni -> cni, pgd10] + 3%
    figure4[cni -> cni, 7, 8/255] - figure4[cni -> cni, 10, 8/255] < 0.5% and ...

A cell is table[row, attack]: the row is a target, or source -> target. In a figure of kind "steps"
it is figure[source -> target, step], with an eps behind if the figure has several. Sides are sums
of cells and constants, a constant a share (0.03) or percentage points (3%); a factor may stand
before a cell (0.5 * ...). Comparisons are < and >, joined by `and`: all must hold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from bench import UserError, nearest
from bench.recipes import Outcomes
from bench.suite import figures
from bench.suite.cells import Suite
from bench.suite.schema import Figure


class Reference(NamedTuple):
    """A cell as written: block[row, what] with what = (attack,) or (step, eps)."""

    text: str
    block: str
    source: str | None
    target: str
    what: tuple[str, ...]


class Comparison(NamedTuple):
    """Holds if the sum of factor * cell, plus the constant (a share), is above 0."""

    text: str
    terms: tuple[tuple[float, Reference], ...]
    constant: float


TOKEN = re.compile(
    r"\s*(?:(?P<cell>[A-Za-z_][\w.-]*\s*\[[^\[\]]*\])|(?P<number>\d+(?:\.\d+)?%?)|(?P<word>and\b)|(?P<sign>[-+*<>]))"
)
LONGEST = 2000


def parse(text: str, where: str = "claims") -> tuple[Comparison, ...]:
    """The comparisons of an expression; UserError says where it cannot be read. Nothing is evaluated."""
    tokens, at = [], 0
    if len(text) > LONGEST:
        raise UserError(where, f"is longer than {LONGEST} characters", "make it several claims")
    while text[at:].strip():
        match = TOKEN.match(text, at)
        if match is None:
            rest = text[at:].strip()[:30]
            raise UserError(where, f"cannot be read from {rest!r} on", 'write "table[row, attack] > ..."')
        tokens.append((str(match.lastgroup), match[0].strip()))
        at = match.end()
    parts: list[list[tuple[str, str]]] = [[]]
    for token in tokens:
        if token[0] == "word":
            parts.append([])
        else:
            parts[-1].append(token)
    return tuple(_comparison(part, where) for part in parts)


def _comparison(tokens: Sequence[tuple[str, str]], where: str) -> Comparison:
    signs = [i for i, (kind, word) in enumerate(tokens) if kind == "sign" and word[0] in "<>"]
    text = " ".join(word for _, word in tokens)
    if len(signs) != 1:
        raise UserError(where, f"{text!r} must compare two sides with one < or >", 'join comparisons with "and"')
    left, right = _sum(tokens[: signs[0]], where), _sum(tokens[signs[0] + 1 :], where)
    up = 1.0 if tokens[signs[0]][1][0] == ">" else -1.0
    terms = [(up * f, cell) for f, cell in left[0]] + [(-up * f, cell) for f, cell in right[0]]
    if not terms:
        raise UserError(where, f"{text!r} names no cell", 'write "table[row, attack]"')
    return Comparison(text, tuple(terms), up * (left[1] - right[1]))


def _sum(tokens: Sequence[tuple[str, str]], where: str) -> tuple[list[tuple[float, Reference]], float]:
    terms: list[tuple[float, Reference]] = []
    constant, at = 0.0, 0
    while at < len(tokens) or at == 0:
        sign = 1.0
        if at < len(tokens) and tokens[at][1] in "+-":
            sign = -1.0 if tokens[at][1] == "-" else 1.0
            at += 1
        elif at:
            raise UserError(where, f"expected + or - before {tokens[at][1]!r}")
        kinds = [kind for kind, _ in tokens[at : at + 3]]
        words = [word for _, word in tokens[at : at + 3]]
        if kinds == ["number", "sign", "cell"] and words[1] == "*":
            terms.append((sign * _share(words[0]), _reference(words[2], where)))
            at += 3
        elif kinds[:1] == ["cell"]:
            terms.append((sign, _reference(words[0], where)))
            at += 1
        elif kinds[:1] == ["number"]:
            constant += sign * _share(words[0])
            at += 1
        else:
            raise UserError(where, f"expected a cell or a number{f', not {words[0]!r}' if words else ''}")
    return terms, constant


def _share(word: str) -> float:
    return float(word[:-1]) / 100 if word.endswith("%") else float(word)


def _reference(word: str, where: str) -> Reference:
    block, _, inside = word.partition("[")
    row, *what = [part.strip() for part in inside.rstrip("]").split(",")]
    source, arrow, target = row.rpartition("->")
    if not what or not all(what) or not target.strip() or (arrow and not source.strip()):
        form = 'write "table[target, attack]" or "table[source -> target, attack]"'
        raise UserError(where, f"{word!r} is no cell", form)
    return Reference(word, block.strip(), source.strip() or None, target.strip(), tuple(what))


# -- from names to recipes ---------------------------------------------------------------------


def resolve(suite: Suite, reference: Reference, where: str) -> tuple[Outcomes, str]:
    """The outcomes and the kind of number that a cell stands for."""
    block, source, target = reference.block, reference.source, reference.target
    for name in {source or target, target} - set(suite.models):
        raise UserError(f"{where}: {reference.text}", f"no model {name!r}", nearest(name, suite.models))
    if block in suite.figures:
        return _step(suite, suite.figures[block], reference, where)
    if block not in suite.tables:
        known = {*suite.tables, *(name for name, figure in suite.figures.items() if figure.kind == "steps")}
        raise UserError(f"{where}: {reference.text}", f"no table or steps figure {block!r}", nearest(block, known))
    attack = reference.what[0]
    cells = [cell for cell in suite.cells(block) if cell.target == target and cell.attack == attack]
    if source is not None:
        of_row = {cell.row for cell in suite.cells(block) if cell.source == source}
        cells = [cell for cell in cells if cell.row in of_row]
    own = [cell for cell in cells if (suite.tables[block].rows[cell.row].source or target) == target]
    cells = own if source is None and own else cells
    answers = {(cell.outcomes, cell.number) for cell in cells}
    if len(reference.what) > 1 or not answers:
        attacks = nearest(attack, {column.attack for column in suite.tables[block].columns})
        raise UserError(f"{where}: {reference.text}", f"{block} has no such cell", attacks)
    if len(answers) > 1:
        raise UserError(f"{where}: {reference.text}", f"{block} has several such cells", "name its source -> target")
    return answers.pop()


def _step(suite: Suite, figure: Figure, reference: Reference, where: str) -> tuple[Outcomes, str]:
    name, source, here = reference.block, reference.source or reference.target, f"{where}: {reference.text}"
    if figure.kind != "steps":
        raise UserError(here, f"figure {name!r} shows no steps", 'only figures of kind "steps" have cells')
    attack, sweep = figures.attack_of(suite, name, figure), figures.sweep(suite, name, figure)
    try:
        k = int(reference.what[0])
        eps = Fraction(reference.what[1]) if len(reference.what) > 1 else attack.eps
    except (ValueError, ZeroDivisionError):
        raise UserError(here, "step and eps are numbers", f"{name}[source -> target, 7, 8/255]") from None
    if source not in figure.sources or reference.target not in figure.models:
        raise UserError(here, f"{name} does not show this pair", f"it shows attacks on {', '.join(figure.sources)}")
    if eps not in sweep or not 0 <= k <= attack.steps:
        raise UserError(here, f"{name} has no such step or eps", f"steps 0 to {attack.steps}")
    asked = figures.step(suite, name, figure, source, reference.target, eps, k=k)
    return asked.outcomes, asked.kind

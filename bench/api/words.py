"""A report as people read it: on a terminal, in Markdown, in LaTeX, in a notebook."""

from __future__ import annotations

import html as escape
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from bench.api.numbers import Number, Numbers

if TYPE_CHECKING:
    from bench.api.report import Report

WIDTH = 78
SHOWN = ("expected", "vote", "soft", "infinite", "frozen", "claimed")
BIB = {
    "pgd": (
        "madry2018towards",
        "@inproceedings{madry2018towards, title={Towards Deep Learning Models Resistant to Adversarial Attacks}, "
        "author={Madry, Aleksander and Makelov, Aleksandar and Schmidt, Ludwig and Tsipras, Dimitris and Vladu, "
        "Adrian}, booktitle={International Conference on Learning Representations}, year={2018}}",
    ),
    "eot": (
        "athalye2018obfuscated",
        "@inproceedings{athalye2018obfuscated, title={Obfuscated Gradients Give a False Sense of Security: "
        "Circumventing Defenses to Adversarial Examples}, author={Athalye, Anish and Carlini, Nicholas and Wagner, "
        "David}, booktitle={International Conference on Machine Learning}, year={2018}}",
    ),
    "square": (
        "andriushchenko2020square",
        "@inproceedings{andriushchenko2020square, title={Square Attack: a Query-Efficient Black-Box Adversarial Attack "
        "via Random Search}, author={Andriushchenko, Maksym and Croce, Francesco and Flammarion, Nicolas and Hein, "
        "Matthias}, booktitle={European Conference on Computer Vision}, year={2020}}",
    ),
    "autoattack": (
        "croce2020reliable",
        "@inproceedings{croce2020reliable, title={Reliable Evaluation of Adversarial Robustness with an Ensemble of "
        "Diverse Parameter-Free Attacks}, author={Croce, Francesco and Hein, Matthias}, booktitle={International "
        "Conference on Machine Learning}, year={2020}}",
    ),
    "torchattacks": (
        "kim2020torchattacks",
        "@article{kim2020torchattacks, title={Torchattacks: A {PyTorch} Repository for Adversarial Attacks}, "
        "author={Kim, Hoki}, journal={arXiv preprint arXiv:2010.01950}, year={2020}}",
    ),
    "foolbox": (
        "rauber2020foolbox",
        "@article{rauber2020foolbox, title={Foolbox Native: Fast adversarial attacks to benchmark the robustness of "
        "machine learning models in {PyTorch}, {TensorFlow}, and {JAX}}, author={Rauber, Jonas and Zimmermann, Roland "
        "and Bethge, Matthias and Brendel, Wieland}, journal={Journal of Open Source Software}, year={2020}}",
    ),
}


def text(report: Report) -> str:
    """A terminal's width: a line a number's row, the flags below."""
    head = f"{report.model} on {report.data}, {report.clean.n:,} images"
    lines = [head[:WIDTH], f"{'':24} {'expected accuracy':<26} {'vote':>8} {'claimed':>8} {'frozen':>8}"]
    for name, one in _rows(report):
        cells = [f"{100 * one.expected.value:6.2f} % ({_range(one.expected)})", _short(one.vote), _short(one.claimed)]
        lines.append(f"{_cut(name, 24):24} {cells[0]:<26} {cells[1]:>8} {cells[2]:>8} {_short(one.frozen):>8}".rstrip())
    lines.append(_wrapped(about(report)))
    lines += [_wrapped(f"! {flag}", "  ") for flag in report.flags]
    return "\n".join(lines)


def about(report: Report) -> str:
    """The protocol in a sentence or two."""
    said = report.protocol
    draws = "one draw (deterministic)" if not report.stochastic else f"{said['draws']} fresh draws an image"
    words = f"95 % intervals; judged on {draws}; seed {said['seed']}; {said['precision']}"
    attacks = "; ".join(f"{name}: {what}" for name, what in said["attacks"].items())
    return f"{words}. {attacks}." if attacks else f"{words}."


def markdown(report: Report) -> str:
    """A table of all numbers, in percent."""
    kinds = _kinds(report)
    lines = [
        f"**{report.model}** on {report.data}, {report.clean.n:,} images, accuracy in %",
        "",
        f"| attack | {' | '.join(kinds)} |",
        f"| :--- | {' | '.join('---:' for _ in kinds)} |",
    ]
    for name, one in _rows(report):
        cells = [_cell(getattr(one, kind)) for kind in kinds]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", about(report), *(f"\n- {flag}" for flag in report.flags)]
    return "\n".join(lines) + "\n"


def latex(report: Report) -> str:
    """A booktabs table with the protocol below it."""
    kinds = _kinds(report)
    keys = ", ".join(key for key, _ in _used(report))
    lines = [
        "% needs \\usepackage{booktabs}; entries for the keys cited: report.bibtex()",
        "\\begin{tabular}{l" + "r" * len(kinds) + "}",
        "\\toprule",
        " & ".join(["Attack", *(kind.capitalize() for kind in kinds)]) + " \\\\",
        "\\midrule",
    ]
    for name, one in _rows(report):
        cells = [_tex(name), *(_tex_cell(getattr(one, kind)) for kind in kinds)]
        lines.append(" & ".join(cells) + " \\\\")
    title = f"{_tex(report.model)} on {_tex(report.data)}, {report.clean.n:,} images"
    foot = f"{title}; accuracy in \\%. {_tex(about(report))}"
    cite = f" \\cite{{{keys.replace(', ', ',')}}}" if keys else ""
    across = f"\\multicolumn{{{len(kinds) + 1}}}{{p{{0.9\\linewidth}}}}"
    lines += ["\\bottomrule", f"{across}{{\\footnotesize {foot}{cite}}}"]
    return "\n".join([*lines, "\\end{tabular}"]) + "\n"


def bibtex(report: Report) -> str:
    """The entries of what was used."""
    return "\n".join(entry for _, entry in _used(report)) + "\n"


def html(report: Report) -> str:
    """A small table and a bar an attack, as notebooks show it."""
    kinds = _kinds(report)
    head = "".join(f"<th>{kind}</th>" for kind in ("", *kinds))
    body = "".join(
        f"<tr><th style='text-align:left'>{escape.escape(name)}</th>"
        + "".join(f"<td>{escape.escape(_cell(getattr(one, kind)))}</td>" for kind in kinds)
        + "</tr>"
        for name, one in _rows(report)
    )
    flags = "".join(f"<li>{escape.escape(flag)}</li>" for flag in report.flags)
    title = f"<b>{escape.escape(report.model)}</b> on {escape.escape(report.data)}, {report.clean.n:,} images, %"
    return (
        f"<div><p>{title}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{_figure(report)}"
        f"<p><small>{escape.escape(about(report))}</small></p>{f'<ul>{flags}</ul>' if flags else ''}</div>"
    )


def _figure(report: Report) -> str:
    """Bars of expected accuracy with their intervals, as SVG."""
    parts, wide = [], 300
    for i, (name, one) in enumerate(_rows(report)):
        y, number = 6 + 22 * i, one.expected
        parts.append(
            f"<text x='118' y='{y + 11}' text-anchor='end' font-size='11'>{escape.escape(_cut(name, 18))}</text>"
            f"<rect x='124' y='{y}' width='{wide * number.value:.1f}' height='14' fill='#4477aa'/>"
            f"<line x1='{124 + wide * number.low:.1f}' x2='{124 + wide * number.high:.1f}' y1='{y + 7}' y2='{y + 7}' "
            "stroke='#222' stroke-width='2'/>"
        )
    height = 12 + 22 * len(parts)
    return f"<svg width='440' height='{height}' role='img' aria-label='expected accuracy'>{''.join(parts)}</svg>"


def _rows(report: Report) -> Iterator[tuple[str, Numbers]]:
    yield "clean", report._clean
    yield from report.attacks.items()


def _kinds(report: Report) -> list[str]:
    """The kinds that say something of this model."""
    if not report.stochastic:
        claimed = any(one.claimed for one in report.attacks.values())
        return ["expected", *(["claimed"] if claimed else [])]
    return [kind for kind in SHOWN if any(getattr(one, kind) is not None for _, one in _rows(report))]


def _used(report: Report) -> list[tuple[str, str]]:
    kinds = report.protocol.get("cites", ())
    return [BIB[kind] for kind in BIB if kind in kinds]


def eps_text(eps: Fraction | float, norm: str) -> str:
    """An eps as people write it: 8/255 in L-inf, decimals in other norms."""
    whole = Fraction(eps).limit_denominator(10**6) * 255
    return f"{whole}/255" if norm == "Linf" and whole.denominator == 1 else f"{float(eps):.4g}"


def file_name(name: str) -> str:
    """A name of an attack as that of a file."""
    return re.sub(r"[^\w.@-]+", "-", name.replace("/", "of")).strip("-") or "attack"


def _range(number: Number) -> str:
    return f"{100 * number.low:.2f} to {100 * number.high:.2f}"


def _short(number: Number | None) -> str:
    return "" if number is None else f"{100 * number.value:.2f} %"


def _cell(number: Number | None) -> str:
    return "-" if number is None else f"{100 * number.value:.2f} ({_range(number)})"


def _tex(words: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", words.replace("\\", "/").replace("~", "-").replace("^", ""))


def _tex_cell(number: Number | None) -> str:
    if number is None:
        return "--"
    up, down = 100 * (number.high - number.value), 100 * (number.value - number.low)
    return f"${100 * number.value:.2f}^{{+{up:.2f}}}_{{-{down:.2f}}}$"


def _cut(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 3] + "..."


def _wrapped(words: str, indent: str = "") -> str:
    import textwrap

    return textwrap.fill(words, WIDTH, subsequent_indent=indent)

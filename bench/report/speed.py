"""What bench/lab/speed/measure.py measured, as text for a terminal and as a page's tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cells = list[list[str]]
Curve = tuple[list[float], list[float]]
HEAD = ["", "images/s", "times as fast as", "accuracy (95 %)", "of the limit", "of the best", ""]


def text(found: Mapping[str, Any]) -> str:
    """All of it in aligned columns."""
    lines = [about(found), ""]
    for case in found["cases"]:
        cells = [HEAD, *_rows(case, found["trained"])]
        widths = [max(len(row[i]) for row in cells) for i in range(len(HEAD))]
        lines.append(_title(case))
        for row in cells:
            padded = [
                cell.rjust(w) if 0 < i < 2 else cell.ljust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  " + "  ".join(padded).rstrip())
        lines.append("")
    return "\n".join([*lines, *notes(found)])


def markdown(found: Mapping[str, Any]) -> str:
    """The same as a page's tables."""
    lines = [about(found), ""]
    for case in found["cases"]:
        lines += [f"**{_title(case)}**", "", f"| {' | '.join(HEAD)} |", "|" + " --- |" * len(HEAD)]
        lines += [f"| {' | '.join(row)} |" for row in _rows(case, found["trained"])] + [""]
    return "\n".join([*lines, *(f"- {note}" for note in notes(found))])


def about(found: Mapping[str, Any]) -> str:
    """Model and machine."""
    load = " and ".join(f"{value:g}" for value in found["load"])
    return f"{found['model']}; {found['machine']}; load {load} before and after; {found['seconds']:.0f} s in all"


def notes(found: Mapping[str, Any]) -> list[str]:
    """What the columns mean, and the limits themselves."""
    lines = [
        f"limit in {precision}: {limit['forwards']:.0f} forward passes or {limit['gradients']:.0f} input gradients a "
        f"second and nothing around them, {limit['share_of_peak']:.2f} times the operations of a large matrix product "
        f"({limit['peak_gigaflops']:.0f} GFLOP/s)"
        for precision, limit in found["limits"].items()
    ]
    lines.append("of the limit: in the row's own precision; of the best: in the fastest precision; timed in each round")
    if found["arithmetic"]["float32"] == "tf32":
        lines.append("float32 is TF32 on this GPU, of ours and of the other libraries: PyTorch's own default")
    if any(row["differs"] for case in found["cases"] for row in case["rows"]):
        lines.append("!: outside the 95 % interval of the case's first row: not the same work")
    if not found["trained"]:
        lines.append("the weights are untrained: speeds mean something, accuracies do not")
    return lines


def _title(case: Mapping[str, Any]) -> str:
    rounds = len(case["rows"][0]["seconds"])
    return f"{case['title']}: {case['images']} images, {rounds} round{'s' * (rounds > 1)}"


def _rows(case: Mapping[str, Any], trained: bool) -> Cells:
    rows = []
    for row in case["rows"]:
        share, low, high = row["accuracy"]
        rows.append(
            [
                row["way"],
                f"{row['rate']:.3g}" if row["rate"] < 100 else f"{row['rate']:,.0f}",
                ", ".join(f"{name} {times:.2f}" for name, times in row["faster"].items()),
                f"{100 * share:.1f} ({100 * low:.1f} to {100 * high:.1f}){' !' * row['differs']}" if trained else "",
                "" if row["share"] is None else f"{100 * row['share']:.0f} %",
                "" if row["share_of_best"] is None else f"{100 * row['share_of_best']:.0f} %",
                row["note"],
            ]
        )
    return rows


def bars(found: Mapping[str, Any]) -> Figure:
    """Images a second of every way, a panel a case, ours in full colour."""
    from matplotlib.figure import Figure

    cases = found["cases"]
    counts = [len(case["rows"]) for case in cases]
    figure = Figure(figsize=(6.5, 0.5 * len(cases) + 0.22 * sum(counts)), layout="constrained")
    panels = figure.subplots(len(cases), 1, squeeze=False, gridspec_kw={"height_ratios": counts})[:, 0]
    for panel, case in zip(panels, cases, strict=True):
        rows = case["rows"][::-1]
        colors = ["C0" if row["way"].startswith("bench") else "0.7" for row in rows]
        panel.barh([row["way"] for row in rows], [row["rate"] for row in rows], color=colors)
        panel.set_title(_title(case), loc="left", fontsize="small")
        panel.tick_params(axis="y", length=0)
    panels[-1].set_xlabel(f"images a second; {found['model']}")
    return figure


def drawn(curves: Mapping[str, Curve]) -> Figure:
    """Seconds against what was varied, one panel each, with the straight line through its last point and the origin.

    By width it is the parabola: a layer's work grows with the square of its channels.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.1 * len(curves), 2.2), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for panel, (name, (x, seconds)) in zip(panels, curves.items(), strict=True):
        power = 2 if name == "width" else 1
        line = [i / 40 * max(x) for i in range(41)]
        grey = [seconds[-1] * (value / x[-1]) ** power for value in line]
        panel.plot(line, grey, color="0.7", linewidth=1, marker="")
        panel.plot(x, seconds, marker="o", linestyle="")
        panel.set(xlabel=name, xlim=(0, None), ylim=(0, None))
    panels[0].set_ylabel("seconds")
    return figure

"""Charts as inline SVG. Colours are CSS variables, so one drawing serves light, dark and print.

python -m fixres.plots --readme docs/idea.svg      draws the picture of the README
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from fixres.scene import write_scene

Result = Mapping[str, Any]

# matplotlib knows colours, not CSS variables: each role is drawn in a colour nobody uses and renamed in the SVG.
# The second value is what a viewer without the page's style sheet shows.
ROLES = {
    "ink": ("#010101", "#1f2528"),
    "muted": ("#010102", "#6a7175"),
    "rule": ("#010103", "#dddad2"),
    "paper": ("#010104", "#fdfcf9"),
    "before": ("#010105", "#b55a1e"),
    "after": ("#010106", "#0e6f68"),
    "run1": ("#010107", "#0e6f68"),
    "run2": ("#010108", "#b55a1e"),
    "run3": ("#010109", "#5b5aa8"),
    "run4": ("#01010a", "#a23b62"),
    "run5": ("#01010b", "#4d7c1f"),
    "run6": ("#01010c", "#8a6d00"),
}
RUN_ROLES = tuple(role for role in ROLES if role.startswith("run"))
POINT = 72.0
NARROW = (400, 330)
WIDE = (920, 400)
SMALL = (300, 230)
MAX_CURVES_WITH_BANDS = 2


@dataclass(frozen=True)
class Curve:
    """Accuracy against size of one set of weights: `results` as in the metrics log, `role` a key of ROLES."""

    label: str
    results: Sequence[Result]
    role: str
    is_dashed: bool = False


@dataclass(frozen=True)
class Series:
    """One line of a training plot: `x` in epochs since the start of the run."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    role: str
    is_faint: bool = False
    has_markers: bool = False


def accuracy_against_size(
    curves: Sequence[Curve], marks: Mapping[str, int], title: str, shape: tuple[int, int] = WIDE
) -> str:
    """Return an SVG of top-1 accuracy [percent] against size [pixels] with 95 % intervals.

    `marks` are named sizes (train size, test size), drawn as vertical lines. `shape` is (width, height) in CSS pixels.
    """

    def draw(axes: Axes) -> None:
        lines = []
        for curve in curves:
            if len(curves) <= MAX_CURVES_WITH_BANDS:
                _intervals(axes, curve)
            lines.append(_line(axes, curve, [result["size"] for result in curve.results]))
        sizes = sorted({result["size"] for curve in curves for result in curve.results} | set(marks.values()))
        _size_axis(axes, sizes, shape[0])
        _marks(axes, marks)
        axes.set_xlabel("size in pixels")
        _percent_axis(axes)
        _name_curves(axes, curves, lines)

    return _svg(draw, shape, title)


def accuracy_against_cost(
    curves: Sequence[Curve], marks: Mapping[str, int], title: str, shape: tuple[int, int] = NARROW
) -> str:
    """Return an SVG of top-1 accuracy [percent] against GMACs per picture; `marks` are the sizes named in it."""

    def draw(axes: Axes) -> None:
        highest: dict[int, Result] = {}
        lines = []
        for curve in curves:
            shown = [result for result in curve.results if result.get("gmacs")]
            lines.append(_line(axes, replace(curve, results=shown), [result["gmacs"] for result in shown]))
            for result in shown:
                size = result["size"]
                highest[size] = max(highest.get(size, result), result, key=lambda point: point["top1"])
        for size in sorted(set(marks.values()) & set(highest)):
            rises = any(highest[s]["top1"] > highest[size]["top1"] for s in highest if s > size)
            offset, anchor = ((-6, 4), "right") if rises else ((0, 9), "center")
            if size == min(highest):
                offset, anchor = (8, -4), "left"
            axes.annotate(
                f"{size} px",
                (highest[size]["gmacs"], highest[size]["top1"]),
                xytext=offset,
                textcoords="offset points",
                ha=anchor,
                color=_ink("muted"),
            )
        axes.margins(x=0.1, y=0.16)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("GMACs per picture")
        _percent_axis(axes)
        _name_curves(axes, curves, lines)

    return _svg(draw, shape, title)


def history(
    series: Sequence[Series], title: str, boundaries: Mapping[str, float], shape: tuple[int, int] = SMALL
) -> str:
    """Return an SVG of training quantities against epochs; `boundaries` names the epoch at which each stage starts."""

    def draw(axes: Axes) -> None:
        named: dict[str, Line2D] = {}
        for line in series:
            (drawn,) = axes.plot(
                line.x,
                line.y,
                color=_ink(line.role),
                linewidth=0.9 if line.is_faint else 1.8,
                alpha=0.4 if line.is_faint else 1.0,
                marker="o" if line.has_markers or len(line.x) == 1 else None,
                markersize=3.5,
                solid_capstyle="round",
            )
            if not line.is_faint:
                named.setdefault(line.label, drawn)
        for name, start in boundaries.items():
            if start > 0:
                axes.axvline(start, color=_ink("muted"), linewidth=0.8, dashes=(3, 3))
            axes.annotate(
                name,
                (start, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, 3),
                textcoords="offset points",
                fontsize=10,
                color=_ink("muted"),
            )
        axes.set_xlim(left=-0.02 * max(line.x[-1] for line in series))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("epochs")
        if len(named) > 1:
            values = [y for one in series for y in one.y]
            earliest = min(series, key=lambda one: one.x[0]).y[0]
            _legend(axes, named, "upper right" if earliest > sum(values) / len(values) else "lower right")

    return _svg(draw, shape, title)


def confusion_heatmap(confusion: Sequence[Sequence[int]], title: str, shape: tuple[int, int] = (430, 420)) -> str:
    """Return an SVG of a confusion matrix [C, C], each row divided by its sum; row: true class, column: predicted."""

    def draw(axes: Axes) -> None:
        num_classes = len(confusion)
        for row, counts in enumerate(confusion):
            for column, number in enumerate(counts):
                if number:
                    share = number / sum(counts)
                    role = "after" if row == column else "before"
                    axes.add_patch(Rectangle((column, row), 1, 1, color=_ink(role), alpha=0.25 + 0.75 * share, lw=0))
        axes.set(xlim=(0, num_classes), ylim=(num_classes, 0), aspect="equal")
        axes.grid(visible=False)
        axes.set(xlabel="predicted class, counted from 0", ylabel="true class, counted from 0")
        shown = range(0, num_classes, max(1, num_classes // 8))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks([number + 0.5 for number in shown], [str(number) for number in shown])

    return _svg(draw, shape, title)


def _intervals(axes: Axes, curve: Curve) -> None:
    known = [result for result in curve.results if result.get("top1_ci95")]
    if not known:
        return
    sizes = [result["size"] for result in known]
    low, high = zip(*(result["top1_ci95"] for result in known), strict=True)
    if len(known) > 1:
        axes.fill_between(sizes, low, high, color=_ink(curve.role), alpha=0.13, linewidth=0)
    else:
        axes.vlines(sizes, low, high, color=_ink(curve.role), linewidth=1.5, alpha=0.6)


def _line(axes: Axes, curve: Curve, x: Sequence[float]) -> Line2D:
    (line,) = axes.plot(
        x,
        [result["top1"] for result in curve.results],
        color=_ink(curve.role),
        linewidth=2.0,
        linestyle=(0, (4, 2)) if curve.is_dashed else "solid",
        marker="o",
        markersize=5.5,
        markerfacecolor=_ink("paper") if curve.is_dashed else _ink(curve.role),
        markeredgecolor=_ink(curve.role),
        markeredgewidth=1.5,
    )
    return line


def _size_axis(axes: Axes, sizes: Sequence[int], width: int) -> None:
    span = max(1, sizes[-1] - sizes[0])
    room = 40.0 * span / max(1, width - 80)
    shown: list[int] = []
    for size in sizes:
        if not shown or size - shown[-1] >= room:
            shown.append(size)
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(sizes[0] - 0.06 * span - 1, sizes[-1] + 0.06 * span + 1)


def _marks(axes: Axes, marks: Mapping[str, int]) -> None:
    by_size: dict[int, list[str]] = {}
    for name, size in marks.items():
        by_size.setdefault(size, []).append(name)
    sizes = sorted(by_size)
    for position, size in enumerate(sizes):
        axes.axvline(size, color=_ink("muted"), linewidth=0.9, dashes=(2, 3), zorder=0)
        is_first_of_two = len(sizes) > 1 and position == 0
        axes.annotate(
            f"{' and '.join(by_size[size])} {size}",
            (size, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3 if is_first_of_two else 0, 4),
            textcoords="offset points",
            ha="right" if is_first_of_two else "left",
            fontsize=11,
            color=_ink("muted"),
        )


def _percent_axis(axes: Axes) -> None:
    axes.set_ylabel("top-1 accuracy, %")
    axes.set_ylim(top=min(axes.get_ylim()[1], 101.0))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], min_n_ticks=3))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _name_curves(axes: Axes, curves: Sequence[Curve], lines: Sequence[Line2D]) -> None:
    """Name one or two curves at their right ends, more in a legend."""
    places = [np.asarray(line.get_xydata()) for line in lines]
    if len(curves) > 2 or any(len(place) == 0 for place in places):
        by_label: dict[str, Line2D] = {}
        for curve, line in zip(curves, lines, strict=True):
            by_label.setdefault(curve.label, line)
        _legend(axes, by_label, "best")
        return
    left, right = axes.get_xlim()
    width = figure.get_figwidth() * POINT if (figure := axes.get_figure(root=True)) else WIDE[0]
    is_first_upper = len(places) == 1 or places[0][-1, 1] > places[1][-1, 1]
    for position, (curve, place) in enumerate(zip(curves, places, strict=True)):
        is_upper = is_first_upper if position == 0 else not is_first_upper
        reach = 7.5 * len(curve.label) / width * (right - left)
        passed = np.interp(np.linspace(place[-1, 0] - reach, place[-1, 0], 16), place[:, 0], place[:, 1])
        axes.annotate(
            curve.label,
            (place[-1, 0], passed.max() if is_upper else passed.min()),
            xytext=(4, 7 if is_upper else -7),
            textcoords="offset points",
            ha="right",
            va="bottom" if is_upper else "top",
            fontsize=12,
            color=_ink(curve.role),
        )


def _legend(axes: Axes, lines: Mapping[str, Line2D], place: Any) -> None:
    legend = axes.legend(
        list(lines.values()),
        list(lines),
        loc=place,
        labelcolor=_ink("ink"),
        handlelength=2.0,
        borderaxespad=0.3,
        framealpha=0.85,
    )
    legend.get_frame().set(facecolor=_ink("paper"), edgecolor="none")


def _ink(role: str) -> str:
    return ROLES[role][0]


def _svg(draw: Callable[[Axes], None], shape: tuple[int, int], title: str) -> str:
    # Run and class names may hold a dollar sign: they are text, never mathematics.
    with mpl.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": f"{title} {shape}", "font.size": 11, "text.parse_math": False}
    ):
        figure = Figure(figsize=(shape[0] / POINT, shape[1] / POINT), layout="constrained")
        axes = figure.subplots()
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(_ink("rule"))
        axes.grid(axis="y", color=_ink("rule"), linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=_ink("muted"), labelsize=11, length=0, pad=6)
        draw(axes)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_color(_ink("muted"))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _as_part_of_a_page(buffer.getvalue(), shape, title)


def _as_part_of_a_page(svg: str, shape: tuple[int, int], title: str) -> str:
    svg = svg[svg.index("<svg") :]
    head = f'<svg class="chart" viewBox="0 0 {shape[0]} {shape[1]}" role="img" aria-label="{escape(title)}">'
    svg = head + svg[svg.index(">") + 1 :].strip()
    # The page's own fonts are used: their widths differ from matplotlib's, which alignment by anchor allows for.
    svg = re.sub(r"font: (?:(\d{3}|bold) )?([\d.]+px)[^;\"]*", r"font-size: \2", svg)
    for role, (drawn, fallback) in ROLES.items():
        svg = svg.replace(drawn, f"var(--{role}, {fallback})")
    return svg.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace("xlink:href", "href")


def main() -> None:
    """Draw the picture of the README into the file named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m fixres.plots", description="Draw the picture of the README.")
    parser.add_argument("--readme", type=Path, required=True, metavar="FILE.svg")
    write_scene(parser.parse_args().readme)


if __name__ == "__main__":
    main()

"""The charts of a report's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from fixres.reporting.svg import POINT, ROLES, Chart, ink
from fixres.resolution import pareto_front

Result = Mapping[str, Any]

RUN_ROLES = tuple(role for role in ROLES if role.startswith("run"))
NARROW = (400, 330)
WIDE = (920, 400)
SMALL = (300, 230)
SQUARE = (430, 420)
MAX_CURVES_WITH_BANDS = 2
MAX_NAMED_CLASSES = 12
_ABOVE = ("data", "axes fraction")
"""Coordinates of a note at the upper edge."""


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
) -> Chart:
    """Return an SVG of top-1 accuracy [percent] against size [pixels] with 95 % intervals.

    `marks` are named sizes (train size, test size), drawn as vertical lines. `shape` is (width, height) in CSS pixels.
    """

    def draw(axes: Axes) -> None:
        lines = []
        for curve in curves:
            if len(curves) <= MAX_CURVES_WITH_BANDS:
                _intervals(axes, curve)
            lines.append(_line(axes, curve, [result["size"] for result in curve.results]))
        _size_axis(axes, curves, marks, shape[0])
        _percent_axis(axes)
        _name_curves(axes, curves, lines)

    return Chart(draw, shape, title)


def accuracy_against_cost(
    curves: Sequence[Curve], marks: Mapping[str, int], title: str, shape: tuple[int, int] = NARROW
) -> Chart:
    """Return an SVG of top-1 accuracy [percent] against GMACs per picture, with the front that nothing beats.

    `marks` are the sizes named in it.
    """

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
                offset, anchor = (6, -14), "left"
            elif size == max(highest):
                # Above the last point stands the name of its curve.
                offset, anchor = (9, -4), "left"
            place = (highest[size]["gmacs"], highest[size]["top1"])
            _note(axes, f"{size} px", place, offset, "muted", ha=anchor)
        front = best_for_their_cost([result for curve in curves for result in curve.results if result.get("gmacs")])
        if len(front) > 1:
            x, y = [point["gmacs"] for point in front], [point["top1"] for point in front]
            axes.step(x, y, where="post", color=ink("muted"), linewidth=6, alpha=0.25, zorder=0)
        axes.margins(x=0.1, y=0.16)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("GMACs per picture")
        _percent_axis(axes)
        _name_curves(axes, curves, lines)

    return Chart(draw, shape, title)


def best_for_their_cost(results: Sequence[Result]) -> list[Result]:
    """Return the results that none beats: every other is dearer in GMACs, or less accurate; the cheapest first."""
    places = pareto_front([result["gmacs"] for result in results], [result["top1"] for result in results])
    return [results[place] for place in places]


def reliability(sets: Sequence[tuple[str, str, Sequence[Result]]], title: str) -> Chart:
    """Return an SVG of how often a network is right [percent] against how sure it is [percent].

    `sets` are (label, role, bins as `per_image.bins` gives them). Bars are 95 % intervals; the grey columns are the
    share of pictures in each bin of the last set.
    """

    def draw(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color=ink("muted"), linewidth=0.9, dashes=(2, 3), zorder=0)
        num = sum(one["num_images"] for one in sets[-1][2])
        for one in sets[-1][2]:
            corner, width, share = (one["low"], 0), one["high"] - one["low"], 100 * one["num_images"] / num
            axes.add_patch(Rectangle(corner, width, share, color=ink("rule"), alpha=0.7, zorder=0))
        for label, role, bins in sets:
            x, y = [one["confidence"] for one in bins], [one["right"] for one in bins]
            axes.vlines(x, *zip(*(one["ci95"] for one in bins), strict=True), color=ink(role), linewidth=1, alpha=0.5)
            axes.plot(x, y, color=ink(role), linewidth=1.8, marker="o", markersize=4.5, label=label)
        axes.set(xlim=(min(one["low"] for _, _, bins in sets for one in bins), 100.5), ylim=(0, 101))
        axes.set(xlabel="how sure the network is, %", ylabel="how often it is right, %")
        _legend(axes, {str(line.get_label()): line for line in axes.get_lines()[1:]}, "best")

    return Chart(draw, NARROW, title)


def quantity_against_size(curves: Sequence[Curve], key: str, marks: Mapping[str, int], title: str) -> Chart:
    """Return an SVG of any measured quantity, `key` of the curves' results, against size [pixels]."""

    def draw(axes: Axes) -> None:
        for curve in curves:
            x, y = zip(*((result["size"], result[key]) for result in curve.results), strict=True)
            dashes = (0, (4, 2)) if curve.is_dashed else "solid"
            axes.plot(x, y, color=ink(curve.role), linewidth=2.0, linestyle=dashes, marker="o", label=curve.label)
        _size_axis(axes, curves, marks, NARROW[0])
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _legend(axes, {str(line.get_label()): line for line in axes.get_lines()[: len(curves)]}, "best")

    return Chart(draw, NARROW, title)


def history(series: Sequence[Series], title: str, boundaries: Mapping[str, float]) -> Chart:
    """Return an SVG of training quantities against epochs; `boundaries` names the epoch at which each stage starts."""

    def draw(axes: Axes) -> None:
        named: dict[str, Line2D] = {}
        for line in series:
            (drawn,) = axes.plot(
                line.x,
                line.y,
                color=ink(line.role),
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
                axes.axvline(start, color=ink("muted"), linewidth=0.8, dashes=(3, 3))
            _note(axes, name, (start, 1.0), (3, 3), "muted", xycoords=_ABOVE, fontsize=10)
        axes.set_xlim(left=-0.02 * max(line.x[-1] for line in series))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("epochs")
        if len(named) > 1:
            values = [y for one in series for y in one.y]
            earliest = min(series, key=lambda one: one.x[0]).y[0]
            _legend(axes, named, "upper right" if earliest > sum(values) / len(values) else "lower right")

    return Chart(draw, SMALL, title)


def confusion_heatmap(confusion: Sequence[Sequence[int]], title: str, names: Sequence[str] = ()) -> Chart:
    """Return an SVG of a confusion matrix [C, C], each row divided by its sum; row: true class, column: predicted.

    Few classes are named, and their pictures counted in the cells.
    """
    num_classes = len(confusion)
    is_named = num_classes <= MAX_NAMED_CLASSES and len(names) >= num_classes

    def draw(axes: Axes) -> None:
        cells: dict[tuple[str, float], list[Outline]] = {}
        for row, counts in enumerate(confusion):
            for column, number in enumerate(counts):
                share = number / max(1, sum(counts))
                if number:
                    shade = ("after" if row == column else "before", round(share, 1))
                    cells.setdefault(shade, []).append(_square(column, row))
                if is_named:
                    colour = ink("paper" if share > 0.55 else "ink")
                    axes.text(column + 0.5, row + 0.5, str(number), ha="center", va="center", color=colour)
        # One path for all cells of a shade: a path for each would make a page of 100 classes megabytes long.
        for (role, share), squares in cells.items():
            path = Outline.make_compound_path(*squares)
            axes.add_patch(PathPatch(path, color=ink(role), alpha=0.25 + 0.75 * share, lw=0, zorder=0.5))
        axes.set(xlim=(0, num_classes), ylim=(num_classes, 0), aspect="equal")
        axes.grid(visible=False)
        counted = "" if is_named else ", counted from 0"
        axes.set(xlabel=f"predicted class{counted}", ylabel=f"true class{counted}")
        shown = range(0, num_classes, 1 if is_named else max(1, num_classes // 8))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks([n + 0.5 for n in shown], [names[n] if is_named else str(n) for n in shown])
        if is_named and num_classes > 3:
            axes.tick_params(axis="x", rotation=45)

    return Chart(draw, SQUARE, title)


def _square(left: float, top: float) -> Outline:
    return Outline([(left, top), (left + 1, top), (left + 1, top + 1), (left, top + 1), (left, top)], closed=True)


def _intervals(axes: Axes, curve: Curve) -> None:
    known = [result for result in curve.results if result.get("top1_ci95")]
    if not known:
        return
    sizes = [result["size"] for result in known]
    low, high = zip(*(result["top1_ci95"] for result in known), strict=True)
    if len(known) > 1:
        axes.fill_between(sizes, low, high, color=ink(curve.role), alpha=0.13, linewidth=0)
    else:
        axes.vlines(sizes, low, high, color=ink(curve.role), linewidth=1.5, alpha=0.6)


def _line(axes: Axes, curve: Curve, x: Sequence[float]) -> Line2D:
    (line,) = axes.plot(
        x,
        [result["top1"] for result in curve.results],
        color=ink(curve.role),
        linewidth=2.0,
        linestyle=(0, (4, 2)) if curve.is_dashed else "solid",
        marker="o",
        markersize=5.5,
        markerfacecolor=ink("paper") if curve.is_dashed else ink(curve.role),
        markeredgecolor=ink(curve.role),
        markeredgewidth=1.5,
    )
    return line


def _size_axis(axes: Axes, curves: Sequence[Curve], marks: Mapping[str, int], width: int) -> None:
    """Number the sizes there is room for, and point out those of `marks`."""
    sizes = sorted({result["size"] for curve in curves for result in curve.results} | set(marks.values()))
    span = max(1, sizes[-1] - sizes[0])
    room = 40.0 * span / max(1, width - 80)
    shown: list[int] = []
    for size in sizes:
        if not shown or size - shown[-1] >= room:
            shown.append(size)
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(sizes[0] - 0.06 * span - 1, sizes[-1] + 0.06 * span + 1)
    axes.set_xlabel("size in pixels")
    _marks(axes, marks)


def _marks(axes: Axes, marks: Mapping[str, int]) -> None:
    by_size: dict[int, list[str]] = {}
    for name, size in marks.items():
        by_size.setdefault(size, []).append(name)
    sizes = sorted(by_size)
    for position, size in enumerate(sizes):
        axes.axvline(size, color=ink("muted"), linewidth=0.9, dashes=(2, 3), zorder=0)
        offset, anchor = ((3, 4), "right") if len(sizes) > 1 and position == 0 else ((0, 4), "left")
        names = " and ".join(by_size[size])
        _note(axes, f"{names} {size}", (size, 1.0), offset, "muted", xycoords=_ABOVE, ha=anchor, fontsize=11)


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
        height, rise, anchor = (passed.max(), 7, "bottom") if is_upper else (passed.min(), -7, "top")
        _note(axes, curve.label, (place[-1, 0], height), (4, rise), curve.role, ha="right", va=anchor, fontsize=12)


def _note(axes: Axes, text: str, place: tuple[float, float], offset: tuple[int, int], role: str, **look: Any) -> None:
    """Write beside a place in the chart, `offset` in points from it."""
    axes.annotate(text, place, xytext=offset, textcoords="offset points", color=ink(role), **look)


def _legend(axes: Axes, lines: Mapping[str, Line2D], place: Any) -> None:
    legend = axes.legend(
        list(lines.values()),
        list(lines),
        loc=place,
        labelcolor=ink("ink"),
        handlelength=2.0,
        borderaxespad=0.3,
        framealpha=0.85,
    )
    legend.get_frame().set(facecolor=ink("paper"), edgecolor="none")

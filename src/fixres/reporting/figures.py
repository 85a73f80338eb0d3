"""Charts as files of their own, SVG or PNG: a study's grid, an advice, sheets of pictures.

Those of the report's page are in charts.py.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from fixres.errors import UserError
from fixres.io.files import write_with
from fixres.reporting.svg import POINT, ROLES, clear, lettering, settings

if TYPE_CHECKING:
    from fixres.reporting.gallery import Picture

ENDINGS = (".svg", ".png")
_ARMS = {
    "none": "before",
    "stats": "run6",
    "head": "run4",
    "head+stats": "after",
    "head+norm": "run3",
    "all": "run5",
    "direct": "ink",
}
_DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1, 2)))
_MARKERS = "osD^"
_PANEL = (520, 400)
_COLUMNS = 6


def check_plot(path: Path) -> None:
    """Refuse a file that no chart can be written to, before anything is measured.

    Raises:
        UserError: it ends otherwise, or is a folder.
    """
    if path.suffix.lower() not in ENDINGS or path.is_dir():
        raise UserError(f"--plot {path}: give the name of a file that ends in {' or '.join(ENDINGS)}")


def draw_grid(entries: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw accuracy against test size with one line per arm and train size; bars are one standard deviation.

    Colour tells the arm, the dashes tell the train size.
    """

    def draw(axes: Axes) -> None:
        trained = sorted({entry["train_size"] for entry in entries if entry["arm"] != "direct"})
        lines: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for entry in entries:
            size = 0 if entry["arm"] == "direct" else entry["train_size"]
            lines.setdefault((entry["arm"], size), []).append(entry)
        for (arm, size), own in lines.items():
            own.sort(key=lambda entry: entry["test_size"])
            place = trained.index(size) if size else 0
            axes.errorbar(
                [entry["test_size"] for entry in own],
                [entry["mean"] for entry in own],
                yerr=[entry["std"] for entry in own],
                color=_ink(_ARMS.get(arm, "run2")),
                linestyle=_DASHES[place % len(_DASHES)],
                marker=_MARKERS[place % len(_MARKERS)],
                markersize=5,
                linewidth=1.8,
                elinewidth=0.8,
                capsize=2,
                label="trained at the test size" if arm == "direct" else f"{size} px, {arm}",
            )
        axes.set_xticks(sorted({entry["test_size"] for entry in entries}))
        axes.set(xlabel="test size in pixels", ylabel="top-1 accuracy, %")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, handlelength=3.0)

    _save([draw], path, (920, 460))


def draw_pictures(title: str, rows: Sequence[tuple[str, Sequence[Picture]]], path: Path) -> None:
    """Draw rows of pictures with captions, each row under its own heading, six to a line."""
    lines = [
        (heading if first == 0 else "", shown[first : first + _COLUMNS])
        for heading, shown in rows
        for first in range(0, len(shown), _COLUMNS)
    ]
    cell, text, heading_room = 130, 44, 24
    tall = 40 + len(lines) * (cell + text + heading_room)
    with lettering({"font.size": 9}):
        figure = Figure(figsize=(_COLUMNS * (cell + 12) / POINT, tall / POINT))
        figure.patch.set_facecolor(_ink("paper"))
        wide = _COLUMNS * (cell + 12)
        figure.text(6 / wide, 1 - 8 / tall, title, va="top", fontsize=12, color=_ink("ink"))
        for line, (heading, shown) in enumerate(lines):
            top = 40 + line * (cell + text + heading_room)
            figure.text(6 / wide, 1 - top / tall, heading, va="top", color=_ink("muted"))
            for column, one in enumerate(shown):
                side = cell * one.width_percent / 100
                left, bottom = 6 + column * (cell + 12), tall - top - heading_room - side
                axes = figure.add_axes((left / wide, bottom / tall, side / wide, side / tall))
                axes.imshow(_pixels(one), interpolation="lanczos")
                axes.set_axis_off()
                role = "muted" if one.is_right is None else "after" if one.is_right else "before"
                place = (left / wide, (bottom - 4) / tall)
                figure.text(*place, _caption(one), va="top", fontsize=8, color=_ink(role))
        _write(figure, path)


def _pixels(picture: Picture) -> np.ndarray:
    content = base64.b64decode(picture.uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def _caption(picture: Picture) -> str:
    if not picture.prediction:
        return picture.truth
    return f"{picture.prediction} {picture.probability}" + ("" if picture.is_right else f"\nis {picture.truth}")


def draw_intervals(rows: Sequence[tuple[str, float, tuple[float, float]]], path: Path) -> None:
    """Draw (label, accuracy, 95 % interval) in percent, one line per row, the last one as what ships."""

    def draw(axes: Axes) -> None:
        for place, (_, value, (low, high)) in enumerate(rows):
            colour = _ink("after" if place == len(rows) - 1 else "before")
            axes.hlines(place, low, high, color=colour, linewidth=3, alpha=0.55)
            axes.plot(value, place, marker="|", markersize=14, markeredgewidth=3, color=colour)
            axes.annotate(f"{value:.1f}", (value, place), (0, 10), textcoords="offset points", ha="center")
        axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel("top-1 accuracy and its 95 % interval, %")

    _save([draw], path, (700, 90 + 55 * len(rows)))


def draw_advice(answer: dict[str, Any], path: Path) -> None:
    """Draw accuracy against size, un-fixed and fixed, and against GMACs with the front that nothing beats."""
    rows = answer["rows"]
    networks = list(dict.fromkeys((row["network"], row["crop_ratio"]) for row in rows))

    def look(network: str, ratio: float) -> dict[str, Any]:
        ratios = sorted({row["crop_ratio"] for row in rows})
        return {
            "color": _ink("after" if network == "fixed" else "before"),
            "linestyle": _DASHES[ratios.index(ratio) % len(_DASHES)],
            "marker": _MARKERS[ratios.index(ratio) % len(_MARKERS)],
            "markersize": 5,
        }

    def against_size(axes: Axes) -> None:
        for network, ratio in networks:
            own = sorted(
                (r for r in rows if (r["network"], r["crop_ratio"]) == (network, ratio)), key=lambda r: r["size"]
            )
            label = f"{network}, {own[0]['view']}"
            axes.plot([r["size"] for r in own], [r["top1"] for r in own], label=label, **look(network, ratio))
        _mark_advice(axes, answer, "size")
        axes.set_xticks(sorted({row["size"] for row in rows}))
        axes.set(xlabel="size in pixels", ylabel=f"top-1 accuracy on {answer['split']}, %")
        axes.legend(loc="best", frameon=False)

    def against_cost(axes: Axes) -> None:
        for row in rows:
            axes.plot(row["gmacs"], row["top1"], **look(row["network"], row["crop_ratio"]))
        front = sorted((row for row in rows if row["on_front"]), key=lambda row: row["gmacs"])
        (line,) = axes.step(
            [row["gmacs"] for row in front], [row["top1"] for row in front], where="post", color=_ink("muted"), zorder=0
        )
        _mark_advice(axes, answer, "gmacs")
        axes.set(xlabel="GMACs per picture")
        handles: list[Line2D] = [line]
        axes.legend(handles, ["nothing is cheaper and as good"], loc="lower right", frameon=False)

    _save([against_size, against_cost], path, (2 * _PANEL[0], _PANEL[1]))


def _mark_advice(axes: Axes, answer: dict[str, Any], across: str) -> None:
    advice = answer["advice"]
    axes.plot(
        advice[across],
        advice["top1"],
        marker="o",
        markersize=14,
        markerfacecolor="none",
        markeredgecolor=_ink("ink"),
        linestyle="none",
    )


def _ink(role: str) -> str:
    return ROLES[role][1]


def _save(draws: Sequence[Callable[[Axes], None]], path: Path, shape: tuple[int, int]) -> None:
    check_plot(path)
    with settings(path.name):
        figure = Figure(figsize=(shape[0] / POINT, shape[1] / POINT), layout="constrained")
        figure.patch.set_facecolor(_ink("paper"))
        for axes, draw in zip(figure.subplots(1, len(draws), squeeze=False)[0], draws, strict=True):
            clear(axes, _ink("rule"))
            draw(axes)
        _write(figure, path)


def _write(figure: Figure, path: Path) -> None:
    kind = path.suffix.lower().removeprefix(".")
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else None
    figure.savefig(buffer, format=kind, dpi=2 * POINT, metadata=metadata)
    write_with(path, lambda temporary: temporary.write_bytes(buffer.getvalue()))

"""How a chart becomes SVG or PNG. Colours are CSS variables, so one SVG serves light, dark and print."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import cache
from html import escape
from typing import Any, Self

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

# matplotlib knows colours, not CSS variables: each role is drawn in a colour nobody uses and renamed in the SVG.
# The second value is what a viewer without the page's style sheet shows, and what a PNG is drawn in.
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
_MORE_LETTERS = (
    *(f"Noto Sans CJK {kind}" for kind in ("SC", "TC", "JP", "KR")),
    *("Source Han Sans SC", "Noto Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB", "Malgun Gothic", "Arial Unicode MS"),
    *(f"Noto Sans {script}" for script in ("Arabic", "Hebrew", "Devanagari", "Bengali", "Tamil", "Thai")),
    *("Noto Emoji", "Symbola", "Segoe UI Emoji"),
)
"""Fonts with letters that DejaVu lacks, in the order they are asked; emoji in colours cannot be drawn."""
POINT = 72.0
_DOTS_PER_POINT = 2
_is_picture: ContextVar[bool] = ContextVar("_is_picture", default=False)


class Chart(str):
    """A chart as SVG text for a page, of (width, height) CSS pixels; `png` draws it again as a picture."""

    shape: tuple[int, int]
    label: str
    """What a screen reader says."""
    _draw: Callable[[Axes], None]

    def __new__(cls, draw: Callable[[Axes], None], shape: tuple[int, int], label: str) -> Self:
        """Draw it: `draw` puts everything into the axes, in colours of `ink`."""
        chart = super().__new__(cls, _svg(draw, shape, label))
        chart._draw, chart.shape, chart.label = draw, shape, label
        return chart

    def __html__(self) -> str:
        """Return the SVG as markup for a template."""
        return str(self)

    def png(self) -> bytes:
        """Return the chart as PNG with two dots per CSS pixel, in the light colours."""
        token = _is_picture.set(True)
        try:
            buffer = io.BytesIO()
            with settings(f"{self.label} {self.shape}"):
                figure = _figure(self._draw, self.shape)
                figure.patch.set(visible=True, facecolor=ink("paper"))
                figure.savefig(buffer, format="png", dpi=_DOTS_PER_POINT * POINT, metadata={"Software": None})
        finally:
            _is_picture.reset(token)
        return buffer.getvalue()


def ink(role: str) -> str:
    """Return the colour in which a role, a key of ROLES, is drawn."""
    return ROLES[role][_is_picture.get()]


def settings(salt: str) -> AbstractContextManager[None]:
    """Return matplotlib's settings for a chart; equal salts give equal names inside an SVG."""
    return lettering({"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 11})


@contextmanager
def lettering(more: Mapping[str, Any]) -> Iterator[None]:
    """Draw text in whatever script it is written in, with further settings of matplotlib.

    In a page the browser has its own fonts. In a picture a letter that no font of this machine has is a box, without
    a line of warning for each.
    """
    # Run and class names may hold a dollar sign: they are text, never mathematics.
    rules: Any = {"font.family": list(_fonts()), "text.parse_math": False, **more}
    with mpl.rc_context(rules), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        yield


@cache
def _fonts() -> tuple[str, ...]:
    """Return matplotlib's own font and those of this machine that have the letters it lacks."""
    there = {font.name for font in fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _MORE_LETTERS if name in there))


def clear(axes: Axes, rule: str) -> None:
    """Leave of the frame only the lower line, and horizontal lines behind the curves, in the colour `rule`."""
    axes.patch.set_visible(False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(rule)
    axes.grid(axis="y", color=rule, linewidth=0.8)
    axes.set_axisbelow(True)


def _figure(draw: Callable[[Axes], None], shape: tuple[int, int]) -> Figure:
    figure = Figure(figsize=(shape[0] / POINT, shape[1] / POINT), layout="constrained")
    axes = figure.subplots()
    figure.patch.set_visible(False)
    clear(axes, ink("rule"))
    axes.tick_params(colors=ink("muted"), labelsize=11, length=0, pad=6)
    draw(axes)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(ink("muted"))
    return figure


def _svg(draw: Callable[[Axes], None], shape: tuple[int, int], title: str) -> str:
    buffer = io.StringIO()
    with settings(f"{title} {shape}"):
        figure = _figure(draw, shape)
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    head = f'<svg class="chart" viewBox="0 0 {shape[0]} {shape[1]}" role="img" aria-label="{escape(title)}">'
    svg = head + svg[svg.index(">") + 1 :].strip()
    # The page's own fonts are used: their widths differ from matplotlib's, which alignment by anchor allows for.
    svg = re.sub(r"font: (?:(\d{3}|bold) )?([\d.]+px)[^;\"]*", r"font-size: \2", svg)
    for role, (drawn, fallback) in ROLES.items():
        svg = svg.replace(drawn, f"var(--{role}, {fallback})")
    return svg.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace("xlink:href", "href")

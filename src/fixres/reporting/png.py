"""`report --png`: every chart of the page, and every sheet of pictures, as a file."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fixres.errors import UserError
from fixres.io.files import write_with
from fixres.reporting.figures import Shown, draw_intervals, draw_pictures
from fixres.reporting.gallery import Picture
from fixres.reporting.misclassified import Case
from fixres.reporting.svg import Chart

View = dict[str, Any]


def write_pngs(views: View, folder: Path) -> list[Path]:
    """Write the pictures into `folder`, those of several runs into a folder for each, and return their paths.

    Raises:
        UserError: `folder` is a file or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--png {folder}: there is a file of this name; give the name of a folder")
    written = []
    for name, chart in _charts_of_all(views["overview"] or {}):
        written.append(_write(chart, folder / name))
    for run in views["runs"]:
        own = folder if views["is_single"] else folder / f"{run['id']}-{run['name']}"
        written += [_write(chart, own / name) for name, chart in _charts(run)]
        if run["comparison"]:
            written.append(own / "result.png")
            draw_intervals(_results(run["comparison"]["rows"]), written[-1])
        for name, title, rows in _sheets(run):
            written.append(own / name)
            draw_pictures(title, rows, written[-1])
    return written


def _write(chart: Chart, path: Path) -> Path:
    content = chart.png()
    write_with(path, lambda temporary: temporary.write_bytes(content))
    return path


def _charts_of_all(overview: View) -> Iterator[tuple[str, Chart]]:
    for name, key in (("accuracy-against-size.png", "wide"), ("accuracy-against-cost.png", "cost")):
        if overview.get(key):
            yield name, overview[key]


def _charts(run: View) -> Iterator[tuple[str, Chart]]:
    size = run["size"] or {}
    for name, key in (("accuracy-against-size.png", "wide"), ("accuracy-against-cost.png", "cost")):
        if size.get(key):
            yield name, size[key]
    for chart, name in zip(run["training"], _names(run["training"]), strict=True):
        yield f"training-{name}.png", chart["svg"]
    for chart, name in zip((run["why"] or {}).get("charts", ()), ("zeros", "spread")[-2:], strict=False):
        yield f"activations-{name}.png", chart["svg"]
    if run["calibration"]:
        yield "calibration.png", run["calibration"]["chart"]
    if run["errors"] and run["errors"]["heatmap"]:
        yield "confusion.png", run["errors"]["heatmap"]


def _names(charts: Sequence[View]) -> list[str]:
    return [chart["title"].split(",")[0].lower().replace(" ", "-") for chart in charts]


def _results(rows: Sequence[View]) -> list[tuple[str, float, tuple[float, float]]]:
    return [
        (f"{row['label']}, {row['size']} px", row["value"], tuple(row["ci95"]))
        for row in rows
        if row["ci95"] and row["value"] is not None
    ]


def _sheets(run: View) -> Iterator[tuple[str, str, list[tuple[str, list[Shown]]]]]:
    rows = [(f"{row.title}, {row.note}", [_shown(p) for p in row.pictures]) for row in run["gallery"].rows]
    if rows:
        yield "as-the-network-sees-them.png", "As the network sees them", rows
    mistakes = run["mistakes"]
    if mistakes is None or mistakes.problem:
        return
    if mistakes.hardest:
        yield "hardest.png", "The hardest pictures", [("", _of_cases(mistakes.hardest))]
    pairs = [
        (f"{pair.label} called {pair.prediction}: {pair.num_images}", _of_cases(pair.cases)) for pair in mistakes.pairs
    ]
    if pairs:
        yield "most-confused.png", "The most confused pairs", pairs


def _of_cases(cases: Sequence[Case]) -> list[Shown]:
    return [_shown(case.picture) for case in cases if case.picture is not None]


def _shown(picture: Picture) -> Shown:
    content = base64.b64decode(picture.uri.partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    caption = picture.truth
    if picture.prediction:
        caption = f"{picture.prediction} {picture.probability}"
        caption += "" if picture.is_right else f"\nis {picture.truth}"
    return Shown(pixels, picture.width_percent / 100, caption, picture.is_right)

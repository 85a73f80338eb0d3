"""`report --png`: every chart of the page, and every sheet of pictures, as a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fixres.errors import UserError
from fixres.io.files import write_with
from fixres.reporting.figures import draw_intervals, draw_pictures
from fixres.reporting.gallery import Picture
from fixres.reporting.run_record import Comparison, Json, number
from fixres.reporting.sections import row_title
from fixres.reporting.svg import Chart


def write_pngs(views: Json, folder: Path) -> list[Path]:
    """Write the pictures into `folder`, those of several runs into a folder for each, and return their paths.

    Raises:
        UserError: `folder` is a file or cannot be written.
    """
    require_folder(folder)
    written = [_write(chart, folder / name) for name, chart in _size_charts(views["overview"] or {})]
    for run in views["runs"]:
        record = run["record"]
        own = folder if views["is_single"] else folder / f"{run['id']}-{record.name}"
        written += [_write(chart, own / name) for name, chart in _charts(run)]
        if record.comparison:
            written.append(own / "result.png")
            draw_intervals(_results(record.comparison), written[-1])
        for name, title, rows in _sheets(run):
            written.append(own / name)
            draw_pictures(title, rows, written[-1])
    return written


def require_folder(folder: Path) -> None:
    """Raise UserError where a file of this name is in the way."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--png {folder}: there is a file of this name; give the name of a folder")


def _write(chart: Chart, path: Path) -> Path:
    content = chart.png()
    write_with(path, lambda temporary: temporary.write_bytes(content))
    return path


def _size_charts(view: Json) -> Iterator[tuple[str, Chart]]:
    for name, key in (("accuracy-against-size.png", "wide"), ("accuracy-against-cost.png", "cost")):
        if view.get(key):
            yield name, view[key]


def _charts(run: Json) -> Iterator[tuple[str, Chart]]:
    yield from _size_charts(run["size"] or {})
    for chart in run["training"]:
        yield f"training-{chart['title'].split(',')[0].lower().replace(' ', '-')}.png", chart["svg"]
    for chart, name in zip((run["why"] or {}).get("charts", ()), ("zeros", "spread")[-2:], strict=False):
        yield f"activations-{name}.png", chart["svg"]
    if run["calibration"]:
        yield "calibration.png", run["calibration"]["chart"]
    if run["errors"] and run["errors"]["heatmap"]:
        yield "confusion.png", run["errors"]["heatmap"]


def _results(comparison: Comparison) -> list[tuple[str, float, tuple[float, float]]]:
    return [
        (f"{row_title(str(row.get('label', '')))}, {row.get('size')} px", row["top1"], tuple(row["top1_ci95"]))
        for row in comparison.rows
        if row.get("top1_ci95") and number(row.get("top1")) is not None
    ]


def _sheets(run: Json) -> Iterator[tuple[str, str, list[tuple[str, list[Picture]]]]]:
    rows = [(f"{row.title}, {row.note}", list(row.pictures)) for row in run["gallery"].rows]
    if rows:
        yield "as-the-network-sees-them.png", "As the network sees them", rows
    mistakes = run["mistakes"]
    if mistakes is None or mistakes["problem"]:
        return

    def known(cases: list[Json]) -> list[Picture]:
        return [run["pictures"][case["path"]] for case in cases if case["path"] in run["pictures"]]

    if mistakes["hardest"]:
        yield "hardest.png", "The hardest pictures", [("", known(mistakes["hardest"]))]
    pairs = [
        (f"{pair['label']} called {pair['prediction']}: {pair['num_images']}", known(pair["images"]))
        for pair in mistakes["confused"]
    ]
    if pairs:
        yield "most-confused.png", "The most confused pairs", pairs

"""The measured parts of the page: the comparison, accuracy against size and cost, training, errors by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fixres.evaluation.metrics import class_counts
from fixres.reporting import charts
from fixres.reporting.charts import Curve, Series
from fixres.reporting.number_format import figures
from fixres.reporting.run_record import Comparison, Json, Record, number
from fixres.training.train_size_control import CONTROL

MAX_CLASSES_BESIDE = 4
MAX_CLASSES_IN_TABLE = 12
MAX_CLASSES_LISTED = 20
MAX_CLASSES_DRAWN = 100
MAX_POINTS = 600

LABELS = {
    "train size": "Train size",
    "larger size only": "Larger size only",
    CONTROL: "Fixed at the train size",
    "fixed": "Fixed",
}
NOTES = {
    "train size": "the network as trained",
    "larger size only": "the same weights, larger pictures",
    CONTROL: "only the head solved again",
    "fixed": "the network after the fix",
}


_NOTES_OF_NEW_HEAD = {CONTROL: "a head on frozen features", "fixed": "a head on frozen features"}


def row_note(comparison: Comparison, label: str) -> str:
    """Return what a row of the comparison is, in a few words."""
    return ({**NOTES, **_NOTES_OF_NEW_HEAD} if comparison.has_new_head else NOTES).get(label, "")


def row_title(label: str) -> str:
    """Return what a row of the comparison is called."""
    return LABELS.get(label, label.capitalize())


def comparison_rows(comparison: Comparison) -> list[tuple[Json, Json | None]]:
    """Return the rows of the comparison, each with its bar on a scale that all share, in percent of its width.

    A row without an interval has None for a bar.
    """
    bounds = [bound for row in comparison.rows for bound in (row.get("top1_ci95") or ())]
    values = [value for row in comparison.rows if (value := number(row.get("top1"))) is not None]
    low, high = min(bounds + values, default=0.0), max(bounds + values, default=100.0)
    margin = 0.06 * max(high - low, 1.0)
    low, span = low - margin, high - low + 2 * margin

    def place(value: float) -> float:
        return round(100 * (value - low) / span, 2)

    rows = []
    for row in comparison.rows:
        bar, ci95, top1 = None, row.get("top1_ci95"), number(row.get("top1"))
        if ci95 and top1 is not None:
            bar = {"low": place(ci95[0]), "high": place(ci95[1]), "value": place(top1)}
        rows.append((row, bar))
    return rows


def milliseconds(result: Json) -> str:
    """Return the time of one picture in milliseconds."""
    rate = number(result.get("images_per_second"))
    return figures(1000 / rate) if rate else "–"


def size_curves(record: Record) -> list[Curve]:
    """Return the swept curves before and after the fix, sorted by size."""
    curves = []
    for label, name, role, is_dashed in (
        ("before", "before the fix" if record.has_fix else "as trained", "before", record.has_fix),
        ("fixed", "fixed", "after", False),
    ):
        sweep = record.sweep(label)
        if sweep:
            curves.append(Curve(name, _by_size(sweep["results"]), role, is_dashed))
    return curves


def run_curves(records: Sequence[Record], is_repeat: bool) -> list[Curve]:
    """Return every run's curves for one chart: dashed before the fix and solid after.

    Runs differ by colour; repeats of one recipe share the colours of before and after.
    """
    curves = []
    for position, record in enumerate(records):
        for curve in size_curves(record):
            if is_repeat:
                curves.append(curve)
            else:
                role = charts.RUN_ROLES[position % len(charts.RUN_ROLES)]
                curves.append(replace(curve, label=f"{record.name}, {curve.label}", role=role))
    return curves


def size_marks(record: Record) -> dict[str, int]:
    """Return the sizes that the charts point out."""
    marks = {"train size": record.train_size}
    if record.test_size != record.train_size:
        marks["test size"] = record.test_size
    return {name: size for name, size in marks.items() if size}


def size_rows(record: Record) -> list[tuple[int, Json, Json]]:
    """Return (size, result before, result after) of each swept size; a result that was not logged is empty."""
    before, fixed = (
        {result["size"]: result for result in (record.sweep(label) or {}).get("results", ())}
        for label in ("before", "fixed")
    )
    return [(size, before.get(size, {}), fixed.get(size, {})) for size in sorted(before | fixed)]


def cost_note(record: Record) -> str:
    """Return how much more arithmetic a picture takes at the test size than at the train size."""
    sweep = record.sweep("fixed") or record.sweep("before") or {}
    gmacs = {result["size"]: number(result.get("gmacs")) for result in sweep.get("results", ())}
    small, large = gmacs.get(record.train_size), gmacs.get(record.test_size)
    if not small or not large or small == large:
        return ""
    return (
        f"A picture takes {large / small:.2g} times the arithmetic at {record.test_size} px"
        f" that it takes at {record.train_size} px."
    )


def training_charts(record: Record) -> list[dict[str, Any]]:
    """Return the charts of loss, accuracy on the selecting split and learning rate over all stages."""
    boundaries = _boundaries(record)
    return [
        {"title": title, "svg": charts.history(series, f"{title} against epochs", boundaries)}
        for title, series in _training(record).items()
    ]


def training_values(record: Record) -> dict[str, Any]:
    """Return what those charts draw: for each title its lines, and the epoch at which each stage starts."""
    lines = {
        title: [
            {"label": line.label, "epochs": list(line.x), "values": list(line.y)}
            for line in series
            if not line.is_faint
        ]
        for title, series in _training(record).items()
    }
    return {"stages": _boundaries(record), "lines": lines}


def _training(record: Record) -> dict[str, list[Series]]:
    starts = _stage_starts(record)
    found = {
        "Loss": _losses(record, starts),
        "Accuracy while training, %": _accuracies(record, starts),
        "Learning rate": _learning_rates(record, starts),
    }
    return {title: [_thinned(line) for line in series] for title, series in found.items() if series}


def _thinned(line: Series) -> Series:
    """Return the line with few enough points for a page, the first and the last among them."""
    if len(line.x) <= MAX_POINTS:
        return line
    kept = [round(place * (len(line.x) - 1) / (MAX_POINTS - 1)) for place in range(MAX_POINTS)]
    return replace(line, x=[line.x[place] for place in kept], y=[line.y[place] for place in kept])


def _boundaries(record: Record) -> dict[str, float]:
    return {_stage_name(record, index): start for index, start in _stage_starts(record).items()}


def class_rows(
    confusion: Sequence[Sequence[int]], before: Sequence[Sequence[int]] | None, names: list[str]
) -> list[Json]:
    """Return counts, recall and precision [percent] of each true class of a confusion matrix.

    A class without a picture has a recall of 0; `recall_before` is that before the fix, None when it was not logged.
    """
    named = [_name(names, index) for index in range(len(confusion))]
    rows, rows_before = (
        class_counts(counts.sum(1), counts.sum(0), counts.diagonal(), named)
        for counts in (np.asarray(confusion), np.asarray(before or confusion))
    )
    return [
        {**row, "recall": row["recall"] or 0.0, "recall_before": old["recall"] if before else None}
        for row, old in zip(rows, rows_before, strict=True)
    ]


def most_confused(
    confusion: Sequence[Sequence[int]], names: list[str], num_pairs: int = 8
) -> list[tuple[str, str, int]]:
    """Return (true class, predicted class, count) of the commonest errors."""
    errors = [
        (count, row, column)
        for row, counts in enumerate(confusion)
        for column, count in enumerate(counts)
        if row != column and count
    ]
    errors.sort(key=lambda error: (-error[0], error[1], error[2]))
    return [(_name(names, row), _name(names, column), count) for count, row, column in errors[:num_pairs]]


def confusions(record: Record) -> tuple[Any, Any, str, int]:
    """Return the final confusion matrix, the first one (or None), and the final one's split and size."""
    comparison = record.comparison
    if comparison:
        rows = [row for row in comparison.rows if row.get("confusion")]
        if rows:
            first = next((row["confusion"] for row in rows if row.get("label") == "train size"), None)
            final = comparison.shipped or next((row for row in rows if row.get("label") == "fixed"), None)
            if final is not None and final.get("label") != "fixed":
                # Before and after are those of a fix.
                first = None
            final = final if final in rows else None
            final = final or next((row for row in rows if row.get("size") == record.test_size), rows[-1])
            return final["confusion"], first, comparison.split, int(final["size"])
    for event in reversed(record.all_of("eval")):
        for result in reversed(event.get("results") or []):
            if result.get("confusion"):
                return result["confusion"], None, str(event.get("split")), int(result["size"])
    return None, None, "", 0


def _name(names: list[str], index: int) -> str:
    return names[index] if index < len(names) else str(index)


def _by_size(results: Sequence[Json]) -> list[Json]:
    return sorted((r for r in results if number(r.get("top1")) is not None), key=lambda result: int(result["size"]))


def _stage_starts(record: Record) -> dict[int, float]:
    lengths: dict[int, float] = {}
    for event in record.all_of("train") + record.all_of("eval"):
        lengths[_stage(event)] = max(lengths.get(_stage(event), 0.0), number(event.get("epoch")) or 0.0)
    starts, start = {}, 0.0
    for index in sorted(lengths):
        starts[index] = start
        start += lengths[index]
    return starts


def _stage(event: Json) -> int:
    return int(event.get("stage_index") or 0)


def _stage_name(record: Record, index: int) -> str:
    events = (event for event in record.all_of("train") + record.all_of("eval") if _stage(event) == index)
    return str(next((event.get("stage") for event in events if event.get("stage")), f"stage {index}"))


def _stretches(events: Sequence[Json], starts: dict[int, float], key: str) -> list[tuple[list[float], list[float]]]:
    """Return (epochs since the start of the run, values) of each stage: a line does not run on into the next one."""
    stretches = []
    for index, start in starts.items():
        known = [(start + (number(e.get("epoch")) or 0.0), number(e.get(key))) for e in events if _stage(e) == index]
        places = [(x, y) for x, y in known if y is not None]
        if places:
            stretches.append(([x for x, _ in places], [y for _, y in places]))
    return stretches


def _losses(record: Record, starts: dict[int, float]) -> list[Series]:
    series = []
    for x, y in _stretches(record.all_of("train"), starts, "loss"):
        series.append(Series("training", x, y, "before", is_faint=True))
        series.append(Series("training", x, _smooth(y), "before"))
    for x, y in _stretches(_evaluations(record, "shipped"), starts, "loss"):
        series.append(Series("selecting split", x, y, "after", has_markers=True))
    return series


def _accuracies(record: Record, starts: dict[int, float]) -> list[Series]:
    raw = _stretches(_evaluations(record, "raw"), starts, "top1")
    averaged = _stretches(_evaluations(record, "ema"), starts, "top1")
    series = [Series("weights", x, y, "before" if averaged else "after", has_markers=True) for x, y in raw]
    return series + [Series("average of weights", x, y, "after", has_markers=True) for x, y in averaged]


def _learning_rates(record: Record, starts: dict[int, float]) -> list[Series]:
    return [Series("learning rate", x, y, "ink") for x, y in _stretches(record.all_of("train"), starts, "lr")]


def _evaluations(record: Record, weights: str) -> list[Json]:
    """Return a flat row for each evaluation while training: `raw` weights, `ema`, or those that a stage ships."""
    events = [event for event in record.all_of("eval") if event.get("results")]
    averaged = {_stage(event) for event in events if event.get("weights") == "ema"}
    rows = []
    for event in events:
        wanted = ("ema" if _stage(event) in averaged else "raw") if weights == "shipped" else weights
        if event.get("weights", "raw") == wanted:
            rows.append({**event["results"][0], "epoch": event.get("epoch"), "stage_index": event.get("stage_index")})
    return rows


def _smooth(values: Sequence[float]) -> list[float]:
    """Return the exponential mean over about a twentieth of `values`, without the bias of its start."""
    keep = 1 - 1 / max(1.0, len(values) / 20)
    smoothed, mean, weight = [], 0.0, 0.0
    for value in values:
        mean = keep * mean + (1 - keep) * value
        weight = keep * weight + 1 - keep
        smoothed.append(mean / weight)
    return smoothed

"""Every metric with its interval, and whether the network is as often right as it is sure."""

from __future__ import annotations

from fixres.evaluation.metrics import METRICS, Metric, is_shown
from fixres.reporting import charts
from fixres.reporting.number_format import MISSING, figures, percent
from fixres.reporting.per_image import Answers, bins, expected_calibration_error, intervals
from fixres.reporting.run_record import Json, Record, number
from fixres.reporting.sections import row_title

_ACCURACIES = ("top1", "top5", "balanced_accuracy", "macro_f1")


def _in_order() -> list[str]:
    """Return the metrics there are now, a registered one too, the accuracies first."""
    return [*_ACCURACIES, *(key for key in METRICS if key not in _ACCURACIES)]


def scores(record: Record, answers: Answers | None) -> list[Json]:
    """Return for every row of the comparison its metrics, each as {"value", "ci95"}; ci95 is None where unknown."""
    if record.comparison is None:
        return []
    rows = []
    for row in record.comparison.rows:
        label = str(row.get("label", ""))
        known = intervals(answers, label) if answers is not None and label in answers.columns else {}
        metrics = {}
        for name in _in_order():
            value = number(row.get(name))
            if value is not None:
                bounds = row.get("top1_ci95") if name == "top1" else known.get(name)
                metrics[name] = {"value": value, "ci95": list(bounds) if bounds else None}
        rows.append({"label": label, "size": row.get("size"), "metrics": metrics})
    return rows


def scores_view(rows: list[Json], num_classes: int) -> Json | None:
    """Return the table: a line per metric worth showing of so many classes, a column per row of the comparison."""
    lines = [
        (METRICS[key], [row["metrics"].get(key) for row in rows])
        for key in _in_order()
        if any(key in row["metrics"] for row in rows) and is_shown(key, num_classes)
    ]
    has_intervals = any(found["ci95"] for row in rows for key, found in row["metrics"].items() if key != "top1")
    return {"columns": rows, "lines": lines, "has_intervals": has_intervals} if lines else None


def calibration(answers: Answers | None) -> Json | None:
    """Return the reliability bins of the shipped network, and of the one before a fix, or None without them."""
    if answers is None:
        return None
    sets = []
    for name in (answers.before, answers.final):
        found = bins(answers, name) if name is not None else []
        if found:
            sets.append({"label": name, "ece": expected_calibration_error(found), "bins": found})
    return {"sets": sets} if sets else None


def calibration_view(found: Json | None) -> Json | None:
    """Return the diagram and the sentence below it."""
    if found is None:
        return None
    drawn = [
        (row_title(one["label"]), "after" if one is found["sets"][-1] else "before", one["bins"])
        for one in found["sets"]
    ]
    final = found["sets"][-1]
    num = sum(one["num_images"] for one in final["bins"])
    gap = sum(one["num_images"] * (one["confidence"] - one["right"]) for one in final["bins"]) / num
    return {
        "chart": charts.reliability(drawn, "How often the network is right against how sure it is"),
        "told": f"On average the network that ships is {abs(gap):.1f} points {'more' if gap >= 0 else 'less'} sure "
        f"than it is right; the mean distance over the bins (ECE) is {figures(final['ece'], 2)}.",
        "bins": final["bins"],
    }


def promises(record: Record) -> Json | None:
    """Return what the product promises; None where nothing was certified."""
    return record.fixres.get("promises") or None


def written(metric: Metric, value: object) -> str:
    """Return a figure of a metric with the digits it is shown with, or a dash."""
    known = number(value)
    return MISSING if known is None else percent(known) if metric.unit == "%" else f"{known:.{metric.digits}f}"

"""Several runs side by side: one line each, mean and spread over seeds, and the curves in one chart."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict

from fixres.evaluation.metrics import paired_difference
from fixres.reporting import charts, sections
from fixres.reporting.headline import repeats_headline
from fixres.reporting.number_format import MISSING, percent, points
from fixres.reporting.per_image import Answers
from fixres.reporting.run_record import Json, Record, number, same_but_for_seed
from fixres.training.train_size_control import CONTROL

_SHORT = {"larger size only": "Larger only"}
"""Headings of columns that would be wide."""


def overview(records: Sequence[Record], answers: Sequence[Answers | None], ids: Sequence[str]) -> Json:
    """Return what stands above the single runs."""
    is_repeat = same_but_for_seed(records)
    curves = sections.run_curves(records, is_repeat)
    names = ", ".join(record.name for record in records)
    title = f"Top-1 accuracy against size of {names}"
    has_cost = any(result.get("gmacs") for curve in curves for result in curve.results)
    labels = _labels(records)
    against_first = [None, *(against(other, answers[0]) for other in answers[1:])]
    return {
        "headline": repeats_headline(records) if is_repeat else None,
        "is_repeat": is_repeat,
        "columns": [_SHORT.get(label, sections.row_title(label)) for label in labels],
        "means": _means(records, labels) if is_repeat else [],
        "is_shared": len({_pictures(record) for record in records}) == 1,
        "has_against": any(against_first),
        "first": records[0].name,
        "rows": [
            _row(record, name, first, labels) for record, name, first in zip(records, ids, against_first, strict=True)
        ],
        "wide": charts.accuracy_against_size(curves, {}, title, charts.WIDE) if curves else "",
        "narrow": charts.accuracy_against_size(curves, {}, title, charts.NARROW) if curves else "",
        "cost": charts.accuracy_against_cost(curves, {}, f"Top-1 accuracy against GMACs of {names}", charts.WIDE)
        if has_cost
        else "",
        "cost_narrow": charts.accuracy_against_cost(curves, {}, f"Top-1 accuracy against GMACs of {names}")
        if has_cost
        else "",
    }


def against(answers: Answers | None, first: Answers | None) -> Json | None:
    """Return the paired difference of the shipped networks, this run minus the first; None on other pictures."""
    if answers is None or first is None or answers.paths != first.paths:
        return None
    if _names(answers) != _names(first):
        return None
    return asdict(paired_difference(first.columns[first.final].hits, answers.columns[answers.final].hits))


def _pictures(record: Record) -> tuple[str, str, str, int]:
    """Return what has to be equal for the curves of two runs to be measured on the same pictures."""
    swept = record.sweep("fixed") or record.sweep("before") or {}
    data = record.section("data")
    return str(data.get("uri")), str(data.get("split_seed")), str(swept.get("split")), int(swept.get("num_images") or 0)


def _names(answers: Answers) -> list[str]:
    return [answers.classes[label] for label in answers.labels]


def _labels(records: Sequence[Record]) -> list[str]:
    """Return the rows of comparisons that have a column: the control only where a run has it."""
    has_control = any(record.comparison and record.comparison.row(CONTROL) for record in records)
    return [label for label in sections.LABELS if has_control or label != CONTROL]


def _row(record: Record, name: str, first: Json | None, labels: Sequence[str]) -> Json:
    comparison = record.comparison
    by_label = {str(row.get("label")): row for row in comparison.rows} if comparison else {}
    if "fixed" not in by_label and "trained" in by_label:
        by_label["train size"] = by_label["trained"]
    return {
        "id": name,
        "record": record,
        "results": [by_label.get(label, {}) for label in labels],
        "paired": comparison.paired if comparison else {},
        "against": first,
    }


def _means(records: Sequence[Record], labels: Sequence[str]) -> list[str]:
    """Return mean and standard deviation of each accuracy and of the paired difference, where every run has them."""
    comparisons = [record.comparison for record in records]
    columns = [[number((c.row(label) or {}).get("top1")) if c else None for c in comparisons] for label in labels]
    columns.append([number(c.paired.get("difference")) if c else None for c in comparisons])
    means = []
    for position, column in enumerate(columns):
        known = [value for value in column if value is not None]
        if len(known) < len(records):
            means.append(MISSING)
            continue
        write = percent if position < len(labels) else points
        means.append(f"{write(statistics.mean(known))} ± {statistics.stdev(known):.1f}")
    return means

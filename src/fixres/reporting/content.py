"""The content of the page as plain values: `report --json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fixres.errors import fixres_version
from fixres.evaluation.metrics import without_confusion
from fixres.reporting import sections
from fixres.reporting.analysis import Findings
from fixres.reporting.charts import best_for_their_cost
from fixres.reporting.explanation import measured
from fixres.reporting.gallery import apparent_size
from fixres.reporting.headline import headline, repeats_headline
from fixres.reporting.misclassified import Case, Mistakes
from fixres.reporting.overview import against
from fixres.reporting.reproduce import commands
from fixres.reporting.run_record import Json, number, same_but_for_seed


def content(all_findings: Sequence[Findings]) -> Json:
    """Return everything the page says, as JSON values; accuracies in percent, losses in nats, times in seconds."""
    records = [found.record for found in all_findings]
    repeats = repeats_headline(records) if same_but_for_seed(records) else None
    first = all_findings[0].answers
    differences = [against(found.answers, first) for found in all_findings[1:]]
    return {
        "fixres": fixres_version(),
        "headline": asdict(repeats) if repeats else None,
        "runs": [_run(found) for found in all_findings],
        "against_first": differences,
    }


def _run(found: Findings) -> Json:
    record = found.record
    comparison = record.comparison
    confusion, before, split, size = sections.confusions(record)
    curves = {curve.label: list(curve.results) for curve in sections.size_curves(record)}
    costed = [
        {"weights": label, **without_confusion(result)}
        for label, results in curves.items()
        for result in results
        if result.get("gmacs")
    ]
    return {
        "name": record.name,
        "folder": str(record.folder),
        "state": record.state,
        "model": record.model,
        "train_size": record.train_size,
        "test_size": record.test_size,
        "headline": asdict(headline(record)),
        "notes": record.notes,
        "seconds": number((record.last("done") or {}).get("seconds")),
        "comparison": None
        if comparison is None
        else {
            "split": comparison.split,
            "num_images": comparison.num_images,
            "rows": [without_confusion(row) for row in comparison.rows],
            "paired": comparison.paired or None,
        },
        "scores": found.scores,
        "accuracy_against_size": {
            label: [without_confusion(result) for result in results] for label, results in curves.items()
        },
        "pareto_front": best_for_their_cost(costed),
        "training": sections.training_values(record),
        "confusion": {"split": split, "size": size, "classes": record.classes, "matrix": confusion, "before": before}
        if confusion
        else None,
        "mistakes": None if found.mistakes is None else _mistakes(found.mistakes),
        "calibration": found.calibration,
        "activations": measured(record),
        "seen": {
            "apparent_size": apparent_size(record),
            "pictures": [{"title": row.title, "preprocessing": row.note} for row in found.gallery.rows],
            "problem": found.gallery.problem or None,
        },
        "predictions": list(record.predictions),
        "fix": record.last("fix"),
        "recipe": record.recipe,
        "environment": record.environment,
        "commands": [asdict(command) for command in commands(record)],
    }


def _mistakes(found: Mistakes) -> Json:
    return {
        "hardest": _cases(found.hardest),
        "confused": [
            {
                "label": p.label,
                "prediction": p.prediction,
                "num_images": p.num_images,
                "images": _cases(p.cases),
            }
            for p in found.pairs
        ],
        "problem": found.problem or None,
    }


def _cases(cases: Sequence[Case]) -> list[dict[str, Any]]:
    return [{name: value for name, value in vars(case).items() if name != "picture"} for case in cases]


def finite(value: Any) -> Any:
    """Return `value` with None for what JSON cannot hold: a diverged loss is NaN."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return number(value) if isinstance(value, float) else value

"""What is worked out about one run, once, for the page, the JSON and the pictures; and `report --json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fixres.errors import fixres_version
from fixres.evaluation.metrics import without_confusion
from fixres.reporting import sections
from fixres.reporting.charts import best_for_their_cost
from fixres.reporting.explanation import measured
from fixres.reporting.gallery import MAX_BYTES, Gallery, Picture, apparent_size, gallery, open_pictures
from fixres.reporting.headline import headline, repeats_headline
from fixres.reporting.misclassified import mistakes
from fixres.reporting.overview import against
from fixres.reporting.per_image import Answers, read_answers
from fixres.reporting.probe_table import tried
from fixres.reporting.quality import calibration, promises, scores
from fixres.reporting.reproduce import commands
from fixres.reporting.run_record import Json, Record, number, same_but_for_seed
from fixres.reporting.shipping_table import shipping

MAX_RUNS_WITH_PICTURES = 8
_FEWEST_BYTES = 3_000


@dataclass(frozen=True)
class Findings:
    """`answers`, `mistakes` and `calibration` are None where the run has no comparison.csv."""

    record: Record
    answers: Answers | None
    scores: list[Json]
    calibration: Json | None
    gallery: Gallery
    mistakes: Json | None
    pictures: Mapping[str, Picture]
    """Of the mistakes, by path."""


def find(record: Record, num_runs: int) -> Findings:
    """Work out one run of a page about `num_runs`: the more runs, the smaller their pictures."""
    answers = read_answers(record)
    many = f"a page about more than {MAX_RUNS_WITH_PICTURES} runs has none; see that of {record.name} alone"
    opened = open_pictures(record) if num_runs <= MAX_RUNS_WITH_PICTURES else many
    max_bytes = max(_FEWEST_BYTES, MAX_BYTES // num_runs)
    wrong, pictures = mistakes(record, answers, opened, max_bytes) if answers is not None else (None, {})
    return Findings(
        record,
        answers,
        scores(record, answers),
        calibration(answers),
        gallery(record, opened, max_bytes),
        wrong,
        pictures,
    )


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
    curves = {
        curve.label: [without_confusion(result) for result in curve.results] for curve in sections.size_curves(record)
    }
    costed = [
        {"weights": label, **result} for label, results in curves.items() for result in results if result.get("gmacs")
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
            "differences": list(comparison.differences),
            "control": comparison.control or None,
            "new_head": comparison.has_new_head,
        },
        "elsewhere": record.last("elsewhere"),
        "shipping": shipping(record),
        "tried": tried(record.folder),
        "scores": found.scores,
        "accuracy_against_size": curves,
        "pareto_front": best_for_their_cost(costed),
        "training": sections.training_values(record),
        "confusion": {"split": split, "size": size, "classes": record.classes, "matrix": confusion, "before": before}
        if confusion
        else None,
        "mistakes": found.mistakes,
        "calibration": found.calibration,
        "promises": promises(record),
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
        "commands": commands(record),
    }


def finite(value: Any) -> Any:
    """Return `value` with None for what JSON cannot hold: a diverged loss is NaN."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return number(value) if isinstance(value, float) else value

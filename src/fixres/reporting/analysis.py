"""What is worked out about one run, once, for the page, the JSON and the pictures."""

from __future__ import annotations

from dataclasses import dataclass

from fixres.reporting.gallery import MAX_BYTES, Gallery, gallery, open_pictures
from fixres.reporting.misclassified import Mistakes, mistakes
from fixres.reporting.per_image import Answers, read_answers
from fixres.reporting.quality import calibration, scores
from fixres.reporting.run_record import Json, Record

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
    mistakes: Mistakes | None


def find(record: Record, num_runs: int) -> Findings:
    """Work out one run of a page about `num_runs`: the more runs, the smaller their pictures."""
    answers = read_answers(record)
    many = f"a page about more than {MAX_RUNS_WITH_PICTURES} runs has none; see that of {record.name} alone"
    opened = open_pictures(record) if num_runs <= MAX_RUNS_WITH_PICTURES else many
    max_bytes = max(_FEWEST_BYTES, MAX_BYTES // num_runs)
    return Findings(
        record,
        answers,
        scores(record, answers),
        calibration(answers),
        gallery(record, opened, max_bytes),
        mistakes(record, answers, opened, max_bytes) if answers is not None else None,
    )

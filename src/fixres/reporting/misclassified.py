"""Pictures the network gets wrong: the commonest confusions, and those on which it loses most."""

from __future__ import annotations

from dataclasses import replace

from fixres.data.splits import Split
from fixres.errors import UserError
from fixres.reporting.gallery import MAX_BYTES, Picture, as_tested, unreadable
from fixres.reporting.number_format import percent
from fixres.reporting.per_image import Answers, confused, hardest
from fixres.reporting.run_record import Json, Record, number

NUM_HARDEST = 12
NUM_PAIRS = 4
NUM_OF_PAIR = 6


def mistakes(
    record: Record, answers: Answers, opened: Split | str, max_bytes: int = MAX_BYTES
) -> tuple[Json, dict[str, Picture]]:
    """Return the hardest pictures and the commonest confusions of the shipped network, and how they look, by path.

    Each confusion is one class taken for another: how often, and the pictures on which that costs most. `problem` says
    why there are no pictures; one that the collection no longer has is left out.
    """
    worst = [_case(answers, place) for place in hardest(answers, NUM_HARDEST)]
    pairs: list[Json] = [
        {
            "label": answers.classes[label],
            "prediction": answers.classes[prediction],
            "num_images": num,
            "images": [_case(answers, place) for place in places],
        }
        for label, prediction, num, places in confused(answers, NUM_PAIRS, NUM_OF_PAIR)
    ]
    cases = [*worst, *(case for pair in pairs for case in pair["images"])]
    pictures: dict[str, Picture] = {}
    problem = opened if isinstance(opened, str) else None
    if not isinstance(opened, str):
        try:
            pictures = _pictures(record, opened, cases, max_bytes)
        except (UserError, OSError, ValueError) as error:
            problem = unreadable(error)
    return {"hardest": worst, "confused": pairs, "problem": problem}, pictures


def _case(answers: Answers, place: int) -> Json:
    """Return one picture and what the shipped network says of it: the probability, in percent, of its prediction."""
    column = answers.columns[answers.final]
    return {
        "path": answers.paths[place],
        "label": answers.classes[answers.labels[place]],
        "prediction": answers.classes[column.predictions[place]],
        "probability": number(100 * float(column.confidences[place])),
        "loss": float(column.losses[place]),
    }


def _pictures(record: Record, split: Split, cases: list[Json], max_bytes: int) -> dict[str, Picture]:
    index_of = {str(path): index for index, path in enumerate(split.paths)}
    known = {case["path"]: case for case in cases if case["path"] in index_of}
    drawn = as_tested(record, split, [index_of[path] for path in known], max_bytes)
    return {path: _answered(picture, known[path]) for path, picture in zip(known, drawn, strict=True)}


def _answered(picture: Picture, case: Json) -> Picture:
    return replace(
        picture,
        alt=f"{case['path']}: is {case['label']}, called {case['prediction']}",
        truth=case["label"],
        prediction=case["prediction"],
        probability="" if case["probability"] is None else f"{percent(case['probability'])} %",
        is_right=case["prediction"] == case["label"],
    )

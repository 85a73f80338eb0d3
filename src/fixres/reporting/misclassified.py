"""Pictures the network gets wrong: the commonest confusions, and those on which it loses most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fixres.data.splits import Split
from fixres.errors import UserError
from fixres.reporting.gallery import MAX_BYTES, Picture, as_tested
from fixres.reporting.number_format import percent
from fixres.reporting.per_image import Answers, confused, hardest
from fixres.reporting.run_record import Record

NUM_HARDEST = 12
NUM_PAIRS = 4
NUM_OF_PAIR = 6


@dataclass(frozen=True)
class Case:
    """One picture and what the shipped network says of it; `picture` is None where it cannot be read any more."""

    path: str
    label: str
    prediction: str
    probability: float | None
    """In percent, of the prediction."""
    loss: float
    picture: Picture | None = None


@dataclass(frozen=True)
class Pair:
    """One class taken for another: how often, and the pictures on which that costs most."""

    label: str
    prediction: str
    num_images: int
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Mistakes:
    """`problem` says why there are no pictures."""

    hardest: tuple[Case, ...]
    pairs: tuple[Pair, ...]
    problem: str


def mistakes(record: Record, answers: Answers, opened: Split | str, max_bytes: int = MAX_BYTES) -> Mistakes:
    """Return the hardest pictures and the commonest confusions of the shipped network."""
    worst = [_case(answers, place) for place in hardest(answers, NUM_HARDEST)]
    pairs = [
        Pair(answers.classes[label], answers.classes[prediction], num, tuple(_case(answers, p) for p in places))
        for label, prediction, num, places in confused(answers, NUM_PAIRS, NUM_OF_PAIR)
    ]
    if isinstance(opened, str):
        return Mistakes(tuple(worst), tuple(pairs), opened)
    index_of = {str(path): index for index, path in enumerate(opened.paths)}
    try:
        shown = [
            _with_pictures(record, opened, index_of, cases, max_bytes) for cases in (worst, *(p.cases for p in pairs))
        ]
    except (UserError, OSError, ValueError) as problem:
        return Mistakes(tuple(worst), tuple(pairs), f"they cannot be read any more: {str(problem).rstrip('.')}")
    return Mistakes(shown[0], tuple(replace(p, cases=cases) for p, cases in zip(pairs, shown[1:], strict=True)), "")


def _case(answers: Answers, place: int) -> Case:
    column = answers.columns[answers.final]
    sure = column.probabilities
    return Case(
        answers.paths[place],
        answers.classes[answers.labels[place]],
        answers.classes[column.predictions[place]],
        None if sure is None else 100 * float(sure[place]),
        float(column.losses[place]),
    )


def _with_pictures(
    record: Record, split: Split, index_of: dict[str, int], cases: Sequence[Case], max_bytes: int
) -> tuple[Case, ...]:
    known = [case for case in cases if case.path in index_of]
    drawn = iter(as_tested(record, split, [index_of[case.path] for case in known], max_bytes))
    return tuple(replace(case, picture=_answered(next(drawn), case)) if case in known else case for case in cases)


def _answered(picture: Picture, case: Case) -> Picture:
    sure = "" if case.probability is None else f"{percent(case.probability)} %"
    return replace(
        picture,
        alt=f"{case.path}: is {case.label}, called {case.prediction}",
        truth=case.label,
        prediction=case.prediction,
        probability=sure,
        is_right=case.prediction == case.label,
    )

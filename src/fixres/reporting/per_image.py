"""What a run said of every reported picture, from comparison.csv, and the numbers recounted from it."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fixres.evaluation.metrics import (
    MAX_CONFUSION_CLASSES,
    NUM_BINS,
    Outcomes,
    bin_places,
    bootstrap_intervals,
    confusion_matrix,
    wilson_interval,
)
from fixres.io.csv_text import read_marked
from fixres.reporting.run_record import Json, Record
from fixres.training.comparison_table import PICTURES

NUM_RESAMPLES = 1000
MAX_DRAWN = 20_000_000
"""Pictures drawn for the intervals of one row: a set of 100,000 is resampled 200 times."""


@dataclass(frozen=True)
class Answers:
    """`labels` int64 `[N]` are places in `classes`; the columns go by the labels of the comparison's rows.

    Confidences are NaN where the run is older than their column and has more than two classes. The table does not say
    at which place a label came: ranks only tell right from wrong.
    """

    paths: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    columns: Mapping[str, Outcomes]
    shipped: str = ""
    """Label of the row that was chosen to ship; empty: nothing was chosen."""

    @cached_property
    def final(self) -> str:
        """Label of the row that ships."""
        if self.shipped in self.columns:
            return self.shipped
        return next((name for name in ("fixed", "trained") if name in self.columns), list(self.columns)[-1])

    @property
    def before(self) -> str | None:
        """Label of the row from before a fix."""
        is_fix = self.final == "fixed" or not self.shipped
        return "train size" if is_fix and "train size" in self.columns and self.final != "train size" else None

    def confusion(self, name: str) -> list[list[int]]:
        """Return the counts `[C, C]`, a row for each label; empty above 1,000 classes."""
        num_classes = len(self.classes)
        if num_classes > MAX_CONFUSION_CLASSES:
            return []
        counts: list[list[int]] = confusion_matrix(self.labels, self.columns[name].predictions, num_classes).tolist()
        return counts


def read_answers(record: Record) -> Answers | None:
    """Return the answers, None where the run has no such table, or one that is not of this kind."""
    try:
        with (record.folder / PICTURES).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            found = _answers(list(read_marked(file)), record.classes)
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return None
    chosen = record.comparison.shipped if record.comparison else None
    return replace(found, shipped=str(chosen["label"])) if found is not None and chosen is not None else found


def _answers(rows: list[dict[str, str]], known: list[str]) -> Answers | None:
    names = [name.removesuffix(" loss") for name in rows[0] if name.endswith(" loss")] if rows else []
    if not names:
        return None
    told = {row[name] for row in rows for name in ("label", *names)}
    classes = [*known, *sorted(told - set(known))]
    place = {name: index for index, name in enumerate(classes)}
    labels = np.array([place[row["label"]] for row in rows], dtype=np.int64)
    columns = {}
    for name in names:
        predictions = np.array([place[row[name]] for row in rows], dtype=np.int64)
        losses = np.array([float(row[f"{name} loss"]) for row in rows])
        is_right = labels == predictions
        if f"{name} probability" in rows[0]:
            confidences = np.array([float(row[f"{name} probability"]) for row in rows])
        elif len(classes) > 2:
            confidences = np.full(len(rows), np.nan)
        else:
            confidences = np.where(is_right, np.exp(-losses), 1 - np.exp(-losses))
        columns[name] = Outcomes(labels, predictions, np.where(is_right, 0, 1), confidences, losses, len(classes))
    return Answers(tuple(row["path"] for row in rows), labels, tuple(classes), columns)


def intervals(answers: Answers, name: str) -> dict[str, tuple[float, float]]:
    """Return 95 % bootstrap intervals over pictures of every metric but top-1 and top-5."""
    outcomes = answers.columns[name]
    if np.isnan(outcomes.confidences).all():
        return {}
    num = max(100, min(NUM_RESAMPLES, MAX_DRAWN // (outcomes.num_images + outcomes.num_classes)))
    found = bootstrap_intervals(outcomes, num)
    # The interval of top-1 is logged.
    return {key: bounds for key, bounds in found.items() if key not in ("top1", "top5")}


def bins(answers: Answers, name: str) -> list[Json]:
    """Return the bins of the expected calibration error that hold pictures, the least sure first.

    Everything about a bin but its number of pictures is in percent.
    """
    outcomes = answers.columns[name]
    if np.isnan(outcomes.confidences).all():
        return []
    places = bin_places(outcomes.confidences)
    found = []
    for place in np.unique(places).tolist():
        chosen = places == place
        num, right = int(chosen.sum()), int(outcomes.hits[chosen].sum())
        found.append(
            {
                "low": 100 * place / NUM_BINS,
                "high": 100 * (place + 1) / NUM_BINS,
                "num_images": num,
                "confidence": 100 * float(outcomes.confidences[chosen].mean()),
                "right": 100 * right / num,
                "ci95": wilson_interval(right, num),
            }
        )
    return found


def expected_calibration_error(found: list[Json]) -> float:
    """Return the mean distance of confidence and accuracy over pictures, in [0, 1] (Guo et al. 2017, equation 3)."""
    num: int = sum(one["num_images"] for one in found)
    distance: float = sum(one["num_images"] * abs(one["confidence"] - one["right"]) for one in found)
    return distance / (100 * num)


def hardest(answers: Answers, num: int) -> list[int]:
    """Return the places of the pictures on which the shipped network loses most."""
    order = np.argsort(-answers.columns[answers.final].losses, kind="stable")
    return [int(place) for place in order[:num]]


def confused(answers: Answers, num_pairs: int, num: int) -> list[tuple[int, int, int, list[int]]]:
    """Return (label, prediction, how often, the surest places) of the commonest errors."""
    column = answers.columns[answers.final]
    wrong = np.flatnonzero(column.predictions != answers.labels)
    num_classes = len(answers.classes)
    pairs, counts = np.unique(answers.labels[wrong] * num_classes + column.predictions[wrong], return_counts=True)
    found = []
    for chosen in np.argsort(-counts, kind="stable")[:num_pairs]:
        label, prediction = divmod(int(pairs[chosen]), num_classes)
        own = wrong[(answers.labels[wrong] == label) & (column.predictions[wrong] == prediction)]
        surest = own[np.argsort(-column.losses[own], kind="stable")][:num]
        found.append((label, prediction, int(counts[chosen]), [int(place) for place in surest]))
    return found

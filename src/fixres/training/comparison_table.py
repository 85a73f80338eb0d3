"""What every row of a run's comparison says of each reported picture, as a table people and `report` read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fixres.evaluation.evaluate import Evaluation
from fixres.io.csv_text import CsvRows
from fixres.io.files import write_text
from fixres.training.context import RunContext

PICTURES = "comparison.csv"
"""In the run folder: one row per reported picture, with what each row of the comparison predicts.

People open it in spreadsheets: names that begin like a formula are marked, and `read_marked` reads it."""


def write_pictures(context: RunContext, labels: list[str], evaluations: Sequence[Evaluation]) -> None:
    """Write for every picture what each row of the comparison predicts, how surely, and the loss it pays."""
    split = context.collection.split(context.collection.report)
    classes = context.collection.classes
    figures = [f"{label} {figure}" for figure in ("loss", "probability") for label in labels]
    rows = [["path", "label", *labels, *figures]]
    predictions, losses, probabilities = (
        np.concatenate([getattr(found, name) for found in evaluations])
        for name in ("predictions", "losses", "probabilities")
    )
    for column, index in enumerate(evaluations[0].indices):
        predicted = [classes[int(k)] for k in predictions[:, column]]
        paid = [f"{value:.6f}" for value in (*losses[:, column], *probabilities[:, column])]
        label = classes[int(evaluations[0].labels[column])]
        rows.append([split.paths[int(index)], label, *predicted, *paid])
    write_text(context.folder / PICTURES, CsvRows(spreadsheet=True).text(rows))

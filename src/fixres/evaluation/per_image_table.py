"""`eval --predictions`: what was said of every picture, as a table that anything can recount."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fixres.data.splits import Split
from fixres.errors import UserError
from fixres.evaluation.evaluate import Evaluation
from fixres.io.csv_text import CsvRows
from fixres.io.files import write_text, write_with
from fixres.io.parquet import require_parquet, write_parquet

FORMATS = (".csv", ".parquet")


def require_writable(path: Path) -> None:
    """Check, before any work, that a file can be written at `path`.

    Raises:
        UserError: it is a folder, lies in what is no folder, or may not be written.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}\n  name another place") from error
    if path.exists() and not os.access(path, os.W_OK):
        raise UserError(f"cannot write {path}: it is protected\n  name another place")


def require_table(path: Path) -> None:
    """Check, before any work, that the predictions can be written to `path`.

    Raises:
        UserError: another ending than .csv or .parquet, a missing package, or a place that cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"--predictions {path}: the ending says the format\n  allowed: {', '.join(FORMATS)}")
    if path.suffix.lower() == ".parquet":
        require_parquet()
    require_writable(path)


def write_predictions(
    path: Path, found: Evaluation, split: Split, classes: Sequence[str], spreadsheet: bool = False
) -> None:
    """Write one row per picture and result: path, label, size, (corruption,) prediction, probability.

    Probabilities are in full; a CSV has them with 6 digits. The column `corruption` is there when something was
    spoiled. With `spreadsheet`, names in a CSV that begin like a formula are marked.

    Raises:
        UserError: the disk is full.
    """
    columns = _columns(found, split, classes)
    if path.suffix.lower() == ".parquet":
        write_with(path, lambda temporary: write_parquet(temporary, columns))
    else:
        rows = [[*row[:-1], f"{row[-1]:.6f}"] for row in zip(*columns.values(), strict=True)]
        write_text(path, CsvRows(spreadsheet=spreadsheet).text([list(columns), *rows]))


def _columns(found: Evaluation, split: Split, classes: Sequence[str]) -> dict[str, list[str] | list[int] | list[float]]:
    num = len(found.results)
    paths = [split.paths[index] for index in found.indices.tolist()]
    labels = [classes[label] for label in found.labels.tolist()]
    columns: dict[str, list[str] | list[int] | list[float]] = {
        "path": paths * num,
        "label": labels * num,
        "size": [result["size"] for result in found.results for _ in paths],
    }
    if any(result.get("corruption") for result in found.results):
        columns["corruption"] = [result.get("corruption") or "" for result in found.results for _ in paths]
    columns["prediction"] = [classes[place] for place in found.predictions.ravel().tolist()]
    columns["probability"] = found.probabilities.ravel().tolist()
    return columns

"""Predictions as text or a table: for people, for programs, for a spreadsheet; one at a time, as they come."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from fixres.cli.commands.predict import Format
from fixres.errors import on_one_line
from fixres.inference.predict import Prediction
from fixres.io.csv_text import CsvRows
from fixres.io.parquet import Kind, ParquetRows


class TextWriter:
    """Writes predictions to an open text file, ready to be read after every call."""

    def __init__(
        self,
        file: TextIO,
        style: Format,
        top_k: int,
        *,
        with_unsure: bool,
        goes_on: bool = False,
        spreadsheet: bool = False,
    ) -> None:
        """Write what comes first, unless the file `goes_on`. `spreadsheet` is about CSV."""
        self.file, self.style = file, style
        rows = CsvRows(spreadsheet=spreadsheet)
        self._row: Callable[[Prediction], str] = {"table": _for_people, "json": _json, "jsonl": _json_line}.get(
            style, lambda p: rows.text([_cells(p, top_k, with_unsure)])
        )
        self._is_first = True
        if style == "csv" and not goes_on:
            names = [column for i in range(1, top_k + 1) for column in (f"name{i}", f"probability{i}")]
            file.write(rows.text([["path", "size", *names, *(["unsure"] if with_unsure else []), "error"]]))

    def write(self, predictions: Sequence[Prediction]) -> None:
        """Write some more."""
        for prediction in predictions:
            if self.style == "json":
                self.file.write("[\n" if self._is_first else ",\n")
            self.file.write(self._row(prediction))
            self._is_first = False
        self.file.flush()

    def close(self) -> None:
        """Write what comes last."""
        if self.style == "json":
            self.file.write("[]\n" if self._is_first else "\n]\n")
        self.file.flush()


class ParquetWriter:
    """Writes predictions to a Parquet file: path, size, names, probabilities (lists), unsure, error."""

    def __init__(self, path: Path) -> None:
        """Begin the file.

        Raises:
            UserError: pyarrow is not installed.
        """
        columns: dict[str, Kind] = {"path": "str", "size": "int", "names": "strs", "probabilities": "floats"}
        columns |= {"unsure": "bool", "error": "str"}
        self._rows = ParquetRows(path, columns)

    def write(self, predictions: Sequence[Prediction]) -> None:
        """Write some more."""
        self._rows.write(
            {
                "path": p.path,
                "size": p.size,
                "names": [name for name, _ in p.top],
                "probabilities": [probability for _, probability in p.top],
                "unsure": p.unsure,
                "error": p.error or None,
            }
            for p in predictions
        )

    def close(self) -> None:
        """End the file, without which it cannot be read."""
        self._rows.close()


Writer = TextWriter | ParquetWriter
"""Takes predictions in order; `close` when all of them are there."""


def _for_people(p: Prediction) -> str:
    lines = [
        on_one_line(p.path) + (f"  cannot be read: {p.error}" if p.error else "") + ("  unsure" if p.unsure else "")
    ]
    lines += [
        f"  {on_one_line(name):<72} ({100 * share:5.2f} %)" for name, (_, share) in zip(p.said, p.top, strict=True)
    ]
    return "\n".join(lines) + "\n"


def _json(p: Prediction) -> str:
    return "\n".join("  " + line for line in json.dumps(p.as_dict(), indent=2).split("\n"))


def _json_line(p: Prediction) -> str:
    return json.dumps(p.as_dict()) + "\n"


def _cells(p: Prediction, top_k: int, with_unsure: bool) -> list[Any]:
    cells = [cell for name, probability in p.top for cell in (name, f"{probability:.6f}")]
    unsure = ["" if p.unsure is None else str(p.unsure).lower()] if with_unsure else []
    return [p.path, p.size, *cells, *[""] * (2 * top_k - len(cells)), *unsure, p.error]

"""Predictions as text or a table: for people, for programs, for a spreadsheet; one at a time, as they come."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from fixres.cli.commands.predict import Format
from fixres.cli.prediction_columns import Cells, Layout
from fixres.errors import on_one_line
from fixres.inference.predict import Prediction
from fixres.io.csv_text import CsvRows
from fixres.io.parquet import Kind, ParquetRows

_AS_THE_FORMAT = Layout()


class TextWriter:
    """Writes predictions to an open text file, ready to be read after every call."""

    def __init__(
        self,
        file: TextIO,
        style: Format,
        top_k: int,
        *,
        marks: Sequence[str] = (),
        goes_on: bool = False,
        spreadsheet: bool = False,
        layout: Layout = _AS_THE_FORMAT,
    ) -> None:
        """Write what comes first, unless the file `goes_on`. `marks`: of set and unsure, the columns; for CSV."""
        self.file, self.style = file, style
        rows = CsvRows(spreadsheet=spreadsheet)

        def cells(p: Prediction, kept: Cells) -> str:
            if layout.chosen:
                return rows.text([list(map(_cell, layout.row(p, kept).values()))])
            return rows.text([[*(kept[name] for name in layout.keep), *_cells(p, top_k, marks)]])

        def fields(p: Prediction, kept: Cells) -> dict[str, Any]:
            return layout.row(p, kept) if layout.chosen else {**kept, **p.as_dict()}

        by_style: dict[str, Callable[[Prediction, Cells], str]] = {
            "table": lambda p, _: _for_people(p),
            "json": lambda p, kept: _json(fields(p, kept)),
            "jsonl": lambda p, kept: json.dumps(fields(p, kept)) + "\n",
        }
        self._row = by_style.get(style, cells)
        self._is_first = True
        if style == "csv" and not goes_on:
            names = [column for i in range(1, top_k + 1) for column in (f"name{i}", f"probability{i}")]
            own = ["path", "size", *names, *marks, "error"]
            header = [column.name for column in layout.chosen] or [*layout.keep, *own]
            file.write(rows.text([header]))

    def write(self, predictions: Sequence[Prediction], kept: Sequence[Cells] = ()) -> None:
        """Write some more, with what was carried along of each."""
        for prediction, cells in zip(predictions, kept or [{}] * len(predictions), strict=True):
            if self.style == "json":
                self.file.write("[\n" if self._is_first else ",\n")
            self.file.write(self._row(prediction, cells))
            self._is_first = False
        self.file.flush()

    def close(self) -> None:
        """Write what comes last."""
        if self.style == "json":
            self.file.write("[]\n" if self._is_first else "\n]\n")
        self.file.flush()


class ParquetWriter:
    """Writes predictions to a Parquet file: path, size, names, probabilities (lists), unsure, error, or as chosen.

    With `with_set` also `set`, a list.
    """

    def __init__(self, path: Path, layout: Layout = _AS_THE_FORMAT, *, with_set: bool = False) -> None:
        """Begin the file.

        Raises:
            UserError: pyarrow is not installed.
        """
        columns: dict[str, Kind] = dict.fromkeys(layout.keep, "str")
        columns |= {"path": "str", "size": "int", "names": "strs", "probabilities": "floats"}
        columns |= {"set": "strs"} if with_set else {}
        columns |= {"unsure": "bool", "error": "str"}
        chosen: dict[str, Kind] = {column.name: column.kind for column in layout.chosen}
        self._layout, self._with_set = layout, with_set
        self._rows = ParquetRows(path, chosen or columns)

    def write(self, predictions: Sequence[Prediction], kept: Sequence[Cells] = ()) -> None:
        """Write some more, with what was carried along of each."""
        self._rows.write(
            self._layout.row(p, cells)
            if self._layout.chosen
            else {
                **cells,
                "path": p.path,
                "size": p.size,
                "names": [name for name, _ in p.top],
                "probabilities": [probability for _, probability in p.top],
                **({"set": p.inside} if self._with_set else {}),
                "unsure": p.unsure,
                "error": p.error or None,
            }
            for p, cells in zip(predictions, kept or [{}] * len(predictions), strict=True)
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
    if p.inside is not None:
        spoken = dict(zip((name for name, _ in p.top), p.said, strict=True))
        lines.append(f"  set: {on_one_line(', '.join(spoken.get(name, name) for name in p.inside))}")
    return "\n".join(lines) + "\n"


def _json(fields: Mapping[str, Any]) -> str:
    return "\n".join("  " + line for line in json.dumps(fields, indent=2).split("\n"))


def _cell(value: Any) -> Any:
    """Return a value as CSV has it: six digits of a probability, nothing for None, several names as a list of JSON."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        # A name may hold whatever stands between the names.
        return json.dumps(value, ensure_ascii=False)
    return f"{value:.6f}" if isinstance(value, float) else "" if value is None else value


def _cells(p: Prediction, top_k: int, marks: Sequence[str]) -> list[Any]:
    cells = [cell for name, probability in p.top for cell in (name, f"{probability:.6f}")]
    marked = [_cell({"set": p.inside, "unsure": p.unsure}[name]) for name in marks]
    return [p.path, p.size, *cells, *[""] * (2 * top_k - len(cells)), *marked, p.error]

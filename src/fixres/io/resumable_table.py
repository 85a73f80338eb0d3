"""A file of rows, one per picture, that grows as OUT.part and can be gone on with after an interruption.

The last row may be cut short by a kill; it goes, and with it the rows of its batch, so that the batches, and with them
the last bits of the probabilities, are those of a run that was never interrupted.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from fixres.errors import UserError, counted
from fixres.io.csv_text import unmarked
from fixres.io.files import write_text

Style = Literal["jsonl", "csv"]


class Unfinished:
    """OUT.part, and OUT.part.json that says how its rows are made."""

    def __init__(self, out: Path, style: Style, spreadsheet: bool = False, error: str = "error") -> None:
        """Name the files.

        Args:
            out: the file when it is finished.
            style: what its rows are.
            spreadsheet: names in a CSV that begin like a formula are marked.
            error: the column that says why a picture could not be read; empty where none does.
        """
        self.out, self.style, self.spreadsheet, self.error = out, style, spreadsheet, error
        self.part = out.with_name(out.name + ".part")
        self.sheet = out.with_name(out.name + ".part.json")

    def exists(self) -> bool:
        """Return whether there is something to go on with."""
        return self.part.exists() and self.sheet.exists()

    def begin(self, made_by: Mapping[str, Any]) -> None:
        """Note how the rows will be made; what was there goes."""
        self.part.unlink(missing_ok=True)
        write_text(self.sheet, json.dumps(made_by, indent=1) + "\n")

    def require_same(self, made_by: Mapping[str, Any]) -> None:
        """Refuse to go on with rows that were made otherwise.

        Raises:
            UserError: naming what differs.
        """
        try:
            before = json.loads(self.sheet.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = {}
        for key, value in made_by.items():
            if before.get(key) != value:
                shown = "other weights" if key == "network" else f"{key.replace('_', ' ')} {before.get(key)}"
                raise UserError(
                    f"{self.part} was made with {shown}"
                    + ("" if key == "network" else f", asked for is {value}")
                    + f"\n  ask for the same, or delete {self.part} to start over"
                )

    def keep(
        self,
        pictures: Iterator[str],
        batch_size: int,
        identity: Callable[[str], Mapping[str, Any]] = lambda path: {"path": path},
    ) -> tuple[int, int]:
        """Cut the file after its last complete batch, and take as many pictures from the list.

        Args:
            pictures: the list.
            batch_size: rows of a batch.
            identity: what the row of a picture says of it, by column.

        Returns:
            The number of rows that stay, and how many of them tell of pictures that could not be read.

        Raises:
            UserError: a row is of another picture than the list has at its place.
        """
        num_rows = max(0, sum(1 for _ in self._rows()) - (self.style == "csv"))
        kept = num_rows // batch_size * batch_size
        num_failed, end = 0, 0
        names: list[str] = []
        for number, (row, place) in enumerate(self._rows(), 1 - (self.style == "csv")):
            if number > kept:
                break
            end = place
            if number == 0:
                names = _cells(row)
                continue
            fields = self._read(row, names)
            picture = next(pictures, None)
            wanted = {} if picture is None else identity(picture)
            differs = next((name for name, cell in wanted.items() if fields.get(name) != cell), None)
            if picture is None or differs is not None:
                found = fields.get(differs or "path", "another picture")
                listed = "the list is shorter" if differs is None else f"the list has {wanted[differs]} there"
                raise UserError(
                    f"row {number:,} of {self.part} is of {found}, {listed}\n"
                    f"  name the same pictures, or delete {self.part} to start over"
                )
            num_failed += bool(fields.get(self.error))
        os.truncate(self.part, end)
        return kept, num_failed

    def finish(self) -> None:
        """Give the file its name."""
        with self.part.open("rb") as file:
            os.fsync(file.fileno())
        self.part.replace(self.out)
        self.sheet.unlink(missing_ok=True)

    def _rows(self) -> Iterator[tuple[bytes, int]]:
        """Yield every complete row with the place where it ends; a CSV row may go over several lines."""
        row, end, is_open = b"", 0, False
        with self.part.open("rb") as file:
            for line in file:
                row += line
                end += len(line)
                is_open ^= self.style == "csv" and line.count(b'"') % 2 == 1
                if is_open or not line.endswith(b"\n"):
                    continue
                if self.style == "jsonl" and not _is_json(row):
                    return
                yield row, end
                row = b""

    def _read(self, row: bytes, names: Sequence[str]) -> Mapping[str, Any]:
        """Return the cells of a row by column."""
        if self.style == "jsonl":
            fields: dict[str, Any] = json.loads(row)
            return fields
        cells = _cells(row)
        return dict(zip(names, map(unmarked, cells) if self.spreadsheet else cells, strict=False))


def _cells(row: bytes) -> list[str]:
    return next(csv.reader(io.StringIO(row.decode("utf-8", "surrogateescape"), newline="")))


def _is_json(row: bytes) -> bool:
    try:
        return isinstance(json.loads(row), dict)
    except ValueError:
        return False


def no_longer_asked(part: Unfinished) -> UserError:
    """Return the error for rows of an earlier run that would be lost."""
    num = max(0, sum(1 for _ in part._rows()) - (part.style == "csv"))
    return UserError(
        f"{part.part} holds {counted(num, 'row')} of an unfinished run\n"
        f"  --resume goes on with it; delete it to start over"
    )

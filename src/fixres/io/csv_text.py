"""CSV as text: byte for byte for programs, or safe for spreadsheets, which compute whatever begins like a formula."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

from fixres.errors import Notice, as_text

FOR_PROGRAMS = "this table is for programs: open it as text"
"""What to do about formulas in a file whose names have to stay."""
_FORMULA = re.compile(r"[=+\-@\t\r]")
"""How text begins that spreadsheets compute, which can send what else is in the table to anywhere."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*(e[+-]?\d+)?|inf|nan)", re.IGNORECASE)
_MARKED = re.compile(r"'+[=+\-@\t\r]")


class CsvRows:
    """Turns rows into lines of CSV."""

    def __init__(
        self,
        *,
        spreadsheet: bool = False,
        delimiter: str = ",",
        advice: str = "--spreadsheet writes ' before such names",
    ) -> None:
        """Begin a file.

        Args:
            spreadsheet: write `'` before text that begins like a formula; `read_marked` takes it away again. Without
                it every cell stays as it is, and the first such text costs a notice that ends in `advice`.
            delimiter: what stands between cells.
            advice: what to do about formulas in a file for programs.
        """
        self._spreadsheet, self._delimiter, self._advice = spreadsheet, delimiter, advice
        self._is_told = spreadsheet

    def text(self, rows: Iterable[Sequence[Any]]) -> str:
        """Return some more rows, each with its line end."""
        lines = []
        for row in rows:
            if not self._is_told:
                self._tell(row)
            buffer = io.StringIO()
            # Python quotes a carriage return only where it belongs to the line end; unquoted it would end the row.
            writer = csv.writer(buffer, delimiter=self._delimiter, lineterminator="\r\n")
            writer.writerow(map(marked, row) if self._spreadsheet else row)
            lines.append(buffer.getvalue().removesuffix("\r\n") + "\n")
        return "".join(lines)

    def _tell(self, row: Sequence[Any]) -> None:
        name = next((cell for cell in row if marked(cell) != cell and not _MARKED.match(cell)), None)
        if name is not None:
            self._is_told = True
            text = f"a spreadsheet takes {as_text(name)[:60]!r} for a formula and computes it; {self._advice}"
            warnings.warn(text, Notice, stacklevel=3)


def marked(cell: Any) -> Any:
    """Return a cell as it is safe in a spreadsheet: text that begins like a formula after `'`, numbers as they are.

    What looks marked already is marked once more, so that `unmarked` gives every name back.
    """
    if not isinstance(cell, str) or _NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}" if _FORMULA.match(cell) or _MARKED.match(cell) else cell


def unmarked(cell: str) -> str:
    """Return what `marked` was given."""
    return cell[1:] if _MARKED.match(cell) else cell


def read_marked(file: TextIO) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV for spreadsheets by column, with the names as they were.

    Raises:
        csv.Error: the file is no CSV.
    """
    for row in csv.DictReader(file):
        # Where a row is cut short or too long, DictReader gives None and lists.
        yield {key: unmarked(cell) if isinstance(cell, str) else cell for key, cell in row.items()}

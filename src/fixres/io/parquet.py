"""Rows to a Parquet file, in groups, so that memory stays constant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from fixres.errors import as_text, require_extra

Kind = Literal["str", "int", "float", "bool", "strs", "floats"]
_GROUP = 10_000
"""Rows in a group."""


class ParquetRows:
    """A Parquet file that is written row by row; until `close` it cannot be read."""

    def __init__(self, path: Path, columns: Mapping[str, Kind]) -> None:
        """Begin the file.

        Raises:
            UserError: pyarrow is not installed.
            OSError: the file cannot be written.
        """
        pa, parquet = require_parquet()
        kinds = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
        kinds |= {"strs": pa.list_(pa.string()), "floats": pa.list_(pa.float64())}
        self._schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
        self._table = pa.Table
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._rows: list[Mapping[str, Any]] = []

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows: a value, or None, for every column."""
        self._rows.extend({name: _kept(value) for name, value in row.items()} for row in rows)
        if len(self._rows) >= _GROUP:
            self._flush()

    def close(self) -> None:
        """End the file."""
        if self._rows:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(self._table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of equal length; their types are those of their values."""
    pyarrow, parquet = require_parquet()
    parquet.write_table(pyarrow.table({name: _kept(values) for name, values in columns.items()}), path)


def _kept(value: Any) -> Any:
    """Return a value or a list of values as Parquet can hold them: its text is UTF-8, a file name need not be."""
    if isinstance(value, str):
        return as_text(value)
    return [_kept(one) for one in value] if isinstance(value, list | tuple) else value


def require_parquet() -> tuple[Any, Any]:
    """Return pyarrow and its parquet; raises UserError where Parquet files cannot be written."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise require_extra("pyarrow", "parquet") from None
    return pyarrow, pyarrow.parquet

"""Writing a table as a Parquet file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fixres.errors import require_extra


def require_parquet() -> None:
    """Raise UserError where Parquet files cannot be written."""
    _pyarrow()


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of equal length; their types are those of their values."""
    pyarrow, parquet = _pyarrow()
    parquet.write_table(pyarrow.table(dict(columns)), path)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise require_extra("pyarrow", "parquet") from None
    return pyarrow, pyarrow.parquet

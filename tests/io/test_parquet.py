"""Rows in Parquet files: what is read is what was written, however many groups it takes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fixres.errors import UserError
from fixres.io import parquet
from fixres.io.parquet import Kind, ParquetRows, require_parquet, write_parquet

reader = pytest.importorskip("pyarrow.parquet")

COLUMNS: dict[str, Kind] = {
    "path": "str", "label": "int", "loss": "float", "correct": "bool", "classes": "strs", "probabilities": "floats",
}  # fmt: skip


def row(number: int) -> dict[str, Any]:
    whole = [f"{number}.jpg", number, number / 7, number % 2 == 0, ["cat", "dog"], [0.25, 0.75]]
    # A picture that could not be read has a path and nothing else.
    values = whole if number % 5 else [whole[0], *[None] * 5]
    return dict(zip(COLUMNS, values, strict=True))


@pytest.mark.parametrize("num", [0, 1, 8, 9, 30])
def test_rows_come_back_whatever_the_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num: int) -> None:
    monkeypatch.setattr(parquet, "_GROUP", 8)
    rows = ParquetRows(tmp_path / "t.parquet", COLUMNS)
    for first in range(0, num, 3):
        rows.write(row(number) for number in range(first, min(first + 3, num)))
    rows.close()
    assert reader.read_table(tmp_path / "t.parquet").to_pylist() == [row(number) for number in range(num)]
    # Whoever writes a million rows holds no more than a group and what came last.
    assert reader.ParquetFile(tmp_path / "t.parquet").metadata.num_row_groups == -(-num // 9)


def test_columns_have_the_types_of_their_values(tmp_path: Path) -> None:
    columns = {"path": ["a", "b"], "label": [1, 2], "loss": [0.5, None]}
    write_parquet(tmp_path / "t.parquet", columns)
    found = reader.read_table(tmp_path / "t.parquet")
    assert found.to_pydict() == columns
    assert [str(kind) for kind in found.schema.types] == ["string", "int64", "double"]


def test_without_the_package_the_pip_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call in (
        require_parquet,
        lambda: write_parquet(tmp_path / "t.parquet", {}),
        lambda: ParquetRows(tmp_path / "t.parquet", COLUMNS),
    ):
        with pytest.raises(UserError, match=r"pip install 'fixres\[parquet\]'"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_no_utf_8_are_spelt_out(tmp_path: Path) -> None:
    name = "val/a/caf\udce9.jpg"
    rows = ParquetRows(tmp_path / "rows.parquet", {"path": "str", "classes": "strs"})
    rows.write([{"path": name, "classes": [name, "é"]}])
    rows.close()
    write_parquet(tmp_path / "columns.parquet", {"path": [name], "classes": [[name, "é"]]})
    for file in tmp_path.iterdir():
        assert reader.read_table(file).to_pylist() == [
            {"path": "val/a/caf\\xe9.jpg", "classes": ["val/a/caf\\xe9.jpg", "é"]}
        ]

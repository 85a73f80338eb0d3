"""Names that spreadsheets would compute: left alone for programs, marked for people, and found again."""

from __future__ import annotations

import csv
import io
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.errors import Notice
from fixres.io.csv_text import CsvRows, read_marked

EVIL = ['=HYPERLINK("http:evil","x")', "@SUM(1)", "-1abc", "+a", "\ta", "\ra", "-inf+1"]
HARMLESS: list[Any] = ["cat", "a=b", "'quoted'", "", -0.5, -3, "-0.500000", "+1e-05", "-inf", "nan", "1-2"]
NAMES = st.text(st.sampled_from("=+-@\t\r\n'\",a1.e"), max_size=6)


def cells_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_what_begins_like_a_formula_is_text_in_a_spreadsheet_and_numbers_are_numbers() -> None:
    (row,) = cells_of(CsvRows(spreadsheet=True).text([EVIL]))
    assert row == [f"'{name}" for name in EVIL]
    (row,) = cells_of(CsvRows(spreadsheet=True).text([HARMLESS]))
    assert row == list(map(str, HARMLESS))


@given(st.lists(st.lists(NAMES, min_size=2, max_size=2), max_size=4))
def test_reading_gives_every_name_back(rows: list[list[str]]) -> None:
    text = CsvRows(spreadsheet=True).text([["path", "label"], *rows])
    assert [list(row.values()) for row in read_marked(io.StringIO(text, newline=""))] == rows


def test_tables_of_earlier_versions_read_as_they_are() -> None:
    (row,) = read_marked(io.StringIO("path,label,loss\n-a.png,=x,-0.5\n"))
    assert row == {"path": "-a.png", "label": "=x", "loss": "-0.5"}


def test_programs_get_names_as_they_are_and_people_one_notice() -> None:
    rows = CsvRows()
    with pytest.warns(Notice) as told:
        text = rows.text([HARMLESS, EVIL]) + rows.text([["@b"]])
    assert cells_of(text) == [list(map(str, HARMLESS)), EVIL, ["@b"]]
    (notice,) = told
    assert "=HYPERLINK" in str(notice.message)
    assert "--spreadsheet" in str(notice.message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CsvRows().text([HARMLESS])
        CsvRows(spreadsheet=True).text([EVIL])


def test_no_name_begins_a_row_of_its_own() -> None:
    """A spreadsheet ends a row at a carriage return that is not quoted."""
    assert CsvRows(spreadsheet=True).text([["a\r=1", "b"]]) == '"a\r=1",b\n'

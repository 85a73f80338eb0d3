"""MATLAB's files: their variables by name, and one message for everything else."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.data.prepare.parts import read_mat
from fixres.errors import UserError

scipy_io = pytest.importorskip("scipy.io")


def packed() -> bytes:
    buffer = io.BytesIO()
    scipy_io.savemat(buffer, {"labels": np.array([[1, 2, 3]], dtype=np.uint8), "name": "flowers"})
    return buffer.getvalue()


def test_variables_come_without_dimensions_of_one(tmp_path: Path) -> None:
    (tmp_path / "labels.mat").write_bytes(packed())
    for source in (tmp_path / "labels.mat", packed()):
        found = read_mat(source)
        assert found["labels"].tolist() == [1, 2, 3]
        assert found["name"] == "flowers"


def test_a_variable_that_is_not_there_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "labels.mat").write_bytes(packed())
    with pytest.raises(UserError, match=r"labels\.mat holds no 'setid'"):
        read_mat(tmp_path / "labels.mat")["setid"]
    with pytest.raises(UserError, match="the devkit holds no 'synsets'"):
        read_mat(packed(), "the devkit")["synsets"]


@pytest.mark.parametrize(
    "content", [b"", b"words", packed()[:100], packed()[:-30]], ids=["empty", "words", "the header cut", "the end cut"]
)
def test_what_is_no_such_file_is_one_message(content: bytes) -> None:
    with pytest.raises(UserError, match=r"cannot read the labels: it is no \.mat file, or damaged"):
        read_mat(content, "the labels")


@given(st.binary(max_size=200) | st.integers(0, len(packed())).map(lambda end: packed()[:end]))
def test_damaged_bytes_are_refused_or_hold_nothing_of_the_kind(content: bytes) -> None:
    # Few bytes make a file of version 4, which has no header.
    with pytest.raises(UserError, match=r"cannot read the labels|the labels holds no 'setid'"):
        read_mat(content, "the labels")["setid"]


def test_a_missing_file_and_a_missing_package_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none\.mat: .*FileNotFoundError"):
        read_mat(tmp_path / "none.mat")
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(UserError, match=r"pip install 'fixres\[sets\]'"):
        read_mat(packed())

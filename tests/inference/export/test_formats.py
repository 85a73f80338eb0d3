"""Opening files that are damaged, foreign or not there."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from fixres.errors import UserError
from fixres.inference.export.formats.table import open_exported


def test_damaged_and_foreign_files_are_errors(onnx_file: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(onnx_file.read_bytes()[:5000])
    with pytest.raises(UserError, match="is damaged or no model"):
        open_exported(damaged)
    proto = onnx.load(str(onnx_file))
    del proto.metadata_props[:]
    onnx.save(proto, str(tmp_path / "foreign.onnx"))
    with pytest.raises(UserError, match="was not written by `fixres export`"):
        open_exported(tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match="do not run on torch"):
        open_exported(onnx_file, "torch")
    with pytest.raises(UserError, match="no such file"):
        open_exported(tmp_path / "missing.onnx")

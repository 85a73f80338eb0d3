"""A file is compared with its network, and refused where they disagree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fixres.checkpoints.product import Product
from fixres.errors import UserError
from fixres.inference.export.export import export
from fixres.inference.export.formats.table import open_exported
from fixres.inference.export.parity import shapes_to_check
from fixres.inference.export.trace import Captured
from fixres.inference.requests import ExportRequest
from fixres.models.build import build_model
from tests.support.products import lively


def test_a_file_that_disagrees_is_refused_and_leaves_nothing(
    product: Product, captured: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = lively(build_model("test_resnet", 5), seed=7)
    monkeypatch.setattr("fixres.inference.export.export.capture", lambda *a, **k: replace(captured, eager=other))
    (tmp_path / "net.pt2").write_text("the file that was there")
    with pytest.raises(UserError, match="does not give the network's answers: at 64 x 64"):
        export(product, ExportRequest(out=tmp_path / "net.pt2", format="torch"))
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt2"]
    assert (tmp_path / "net.pt2").read_text() == "the file that was there"


def test_the_shapes_compared_include_one_that_is_no_square(product: Product, onnx_file: Path) -> None:
    shapes = shapes_to_check(open_exported(onnx_file).sheet)
    assert shapes[0] == (64, 64)
    assert len({h for h, w in shapes if h == w}) == 2
    assert any(h != w for h, w in shapes)

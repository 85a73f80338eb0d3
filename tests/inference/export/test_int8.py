"""Eight bits: smaller, measured on another split, and refused where they cost too much."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from fixres.checkpoints.product import Product
from fixres.config.recipe import Data
from fixres.data.collections import open_collection
from fixres.data.transforms import evaluation_crop, normalise
from fixres.errors import UserError
from fixres.inference.export import int8
from fixres.inference.export.export import export
from fixres.inference.export.formats.table import open_exported
from fixres.inference.export.trace import Captured
from fixres.inference.requests import ExportRequest


@pytest.fixture(scope="module", params=["openvino", "onnx"])
def full_bits(
    product: Product, captured: Captured, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """The network in 32 bits, which rounding starts from."""
    wanted = ExportRequest(out=tmp_path_factory.mktemp("full"), format=request.param)
    return export(product, wanted, captured=captured).path


CELLS = "synthetic:classes=5,images=60,size=64,seed=0"


def test_eight_bits_are_smaller_measured_and_said_in_the_file(
    product: Product, full_bits: Path, tmp_path: Path, traced_already: None
) -> None:
    named = replace(product, classes=tuple(open_collection(Data(uri=CELLS)).classes))
    kind = open_exported(full_bits).sheet.format
    request = ExportRequest(out=tmp_path, format=kind, int8=True, calibration=CELLS, max_drop=100)
    found = export(named, request)
    weights = found.path.with_suffix(".bin" if kind == "openvino" else ".onnx")
    assert weights.stat().st_size < 0.4 * full_bits.with_suffix(weights.suffix).stat().st_size
    opened = open_exported(found.path)
    record = opened.sheet.int8
    assert record is not None
    assert json.loads(found.path.with_suffix(".json").read_text())["int8"] == record.model_dump()
    assert (record.measured_on, record.calibrated_on) == ("test", f"train of {CELLS}")
    # An independent recount of both files on the reported split.
    split = open_collection(Data(uri=CELLS)).split("test")
    assert record.num_images == len(split)
    pixels = torch.stack([evaluation_crop(split.read(i), named.preprocess) for i in range(len(split))])
    inputs = normalise(pixels, named.preprocess.mean, named.preprocess.std).numpy()
    right = [100 * (open_exported(p).outputs(inputs).argmax(1) == split.labels).mean() for p in (full_bits, found.path)]
    assert [record.top1_before, record.top1] == pytest.approx(right)
    full, rounded = (open_exported(path).outputs(inputs) for path in (full_bits, found.path))
    assert 0 < np.abs(full - rounded).max() < 0.2 * np.ptp(full)
    assert found.rounding is not None
    assert found.rounding.difference == pytest.approx(right[1] - right[0])


def test_eight_bits_that_cost_too_much_leave_nothing(
    product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traced_already: None
) -> None:
    named = replace(product, classes=tuple(open_collection(Data(uri=CELLS)).classes))
    right = np.ones(100, dtype=bool)
    monkeypatch.setattr(int8, "_correct", lambda *_: [right, np.arange(100) >= 5])
    monkeypatch.setattr(int8, "_rounded", lambda *_: lambda *_: [])
    monkeypatch.setattr(int8, "open_exported", Mock())
    with pytest.raises(
        UserError, match=r"8 bits cost 5\.00 points of top-1 on test .*, allowed 1; nothing was written"
    ):
        export(named, ExportRequest(out=tmp_path / "net.xml", format="openvino", int8=True, calibration=CELLS))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "torch"}, "torch files stay in 32 bits\n  --format onnx | openvino, or leave --int8 out"),
        ({"calibration": "synthetic:classes=3,images=20"}, "outputs"),
        ({"calibration": None}, "--calibration URI"),
        ({"int8": False}, "--calibration is for 8 bits"),
    ],
)
def test_eight_bits_that_cannot_be_are_refused_before_anything_is_traced(
    product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr("fixres.inference.export.export.capture", lambda *a, **k: pytest.fail("traced"))
    nameless = replace(product, has_names=False)
    request = ExportRequest(out=tmp_path / "net", format="openvino", int8=True, calibration=CELLS)
    with pytest.raises(UserError, match=re.escape(said)):
        export(nameless, replace(request, **changes))

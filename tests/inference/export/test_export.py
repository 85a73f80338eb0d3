"""A product as one file: it gives the network's answers, lies where it was asked for, and replaces nothing by half."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fixres.checkpoints.product import Product
from fixres.errors import UserError
from fixres.inference.export.export import export, place
from fixres.inference.export.formats.table import find_format, open_exported
from fixres.inference.requests import ExportRequest


@pytest.mark.usefixtures("traced_already")
@pytest.mark.parametrize("kind", ["onnx", "torch", "openvino"])
def test_a_file_gives_the_networks_answers_at_every_size_it_names(
    product: Product, tmp_path: Path, kind: Any, onnx_file: Path
) -> None:
    path = onnx_file if kind == "onnx" else export(product, ExportRequest(out=tmp_path, format=kind)).path
    opened = open_exported(path)
    assert opened.sheet.sizes.step == 1
    for batch, height, width in ((1, 64, 64), (3, 131, 67), (2, 200, 96)):
        images = torch.randn(batch, 3, height, width)
        with torch.inference_mode():
            wanted = product.model(images).numpy()
        assert np.abs(opened.outputs(images.numpy()) - wanted).max() < 1e-4 * np.ptp(wanted)
    with pytest.raises(UserError, match="takes any height and width from 64, not 32 x 64"):
        opened.outputs(np.zeros((1, 3, 32, 64), np.float32))


def test_softmax_and_normalisation_can_be_part_of_the_file(product: Product, tmp_path: Path) -> None:
    found = export(product, ExportRequest(out=tmp_path / "whole.onnx", softmax=True, normalise=True))
    assert (found.sheet.value_range, found.sheet.output) == ((0, 255), "probabilities")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64)).astype(np.float32)
    rows = open_exported(found.path).outputs(pixels)
    assert rows.sum(1) == pytest.approx(1, abs=1e-5)
    mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in (product.preprocess.mean, product.preprocess.std))
    with torch.inference_mode():
        wanted = product.model(torch.from_numpy((pixels / 255 - mean) / std)).softmax(1)
    assert rows == pytest.approx(wanted.numpy(), abs=1e-4)


@pytest.mark.usefixtures("traced_already")
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(
    product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    for name in ("net.pt2", "net.json"):
        (tmp_path / name).write_text("the file that was there")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync", fail) if call == "fsync" else (Path, "replace", fail)))
    with pytest.raises(UserError, match="No space left"):
        export(product, ExportRequest(out=tmp_path / "net.pt2", format="torch"))
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.json", "net.pt2"]
    assert (tmp_path / "net.pt2").read_text() == "the file that was there"


@pytest.mark.parametrize(
    ("out", "kind", "wanted"),
    [
        ("a.onnx", "onnx", "a.onnx"),
        ("a", "onnx", "a/model.onnx"),
        ("v1.2", "torch", "v1.2/model.pt2"),
        ("a.xml", "openvino", "a.xml"),
    ],
)
def test_out_is_a_file_or_a_folder(out: str, kind: Any, wanted: str) -> None:
    assert place(Path(out), find_format(kind)) == Path(wanted)


@pytest.mark.parametrize(("out", "kind"), [("a.pt2", "onnx"), ("a.onnx", "torch"), ("a.bin", "openvino")])
def test_a_name_of_another_format_is_an_error(out: str, kind: Any) -> None:
    with pytest.raises(UserError, match="does not end in"):
        place(Path(out), find_format(kind))


def test_a_place_that_cannot_be_written_is_an_error(product: Product, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        export(product, ExportRequest(out=tmp_path / "file" / "net.pt2", format="torch"))

"""What an exported file says about itself."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import torch

from fixres.checkpoints.product import Product
from fixres.inference.export.formats.table import open_exported
from tests.support.products import make


def test_the_file_and_the_json_beside_it_say_how_to_feed_it(product: Product, onnx_file: Path) -> None:
    beside = json.loads(onnx_file.with_suffix(".json").read_text())
    inside = {entry.key: entry.value for entry in onnx.load(str(onnx_file)).metadata_props}
    assert json.loads(inside["fixres"]) == beside
    p = product.preprocess
    wanted = {
        "classes": list("abcde"),
        "size": 64,
        "train_size": 96,
        "resize_size": p.resize_size,
        "crop_ratio": 0.875,
        "interpolation": "bilinear",
        "mean": list(p.mean),
        "std": list(p.std),
        "value_range": [0, 1],
        "output": "logits",
        "opset": 20,
        "architecture": "test_resnet",
    }
    assert {key: beside[key] for key in wanted} == wanted
    assert len(beside["checkpoint_sha256"]) == 64
    assert onnx.load(str(onnx_file)).opset_import[0].version == 20
    dims = [d.dim_param or d.dim_value for d in onnx.load(str(onnx_file)).graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["batch", 3, "height", "width"]


def test_the_hash_is_that_of_the_weights(product: Product, onnx_file: Path) -> None:
    from fixres.inference.export.metadata import checkpoint_hash

    assert open_exported(onnx_file).sheet.checkpoint_sha256 == checkpoint_hash(product)
    other = make("test_resnet")
    assert checkpoint_hash(other) == checkpoint_hash(product)
    with torch.no_grad():
        next(other.model.parameters()).add_(1e-6)
    assert checkpoint_hash(other) != checkpoint_hash(product)

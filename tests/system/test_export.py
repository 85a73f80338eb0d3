"""Parity of exported files on one small network of each family. Slow: `make test-system`."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixres.inference.export.export import export
from fixres.inference.requests import ExportRequest
from tests.support.products import make

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

FAMILIES = {
    "residual": ("test_resnet", 96, "any height and width"),
    "depthwise": ("mobilenetv3_small_050", 96, "any height and width"),
    "squeeze-excite": ("seresnet18", 96, "any height and width"),
    "padding as in TensorFlow": ("tf_efficientnet_lite0", 96, "multiples of 32"),
    "plain transformer": ("test_vit", 96, "multiples of 16"),
    "ConvNeXt": ("test_convnext", 96, "any height and width"),
    "windows": ("swin_tiny_patch4_window7_224", 224, "224 x 224 only"),
    "hybrid": ("test_coatnet", 160, "160 x 160 only"),
    "norm-free": ("test_nfnet", 96, "any height and width"),
    "re-parameterised": ("test_byobnet", 96, "any height and width"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_of_each_family_gives_its_answers_in_every_format(family: str, tmp_path: Path) -> None:
    name, size, rule = FAMILIES[family]
    product = make(name, size)
    for kind in ("onnx", "openvino"):
        found = export(product, ExportRequest(out=tmp_path / kind, format=kind))
        assert rule in found.sheet.sizes.describe(), found.reason
        assert len(found.agreement) == (1 if found.sheet.sizes.fixed else 3)
        for row in found.agreement:
            assert row.num_same_top1 + row.num_ties == row.num_images == 16

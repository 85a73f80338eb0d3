"""OpenVINO's IR, through ONNX."""

from __future__ import annotations

from pathlib import Path

from fixres.inference.export.formats.export_format import ExportFormat
from fixres.inference.export.formats.onnx import OPSET, open_openvino, write_onnx
from fixres.inference.export.metadata import KEY, ExportSheet
from fixres.inference.export.trace import Captured
from fixres.models.backends import import_openvino, openvino_core


def _write(captured: Captured, sheet: ExportSheet, path: Path) -> list[Path]:
    openvino = import_openvino()
    source = path.with_suffix(".onnx")
    written = write_onnx(captured, sheet, source)
    try:
        model = openvino_core().read_model(str(source))
        model.set_rt_info(sheet.text(), KEY)
        # The default would round the weights to 16 bits.
        openvino.save_model(model, str(path), compress_to_fp16=False)
    finally:
        for file in written:
            file.unlink(missing_ok=True)
    return [path.with_suffix(".bin"), path]


OPENVINO = ExportFormat(
    name="openvino",
    suffix=".xml",
    packages=(("onnx", "export"), ("onnxscript", "export"), ("openvino", "openvino")),
    # It resizes a grid of positions a little differently.
    tolerance=1e-3,
    write=_write,
    openers={"openvino": open_openvino},
    opset=OPSET,
)

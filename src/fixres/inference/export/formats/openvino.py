"""OpenVINO's IR, through ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fixres.inference.export.formats.export_format import ExportFormat, Images, Rounding, Run, Save, quiet
from fixres.inference.export.formats.onnx import OPSET, RUNNER, open_openvino, open_with_settings, write_onnx
from fixres.inference.export.metadata import KEY, ExportSheet
from fixres.inference.export.trace import Captured
from fixres.models.backends import import_openvino, openvino_core


def _write(captured: Captured, sheet: ExportSheet, path: Path) -> list[Path]:
    source = path.with_suffix(".onnx")
    written = write_onnx(captured, sheet, source)
    try:
        return _save(openvino_core().read_model(str(source)), sheet, path)
    finally:
        for file in written:
            file.unlink(missing_ok=True)


def _open_ordinarily(path: Path, threads: int) -> tuple[str | None, Run]:
    return open_with_settings(path, threads, {})


def _save(model: Any, sheet: ExportSheet, path: Path) -> list[Path]:
    model.set_rt_info(sheet.text(), KEY)
    # The CPU does not obey it; it is there to be read.
    model.set_rt_info("f32", ["runtime_options", "INFERENCE_PRECISION_HINT"])
    # The default would round the weights to 16 bits.
    import_openvino().save_model(model, str(path), compress_to_fp16=False)
    return [path.with_suffix(".bin"), path]


def _round(full: Path, inputs: Sequence[Images]) -> Save:
    with quiet("nncf"):
        import nncf

        # Activations of SiLU and GELU are not symmetric; weights are.
        model = nncf.quantize(
            openvino_core().read_model(str(full)),
            nncf.Dataset(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(inputs),
        )
    return partial(_save, model)


OPENVINO = ExportFormat(
    name="openvino",
    suffix=".xml",
    packages=(("onnx", "export"), ("onnxscript", "export"), ("openvino", "openvino")),
    # It resizes a grid of positions a little differently.
    tolerance=1e-3,
    write=_write,
    openers={"openvino": open_openvino},
    opset=OPSET,
    runner=RUNNER,
    runner_name="run_openvino.py",
    ordinary=_open_ordinarily,
    rounding=Rounding((("nncf", "openvino"),), _round),
)

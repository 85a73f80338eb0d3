"""ONNX, for onnxruntime and most other programs. onnx and onnxscript are needed here only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fixres.errors import UserError, require_extra
from fixres.inference.export.formats.export_format import ExportFormat, Images, Rounding, Run, Save, damaged, quiet
from fixres.inference.export.metadata import KEY, ExportSheet
from fixres.inference.export.trace import Captured
from fixres.models.backends import openvino_core

OPSET = 20
"""ONNX opset of the files; the first with everything resized positions need is 18."""
RUNNER = Path(__file__).parents[1] / "run_onnx.py"
"""Classifies pictures with an ONNX or an OpenVINO file, without torch."""
_ONE_FILE_BYTES = 1_900_000_000
"""Weights beyond this go into a second file: a protobuf message ends at 2 GiB."""


def write_onnx(captured: Captured, sheet: ExportSheet, path: Path) -> list[Path]:
    """Write one file, or two where the weights are large."""
    num_bytes = sum(t.numel() * t.element_size() for t in captured.eager.state_dict().values())
    has_data = num_bytes > _ONE_FILE_BYTES
    with quiet("onnxscript"):
        converted = torch.onnx.export(
            captured.program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=[sheet.output],
            optimize=True,
            verbose=False,
        )
        assert converted is not None
        converted.model.metadata_props[KEY] = sheet.text()
        _name_dimensions(converted.model, sheet)
        converted.save(str(path), external_data=has_data)
    return [path.with_name(path.name + ".data"), path] if has_data else [path]


def _name_dimensions(model: Any, sheet: ExportSheet) -> None:
    """Call the free dimensions of input and output what they are, in place of the tracer's symbols."""
    image, output = model.graph.inputs[0], model.graph.outputs[0]
    sides = (sheet.size, sheet.size) if sheet.sizes.fixed else ("height", "width")
    image.shape = type(image.shape)(["batch", 3, *sides])
    output.shape = type(output.shape)(["batch", len(sheet.classes)])


def _open_onnx(path: Path, threads: int) -> tuple[str | None, Run]:
    try:
        import onnxruntime
    except ImportError:
        raise require_extra("onnxruntime", "export") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # Beside larger files there is a second one with the weights, which onnxruntime must find itself.
    has_data = path.with_name(path.name + ".data").is_file()
    try:
        session = onnxruntime.InferenceSession(
            str(path) if has_data else path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise damaged(path, error) from error
    name = session.get_inputs()[0].name

    def run(images: Images) -> Images:
        found: Images = session.run(None, {name: images})[0]
        return found

    return session.get_modelmeta().custom_metadata_map.get(KEY), run


def open_openvino(path: Path, threads: int) -> tuple[str | None, Run]:
    """Open an ONNX file or OpenVINO's own with OpenVINO, in float32."""
    # Without the hint OpenVINO computes in bf16 where the processor can.
    return open_with_settings(path, threads, {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"})


def open_with_settings(path: Path, threads: int, settings: dict[str, Any]) -> tuple[str | None, Run]:
    """Open an ONNX file or OpenVINO's own with OpenVINO, compiled with `settings`."""
    core = openvino_core()
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        model = core.read_model(str(path))
        text = model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else None
        if text is None and path.suffix == ".onnx":
            text = _onnx_metadata(path)
        compiled = core.compile_model(model, "CPU", settings)
    except UserError:
        raise
    except Exception as error:
        raise damaged(path, error) from error
    request = compiled.create_infer_request()

    def run(images: Images) -> Images:
        return np.array(request.infer({0: images})[0], dtype=np.float32)

    return text, run


def _onnx_metadata(path: Path) -> str | None:
    try:
        import onnx
    except ImportError:
        raise require_extra("onnx", "export") from None
    properties = onnx.load(str(path), load_external_data=False).metadata_props
    return next((entry.value for entry in properties if entry.key == KEY), None)


def _round(full: Path, inputs: Sequence[Images]) -> Save:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """The inputs, one after the other."""

        def __init__(self, name: str) -> None:
            self.rest: Iterator[dict[str, Images]] = iter([{name: images} for images in inputs])

        def get_next(self) -> dict[str, Images] | None:
            """Return the next one, or None after the last."""
            return next(self.rest, None)

    rounded = full.with_name(f"rounded-{full.name}")
    name = onnx.load(str(full), load_external_data=False).graph.input[0].name
    with quiet("root"):
        # Activations are not symmetric, weights are.
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(full, rounded, Reader(name), per_channel=True, **types)
    model = onnx.load(str(rounded))
    rounded.unlink()

    def save(sheet: ExportSheet, path: Path) -> list[Path]:
        next(entry for entry in model.metadata_props if entry.key == KEY).value = sheet.text()
        onnx.save(model, str(path))
        return [path]

    return save


ONNX = ExportFormat(
    name="onnx",
    suffix=".onnx",
    packages=(("onnx", "export"), ("onnxscript", "export"), ("onnxruntime", "export")),
    tolerance=1e-4,
    write=write_onnx,
    openers={"onnxruntime": _open_onnx, "openvino": open_openvino},
    opset=OPSET,
    runner=RUNNER,
    rounding=Rounding((), _round),
)

"""Writing a traced program in each format. onnx and onnxscript are needed here only."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fixres.errors import require_extra
from fixres.inference.export.metadata import KEY, ExportSheet, Format
from fixres.inference.export.trace import Captured
from fixres.models.backends import import_openvino, openvino_core

OPSET = 20
"""ONNX opset of the files; the first with everything resized positions need is 18."""
_ONE_FILE_BYTES = 1_900_000_000
"""Weights beyond this go into a second file: a protobuf message ends at 2 GiB."""


def require_packages(kind: Format) -> None:
    """Raise UserError for a format whose packages are missing, with the pip line."""
    needed = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript"), "torch": ()}
    for package in needed[kind]:
        if importlib.util.find_spec(package) is None:
            raise require_extra(package, "export")
    if kind == "openvino" and importlib.util.find_spec("openvino") is None:
        raise require_extra("openvino", "openvino")


def write(captured: Captured, sheet: ExportSheet, path: Path) -> list[Path]:
    """Write the program with its sheet inside and return the files, the one to open last."""
    if sheet.format == "torch":
        torch.export.save(captured.program, path, extra_files={f"{KEY}.json": sheet.text()})
        return [path]
    if sheet.format == "onnx":
        return _write_onnx(captured, sheet, path)
    return _write_openvino(captured, sheet, path)


def _write_onnx(captured: Captured, sheet: ExportSheet, path: Path) -> list[Path]:
    num_bytes = sum(t.numel() * t.element_size() for t in captured.eager.state_dict().values())
    has_data = num_bytes > _ONE_FILE_BYTES
    with _quiet():
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
    sides = (sheet.size, sheet.size) if sheet.accepted.fixed else ("height", "width")
    image.shape = type(image.shape)(["batch", 3, *sides])
    output.shape = type(output.shape)(["batch", len(sheet.classes)])


def _write_openvino(captured: Captured, sheet: ExportSheet, path: Path) -> list[Path]:
    openvino = import_openvino()
    source = path.with_suffix(".onnx")
    written = _write_onnx(captured, sheet, source)
    try:
        model = openvino_core().read_model(str(source))
        model.set_rt_info(sheet.text(), KEY)
        # The default would round the weights to 16 bits.
        openvino.save_model(model, str(path), compress_to_fp16=False)
    finally:
        for file in written:
            file.unlink(missing_ok=True)
    return [path.with_suffix(".bin"), path]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress, warnings and log to itself."""
    log = logging.getLogger("onnxscript")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)

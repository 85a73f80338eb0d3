"""An exported file ready to compute, whatever its format. onnxruntime and openvino are imported here only."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fixres.errors import UserError, require_extra
from fixres.inference.export.metadata import KEY, SUFFIXES, ExportSheet, read_sheet
from fixres.models.backends import openvino_core

Images = npt.NDArray[np.float32]
Run = Callable[[Images], Images]


@dataclass(frozen=True)
class ExportedModel:
    """A file of `fixres export`, held in memory: replacing the file changes nothing here."""

    path: Path
    sheet: ExportSheet
    backend: str
    """torch | onnxruntime | openvino."""
    run: Run
    """float32 `[B, 3, H, W]`, in the sheet's value range, to the file's outputs `[B, C]`."""

    def outputs(self, images: Images) -> Images:
        """Return logits or probabilities float32 `[B, C]`.

        Raises:
            UserError: the file does not accept such inputs.
        """
        height, width = images.shape[2:]
        if not self.sheet.accepted.accept(height, width):
            raise UserError(f"{self.path.name} takes {self.sheet.accepted.describe()}, not {height} x {width}")
        return self.run(np.ascontiguousarray(images, dtype=np.float32))


def is_exported(source: str) -> bool:
    """Return whether a checkpoint's name is that of an exported file."""
    return Path(source).suffix in SUFFIXES.values()


def open_exported(path: Path, backend: str | None = None, threads: int = 0) -> ExportedModel:
    """Open a file of `fixres export`.

    Args:
        path: model.onnx, model.pt2 or model.xml.
        backend: torch, onnxruntime or openvino; None: the format's own.
        threads: of the backend; 0: as it likes.

    Raises:
        UserError: no such file, damaged, not written by `fixres export`, or of a format the backend does not read.
    """
    readers = {
        (".onnx", "onnxruntime"): _open_onnx,
        (".onnx", "openvino"): _open_openvino,
        (".xml", "openvino"): _open_openvino,
        (".pt2", "torch"): _open_torch,
    }
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    allowed = [name for suffix, name in readers if suffix == path.suffix]
    if not allowed:
        raise UserError(f"{path} is no exported file\n  known: {', '.join(SUFFIXES.values())}")
    backend = backend or allowed[0]
    if backend not in allowed:
        raise UserError(f"{path.suffix} files do not run on {backend}\n  allowed: {', '.join(allowed)}")
    text, run = readers[path.suffix, backend](path, threads)
    return ExportedModel(path, read_sheet(text, path), backend, run)


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
        raise _damaged(path, error) from error
    name = session.get_inputs()[0].name

    def run(images: Images) -> Images:
        found: Images = session.run(None, {name: images})[0]
        return found

    return session.get_modelmeta().custom_metadata_map.get(KEY), run


def _open_openvino(path: Path, threads: int) -> tuple[str | None, Run]:
    core = openvino_core()
    # Without the hint OpenVINO computes in bf16 where the processor can.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
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
        raise _damaged(path, error) from error
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


def _open_torch(path: Path, _threads: int) -> tuple[str | None, Run]:
    extra = {f"{KEY}.json": ""}
    try:
        program = torch.export.load(io.BytesIO(path.read_bytes()), extra_files=extra)
        module = program.module()
    except Exception as error:
        raise _damaged(path, error) from error

    @torch.inference_mode()
    def run(images: Images) -> Images:
        found: Images = module(torch.from_numpy(images)).numpy()
        return found

    text: Any = extra[f"{KEY}.json"]
    return text.decode() if isinstance(text, bytes) else text, run


def _damaged(path: Path, error: Exception) -> UserError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return UserError(f"{path} is damaged or no model ({first})\n  write it again: fixres export CKPT --out {path}")

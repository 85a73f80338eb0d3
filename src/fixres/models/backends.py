"""Other programs that compute a network on a CPU: OpenVINO and ONNX Runtime, built from PyTorch's network in memory.

Neither is trusted: before it is used, its logits are compared with PyTorch's on real pictures (`require_agreement`).
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fixres.config.choices import BackendName
from fixres.errors import UserError, require_extra
from fixres.models.sizes import evaluation_mode

MAX_DEVIATION = 1e-3
"""Largest difference allowed between a logit and PyTorch's, relative to the largest logit of the pictures compared."""


def import_openvino() -> Any:
    """Return the package openvino, which reports nothing to its makers from here.

    Left alone, each conversion is reported to Google Analytics without asking. Where its reporting package cannot be
    imported, OpenVINO does without.

    Raises:
        UserError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError:
        raise require_extra("openvino", "openvino") from None
    return openvino


@cache
def openvino_core() -> Any:
    """Return OpenVINO's runtime, one for the whole life of the process; it reads files into memory.

    Never a second one: each brings a stack for signals, and when several end out of order, the thread is left with
    one that is freed. The next signal with a Python handler, of a loader process that ends, say, then kills the process
    (seen with OpenVINO 2026.4).

    Raises:
        UserError: it is not installed.
    """
    core = import_openvino().Core()
    # A file may be replaced while it is used.
    core.set_property({"ENABLE_MMAP": False})
    return core


class Backend(Protocol):
    """A network at one size, ready to compute batches of any number of pictures."""

    name: BackendName

    def logits(self, images: Tensor) -> Tensor:
        """Return float32 logits `[B, C]` of normalised float32 images `[B, 3, S, S]`, both on the CPU."""


def make_backend(name: BackendName, model: nn.Module, size: int, threads: int) -> Backend:
    """Return the network, on the CPU and ready for `size` (`models.sizes.at_size`), as `name` computes it.

    Args:
        name: who computes.
        model: PyTorch's network; it is read, not changed, and no longer needed afterwards except by `torch`.
        size: side in pixels of the pictures to come.
        threads: processor cores to use.

    Raises:
        UserError: the package is not installed, or it cannot take this network.
    """
    if name == "openvino":
        return _OpenVino(model, size, threads)
    return _OnnxRuntime(model, size, threads) if name == "onnxruntime" else _Torch(model, size, threads)


@torch.inference_mode()
def require_agreement(backend: Backend, model: nn.Module, images: Tensor) -> float:
    """Compare a backend with PyTorch on normalised float32 images `[B, 3, S, S]`; return the relative difference.

    The difference is the largest of any logit, relative to the largest absolute logit of the batch.

    Raises:
        UserError: it is more than 1e-3, or not a number.
    """
    expected = model(images).float().cpu()
    found = backend.logits(images)
    deviation = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
    if not deviation <= MAX_DEVIATION:
        raise UserError(
            f"{backend.name} computes other logits than PyTorch: {deviation:.1e} apart, relative to the largest, where "
            f"{MAX_DEVIATION:.0e} is allowed\n  leave --backend out"
        )
    return deviation


class _Torch:
    name: BackendName = "torch"

    def __init__(self, model: nn.Module, size: int, threads: int) -> None:
        self.model = model

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Return float32 logits."""
        result: Tensor = self.model(images).float()
        return result


class _OpenVino:
    name: BackendName = "openvino"

    def __init__(self, model: nn.Module, size: int, threads: int) -> None:
        with _ready_to_convert(model) as example:
            pictures = torch.zeros(1, 3, size, size, device=example.device)
        self._run = compile_openvino(model, pictures, threads)

    def logits(self, images: Tensor) -> Tensor:
        """Return float32 logits."""
        return torch.from_numpy(self._run(images)[0])


def compile_openvino(model: nn.Module, example: Tensor, threads: int) -> Callable[[Tensor], list[np.ndarray]]:
    """Return a network, or a part of one, as OpenVINO computes it: float32 images `[B, 3, S, S]` to its outputs.

    Args:
        model: PyTorch's; it is read, not changed.
        example: one picture `[1, 3, S, S]`, on the device of the model.
        threads: processor cores to use.

    Raises:
        UserError: OpenVINO is not installed, or cannot take the network.
    """
    openvino = import_openvino()
    # OpenVINO picks bf16 where the processor has it, and that is no longer the same network.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    try:
        with _ready_to_convert(model):
            shape = [-1, *example.shape[1:]]
            converted = openvino.convert_model(model, example_input=example, input=shape)
        request = openvino_core().compile_model(converted, "CPU", settings).create_infer_request()
    except Exception as error:  # a converter raises whatever a network makes it trip over
        raise _cannot_take("openvino", model, error) from error

    def run(images: Tensor) -> list[np.ndarray]:
        found: Any = request.infer([images.contiguous().numpy()], share_inputs=True)
        # Copied: the next batch is computed into the same memory.
        return [np.array(array, dtype=np.float32) for array in found.to_tuple()]

    return run


class _OnnxRuntime:
    name: BackendName = "onnxruntime"

    def __init__(self, model: nn.Module, size: int, threads: int) -> None:
        for package in ("onnx", "onnxscript"):
            if find_spec(package) is None:
                raise require_extra(package, "export")
        try:
            import onnxruntime
        except ImportError:
            raise require_extra("onnxruntime", "export") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin while they wait take the cores from those that read pictures.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            # Through a file: a network in memory may have no more than 2 GB.
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                _export_onnx(model, size, path)
                self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # a converter raises whatever a network makes it trip over
            raise _cannot_take(self.name, model, error) from error
        self._input = self._session.get_inputs()[0].name

    def logits(self, images: Tensor) -> Tensor:
        """Return float32 logits."""
        found: Any = self._session.run(None, {self._input: images.contiguous().numpy()})[0]
        return torch.from_numpy(found)


def _export_onnx(model: nn.Module, size: int, path: Path) -> None:
    with _ready_to_convert(model) as example:
        # Two pictures: torch.export takes a batch of one for a constant.
        pictures = torch.zeros(2, 3, size, size, device=example.device)
        batch = {0: torch.export.Dim("batch", min=1, max=65536)}
        program = torch.onnx.export(model, (pictures,), dynamo=True, dynamic_shapes=(batch,), verbose=False)
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    program.save(str(path))


@contextmanager
def _ready_to_convert(model: nn.Module) -> Iterator[Tensor]:
    """Hold the network in evaluation mode and converters' warnings back; yield one of its weights."""
    with evaluation_mode(model), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield next(model.parameters())


def _cannot_take(name: str, model: nn.Module, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [""])[0][:200]
    return UserError(
        f"{name} cannot take this network ({type(error).__name__}: {reason})\n  leave --backend out, or try another"
    )

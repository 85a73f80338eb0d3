"""Device, precision and processes, so that no other file needs to know them."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from fixres.config import Runtime as RuntimeSettings
from fixres.errors import UserError

_AVAILABLE: dict[str, Callable[[], bool]] = {
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
    "xpu": lambda: hasattr(torch, "xpu") and torch.xpu.is_available(),
    "npu": lambda: hasattr(torch, "npu") and torch.npu.is_available(),
}


class Runtime:
    """Places, runs and steps networks on one device. A world of one process is not a special case."""

    def __init__(self, settings: RuntimeSettings) -> None:
        """Choose the device and precision.

        Raises:
            UserError: the device asked for is not there, or cannot compute in the precision asked for.
        """
        available = [name for name, is_there in _AVAILABLE.items() if is_there()]
        wanted = settings.device
        if wanted not in ("auto", "cpu", *available):
            raise UserError(
                f"runtime.device {wanted} is not available here\n  allowed: {', '.join(['auto', 'cpu', *available])}"
            )
        use_cpu = wanted == "cpu" or not available
        self.precision = _precision(settings.precision, use_cpu)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self.threads = torch.get_num_threads()
        self.channels_last = settings.channels_last
        self.compile = settings.compile
        torch.use_deterministic_algorithms(settings.deterministic)
        if settings.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Accelerate keeps one state per process and refuses a second run with another precision or device.
        AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
        self.accelerator = Accelerator(
            cpu=use_cpu, mixed_precision={"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[self.precision]
        )

    @property
    def device(self) -> torch.device:
        """The device networks and batches live on."""
        device: torch.device = self.accelerator.device
        return device

    def place(self, model: nn.Module) -> nn.Module:
        """Move a network to the device, in the memory format of the run."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return model.to(self.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def images(self, images: Tensor) -> Tensor:
        """Move a batch `[B, 3, S, S]` to the device, in the memory format of the run."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return images.to(self.device, non_blocking=True, memory_format=layout)

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """Wrap a placed network and its optimizer for training, in this order: compile, then data parallel."""
        if self.compile:
            model = torch.compile(model)  # type: ignore[assignment]
        return self.accelerator.prepare(model, optimizer)  # type: ignore[no-any-return]

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass, scaled where the precision needs it."""
        self.accelerator.backward(loss)

    def clip(self, model: nn.Module, norm: float) -> None:
        """Limit the norm of the gradients to `norm`; 0 means no limit."""
        if norm > 0:
            self.accelerator.clip_grad_norm_(model.parameters(), norm)

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Compute the forward pass in the precision of the run."""
        with self.accelerator.autocast():
            yield

    def describe(self) -> str:
        """Return the device, precision and threads in one line."""
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else platform.machine()
        return f"{self.device.type} ({name}), {self.precision}, {self.threads} threads"


def _precision(wanted: str, on_cpu: bool) -> str:
    if on_cpu:
        if wanted == "fp16":
            raise UserError("runtime.precision fp16 needs an accelerator\n  allowed on a CPU: auto, fp32, bf16")
        # Without AMX or AVX512-BF16 instructions bf16 is emulated and slower than fp32.
        return "fp32" if wanted == "auto" else wanted
    if wanted == "auto":
        return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp16"
    return wanted

"""Device, precision and processes, so that no other file needs to know them."""

from __future__ import annotations

import contextlib
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from fixres.config.recipe import Runtime as RuntimeSettings
from fixres.errors import UserError, counted
from fixres.runtime.cpus import usable_cpus
from fixres.runtime.distributed import Processes
from fixres.runtime.malloc import keep_freed_memory
from fixres.runtime.signals import StopSignals

_STATISTICS = ("running_mean", "running_var")

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
        if threads := settings.threads or _threads_of_quota():
            torch.set_num_threads(threads)
        self.threads = torch.get_num_threads()
        self.channels_last = settings.channels_last
        self.compile = settings.compile
        torch.use_deterministic_algorithms(settings.deterministic)
        if settings.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Accelerate keeps one state per process and refuses a second run with another precision or device.
        AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
        self.accelerator = Accelerator(
            cpu=use_cpu,
            mixed_precision={"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[self.precision],
            # Every process keeps its own statistics until they are averaged, instead of the main one's winning.
            kwargs_handlers=[
                DistributedDataParallelKwargs(broadcast_buffers=False),
                InitProcessGroupKwargs(timeout=timedelta(seconds=settings.wait_seconds)),
            ],
        )
        self.processes = Processes(settings.wait_seconds)
        self.stop = StopSignals()
        self.micro_batch = settings.micro_batch
        self.sync_bn = settings.sync_bn
        if self.sync_bn and self.device.type == "cpu":
            raise UserError("runtime.sync_bn needs accelerators, PyTorch has it for no CPU\n  leave it out")

    @property
    def device(self) -> torch.device:
        """The device networks and batches live on."""
        device: torch.device = self.accelerator.device
        return device

    def keep_memory(self) -> None:
        """Keep what a batch frees for the next one: for work that ends, and repeats the same allocations until then."""
        if self.device.type == "cpu":
            keep_freed_memory()

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
        with warnings.catch_warnings():
            # Its replacement is not in Accelerate yet, and would copy the main process's buffers once.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            return self.accelerator.prepare(model, optimizer)  # type: ignore[no-any-return]

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass, scaled where the precision needs it."""
        self.accelerator.backward(loss)

    def clip(self, model: nn.Module, norm: float) -> None:
        """Limit the norm of the gradients to `norm`; 0 means no limit."""
        if norm > 0:
            self.accelerator.clip_grad_norm_(model.parameters(), norm)

    def accumulating(self, model: nn.Module, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        """Return the context of one micro-batch: processes exchange gradients in the last one only."""
        if is_last or self.processes.shard.world == 1:
            return contextlib.nullcontext()
        return self.accelerator.no_sync(model)  # type: ignore[no-any-return]

    def own_statistics(self, model: nn.Module) -> dict[str, Tensor]:
        """Return copies of the BatchNorm statistics, which differ between processes during training."""
        return {k: v.detach().clone() for k, v in model.named_buffers() if k.endswith(_STATISTICS)}

    def average_statistics(self, model: nn.Module) -> None:
        """Give every process the mean of all processes' BatchNorm statistics, summed in the order of their ranks."""
        if self.processes.shard.world == 1:
            return
        found = self.processes.gather({k: v.cpu() for k, v in self.own_statistics(model).items()})
        set_buffers(model, {name: torch.stack([one[name] for one in found]).double().mean(0) for name in found[0]})

    @contextlib.contextmanager
    def averaged(self, *models: nn.Module) -> Iterator[None]:
        """Hold the averaged statistics while entered and the process's own again afterwards.

        When a run measures or saves may then not matter to what it trains.
        """
        if self.processes.shard.world == 1:
            yield
            return
        own = [self.own_statistics(model) for model in models]
        for model in models:
            self.average_statistics(model)
        try:
            yield
        finally:
            for model, kept in zip(models, own, strict=True):
                set_buffers(model, kept)

    def random_state(self) -> dict[str, Any]:
        """Return the state of this process's random generators, those of its device included."""
        module = self._device_module()
        return {"cpu": torch.get_rng_state(), "device": module.get_rng_state() if module is not None else None}

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Go on with the random numbers where `random_state` was taken."""
        torch.set_rng_state(state["cpu"])
        module = self._device_module()
        if module is not None and state["device"] is not None:
            module.set_rng_state(state["device"])

    def _device_module(self) -> Any:
        return None if self.device.type == "cpu" else torch.get_device_module(self.device)

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Compute the forward pass in the precision of the run."""
        return self.accelerator.autocast()  # type: ignore[no-any-return]

    def describe(self) -> str:
        """Return the device, precision and threads in one line."""
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else platform.machine()
        world = self.processes.shard.world
        count = f", {world} processes" if world > 1 else ""
        return f"{self.device.type} ({name}), {self.precision}, {counted(self.threads, 'thread')}{count}"


def _threads_of_quota() -> int:
    """Return the threads that a quota has time for where PyTorch, which does not know of it, has more; else 0."""
    usable = usable_cpus()
    return usable if usable < torch.get_num_threads() and "OMP_NUM_THREADS" not in os.environ else 0


def set_buffers(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy values into the buffers of a network that they name."""
    buffers = dict(model.named_buffers())
    for name, value in values.items():
        buffers[name].copy_(value)


def _precision(wanted: str, on_cpu: bool) -> str:
    if on_cpu:
        if wanted == "fp16":
            raise UserError("runtime.precision fp16 needs an accelerator\n  allowed on a CPU: auto, fp32, bf16")
        # Without AMX or AVX512-BF16 instructions bf16 is emulated and slower than fp32.
        return "fp32" if wanted == "auto" else wanted
    if wanted == "auto":
        return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp16"
    return wanted

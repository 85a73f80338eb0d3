"""Resumable state: one object that is saved whole and loaded whole, without executing code."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from fixres.errors import UserError
from fixres.io import safe_load
from fixres.runtime.run_folder import write_with
from fixres.training.optim import WeightAverage

FORMAT = 2


@dataclass
class TrainState:
    """Everything a stage needs to go on as if it had never stopped."""

    model: nn.Module
    """The bare network, never a wrapper."""
    optimizer: Any
    average: WeightAverage | None = None
    scaler: Any = None
    teacher: Any = None
    """What the stage learns from beside the labels; not saved, since it does not change."""
    stage_index: int = 0
    step: int = 0
    """Optimizer updates done in this stage."""
    best_top1: float = -1.0
    """Best top-1 in percent on the selecting split, of the weights that would ship."""
    best_step: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    micro_batch: int = 0
    """Pictures per forward pass of a process; 0 before it is decided."""

    @property
    def shipped(self) -> nn.Module:
        """The network whose weights would ship: the average where one is kept."""
        return self.average.module if self.average is not None else self.model

    @property
    def shipped_label(self) -> str:
        """`ema` or `raw`."""
        return "ema" if self.average is not None else "raw"


def save_state(
    state: TrainState,
    folder: Path,
    *,
    recipe: str,
    classes: tuple[str, ...],
    metrics_bytes: int,
    extra: dict[str, Any],
    keep_newest: int = 0,
) -> None:
    """Write RUN/checkpoints/last.pt atomically; `extra` is what the run wants to find again beside the state.

    With `keep_newest` the file is also kept as step-STAGE-STEP.pt, and of these no more than that many.
    """
    content = {
        "format": FORMAT,
        "stage_index": state.stage_index,
        "step": state.step,
        "best_top1": state.best_top1,
        "best_step": state.best_step,
        "best_weights": state.best_weights,
        "model": state.model.state_dict(),
        "average": state.average.module.state_dict() if state.average is not None else None,
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict() if state.scaler is not None else None,
        "micro_batch": state.micro_batch,
        "recipe": recipe,
        "classes": list(classes),
        "metrics_bytes": metrics_bytes,
        **extra,
    }
    last = folder / "checkpoints" / "last.pt"
    write_with(last, lambda path: torch.save(content, path))
    if keep_newest:
        write_with(last.with_name(f"step-{state.stage_index + 1}-{state.step}.pt"), lambda path: _same_file(last, path))
        kept = sorted(last.parent.glob("step-*-*.pt"), key=lambda path: [int(n) for n in path.stem.split("-")[1:]])
        for path in kept[:-keep_newest]:
            path.unlink(missing_ok=True)


def _same_file(source: Path, target: Path) -> None:
    """Make `target` the file `source` is now, without a second copy where the disk can do so."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def read_state(folder: Path) -> dict[str, Any] | None:
    """Return the content of RUN/checkpoints/last.pt, or None when there is none.

    Raises:
        UserError: the file cannot be read, or another version of fixres wrote it.
    """
    path = folder / "checkpoints" / "last.pt"
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = read_checkpoint(path)
    except UserError as error:
        older = sorted(path.parent.glob("step-*.pt"))
        use = f"copy {older[-1]} over it, or " if older else ""
        raise UserError(f"{error}\n  {use}start again in another folder with --out") from error
    if content.get("format") != FORMAT:
        raise UserError(
            f"{path} was written by another version of fixres, whose runs this one cannot resume\n"
            f"  its weights can be used: --model.weights {path}#raw; or start again in another folder with --out"
        )
    return content


def restore_state(state: TrainState, content: dict[str, Any]) -> None:
    """Put the content of last.pt into a freshly built state of the same stage."""
    state.model.load_state_dict(content["model"])
    if state.average is not None:
        state.average.module.load_state_dict(content["average"])
    state.optimizer.load_state_dict(content["optimizer"])
    if state.scaler is not None and content["scaler"] is not None:
        state.scaler.load_state_dict(content["scaler"])
    state.step = content["step"]
    state.best_top1, state.best_step = content["best_top1"], content["best_step"]
    state.best_weights = content["best_weights"]
    state.micro_batch = content["micro_batch"]


def read_checkpoint(path: Path, trust: bool = False) -> Any:
    """Read a .pt, .pth or .safetensors file: tensors and plain containers, nothing that runs (see fixres.io.safe_load).

    Args:
        path: the file.
        trust: load a file that asks for other objects too, which runs its author's code; a warning names them.

    Raises:
        UserError: missing, truncated, it claims memory it does not hold, or it holds more than data.
    """
    return safe_load.load(path, trust=trust)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a flat {name: tensor} file, .safetensors or .pt/.pth.

    Raises:
        UserError: missing, truncated, or not a flat dictionary of tensors.
    """
    content = read_checkpoint(path)
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        keys = ", ".join(map(str, list(content)[:6])) if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{path} is not a flat dictionary of tensors (it holds: {keys})")
    return dict(content)


def write_weights(path: Path, state: dict[str, Tensor]) -> None:
    """Write safetensors atomically; the same tensors give the same bytes.

    One metadata key only: with more, safetensors writes them in random order. Contiguous, because the channels-last
    layout is refused.
    """
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in state.items():
        copied = tensor.detach().cpu().contiguous()
        # Networks that use one tensor under two names keep both, which the format does not do for shared memory.
        place = copied.untyped_storage().data_ptr()
        tensors[name] = copied.clone() if place in seen else copied
        seen.add(place)

    def write(temporary: Path) -> None:
        try:
            save_file(tensors, temporary, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(str(error)) from error

    write_with(path, write)


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the state dict that later training does not change."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def changed_tensors(before: dict[str, Tensor], after: dict[str, Tensor]) -> frozenset[str]:
    """Return the names whose tensors differ, new or missing names included."""
    names = before.keys() | after.keys()
    return frozenset(
        name
        for name in names
        if name not in before or name not in after or not torch.equal(before[name], after[name].to(before[name].device))
    )

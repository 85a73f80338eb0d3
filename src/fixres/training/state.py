"""Resumable state of a stage: one object that is saved whole and loaded whole, without executing code."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fixres.errors import UserError
from fixres.io.files import write_with
from fixres.io.safe_load import read_checkpoint
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


def save_state(state: TrainState, folder: Path, *, extra: dict[str, Any], keep_newest: int = 0) -> None:
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

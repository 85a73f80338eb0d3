"""Files of other projects, and how they are imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import fixres
from fixres.cli.main import main

State = dict[str, torch.Tensor]


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def resnext_pytorch(state: State, other: State) -> Any:
    average = {"n_averaged": torch.tensor(7), **prefixed(other, "module.")}
    return {"epoch": 7, "best_acc1": 71.5, "state_dict": state, "ema_state_dict": average, "scheduler": {"T_0": 150}}


def imported(file: Path, *flags: str, model: str = "resnet18") -> Path:
    """Import `file` through the command line and return the folder."""
    out = file.parent / f"{file.stem}-imported"
    assert main(["import", str(file), "--model", model, "--out", str(out), *flags]) == 0
    return out


def logits(folder: Path, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return fixres.load(folder).model(images)

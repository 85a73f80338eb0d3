"""Checkpoints whose author means harm: pickles that would run code, or claim memory by a number."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

MARKER = "ran"
HUGE = 10**10


class Evil:
    """A pickle that leaves the file `MARKER` behind when it is loaded."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {MARKER}",)


class Hidden(Evil):
    """The same through a function that torch itself may call: its first argument is the one to be called."""

    def __reduce__(self) -> Any:
        return torch._tensor._rebuild_from_type_v2, (os.system, torch.Tensor, (f"touch {MARKER}",), {})


class Claim:
    """A pickle that calls `function` with arguments of the author's choice."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


PLACES: dict[str, Callable[[Any], Any]] = {
    "alone": lambda bad: bad,
    "beside tensors": lambda bad: {"conv.weight": torch.zeros(3), "conv.bias": bad},
    "in the optimizer": lambda bad: {"model": {"w": torch.zeros(3)}, "optimizer": {"state": {0: [bad]}}},
}


def save(content: Any, name: str = "w.pt", *, legacy: bool = False) -> Path:
    """Save with torch, in the format before 1.6 when `legacy`."""
    torch.save(content, name, _use_new_zipfile_serialization=not legacy)
    return Path(name).absolute()

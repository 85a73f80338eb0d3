"""What one stage hands to the next, in memory and on disk."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from fixres.io.files import write_with
from fixres.io.safe_load import read_checkpoint
from fixres.models.build import load_strict
from fixres.models.sizes import at_size
from fixres.training.context import RunContext


@dataclass
class Handover:
    """What one stage hands to the next."""

    model: nn.Module
    train_size: int
    """Size of the last stage that trained, not fixed."""
    label: str = "raw"
    """Which weights it holds: ema | raw."""
    before: nn.Module | None = None
    """The network as the last fix found it."""
    before_label: str = "raw"
    """Which weights that holds."""
    is_new_head: bool = False
    """Whether the head is a random one that no stage has trained."""
    had_new_head: bool = False
    """Whether that of `before` is."""
    may_select_by_loss: bool = True
    """Whether few selecting pictures decide by the loss; not in a run that an earlier version began."""
    start: nn.Module | None = None
    """The network the run started from, where a head is to be solved on it in the end."""
    has_new_start: bool = False
    """Whether the head of that is a random one."""


def leave(context: RunContext, handover: Handover, index: int, size: int) -> None:
    """Write what stage `index` starts from, so that a resumed run finds it."""
    content = {
        "weights": handover.model.state_dict(),
        "label": handover.label,
        "size": size,
        "train_size": handover.train_size,
        "is_new_head": handover.is_new_head,
    }
    if context.runtime.processes.is_main:
        write_with(context.folder / "checkpoints" / f"start-{index}.pt", lambda path: torch.save(content, path))


def resume_handover(context: RunContext, model: nn.Module, index: int) -> Handover:
    """Return what stage `index` started from."""
    content = read_checkpoint(context.folder / "checkpoints" / f"start-{index}.pt")
    model = at_size(model, content["size"])
    load_strict(model, content["weights"], "the weights of the stage before")
    # Before a head could be solved towards zero, nobody asked whether one is new.
    is_new_head = content.get("is_new_head", False)
    return Handover(context.runtime.place(model), content["train_size"], content["label"], is_new_head=is_new_head)

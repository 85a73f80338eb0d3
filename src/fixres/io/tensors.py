"""Tensors on disk: files of weights, read without executing code, and written whole with the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from fixres.errors import UserError
from fixres.io.files import write_with
from fixres.io.safe_load import read_checkpoint


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

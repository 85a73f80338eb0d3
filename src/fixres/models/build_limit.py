"""Building the network that a file describes, no further than the weights beside it can fill it.

A few words in a config.json ask for any number of layers. Every parameter of a network must be in its weights file, so
that file bounds what is built: PyTorch tells of every tensor and module that a network takes on, and building ends
there when they are too many.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from fixres.errors import UserError
from fixres.models.build import build_model, build_shape

MAX_RATIO = 4
"""Bytes of a network to bytes of its weights. Half precision on disk makes 2; what is computed while building, less."""
FREE_BYTES = 2**28
"""What any network may take beyond that: tables of positions that are not saved, and what `_OBJECT_BYTES` counts."""
MAX_NUMBERS = 10**5
"""Sum of the whole numbers in an architecture's arguments: some say how long a list is made before the first layer."""
_OBJECT_BYTES = 2**15
"""What a module or a tensor counts for beside its values, so that many small ones do not take minutes to make.

The networks of timm have up to 4,300 of them; beside the free bytes there is room for 8,000 and more."""


class _TooLargeError(UserError):
    """The network takes more than its weights can fill."""


def build_for(
    state: Mapping[str, Tensor], name: str, num_classes: int, kwargs: Mapping[str, Any], source: str
) -> nn.Module:
    """Build an architecture that a file names, with arguments from that file, for the weights `state`.

    Args:
        state: the weights that will be loaded.
        name: as for `build_model`.
        num_classes: outputs of the head.
        kwargs: passed to timm.create_model.
        source: what messages call the file.

    Raises:
        UserError: the network takes far more than its weights, or cannot be built so.
    """
    _require_usual_numbers(kwargs, source)
    held = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    limit = MAX_RATIO * held + FREE_BYTES
    excess = _TooLargeError(
        f"{source} describes a network '{name}' of more than {limit:,} bytes{_spelled(kwargs)}, but holds weights of "
        f"{held:,}; refused\n  they do not belong together: fetch the folder again, or correct its config.json"
    )
    if kwargs:
        _try_without_values(name, num_classes, kwargs, limit, excess)
    # Without arguments nothing large has values before it is counted.
    with _at_most(limit, excess):
        return build_model(name, num_classes, kwargs)


def _try_without_values(
    name: str, num_classes: int, kwargs: Mapping[str, Any], limit: int, excess: _TooLargeError
) -> None:
    """Build on the meta device, where tensors of any size cost nothing before they are counted."""
    try:
        with _at_most(limit, excess), torch.random.fork_rng(devices=[]):
            build_shape(name, num_classes, kwargs)
    except _TooLargeError:
        raise
    except UserError:
        # Arguments that do not suit are said below; a network of another package may need values.
        return


class _Building(threading.local):
    """What the network that this thread is building may still take; any other thread has its own."""

    left: int = 0
    excess: _TooLargeError | None = None
    """Raised when nothing is left; None: this thread builds what it likes."""


_building = _Building()


@contextmanager
def _at_most(limit: int, excess: _TooLargeError) -> Iterator[None]:
    """End building in this thread with `excess` when modules and their tensors take more than `limit` bytes."""
    _building.left, _building.excess = limit, excess
    try:
        yield
    finally:
        _building.excess = None


def _take(_module: nn.Module, _name: str, part: Any) -> None:
    if _building.excess is None:
        return
    _building.left -= _OBJECT_BYTES
    if isinstance(part, Tensor):
        _building.left -= part.numel() * part.element_size()
    if _building.left < 0:
        raise _building.excess


# Once, for good: PyTorch goes through its list of hooks in every thread that builds a network, and one that finds the
# list changed meanwhile fails.
torch_module.register_module_parameter_registration_hook(_take)
torch_module.register_module_buffer_registration_hook(_take)
torch_module.register_module_module_registration_hook(_take)


def _require_usual_numbers(kwargs: Mapping[str, Any], source: str) -> None:
    total, waiting = 0, list(kwargs.values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, int):
            total += abs(value)
        elif isinstance(value, dict | list | tuple):
            waiting.extend(value.values() if isinstance(value, dict) else value)
    if total > MAX_NUMBERS:
        raise UserError(
            f"{source}: the whole numbers in model_args{_spelled(kwargs)} add up to more than {MAX_NUMBERS:,}\n"
            "  no network has so many layers: fetch the folder again, or correct its config.json"
        )


def _spelled(kwargs: Mapping[str, Any]) -> str:
    text = ", ".join(f"{key}: {value}" for key, value in kwargs.items())
    return f" ({text if len(text) <= 120 else text[:117] + '...'})" if text else ""

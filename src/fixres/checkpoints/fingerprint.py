"""A short name for everything that decides what a network makes of images: its tensors and how they reach it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from fixres.resolution import Preprocess

FORMAT = 2
"""Raised when stored features of the same inputs would mean something else."""


def cache_key(model: nn.Module, preprocess: Preprocess, stamps: Mapping[str, str], settings: Any) -> str:
    """Return 16 hexadecimal digits that differ whenever anything that decides the features does.

    Args:
        model: the network at the new size; every tensor of it counts.
        preprocess: the test-time preprocessing at the new size.
        stamps: that of every split that is read.
        settings: views, batch shape, precision and what else decides the last bits; JSON.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(-1).numpy().tobytes())
    words = [FORMAT, type(model).__name__, asdict(preprocess), dict(stamps), settings]
    digest.update(json.dumps(words, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]

"""Settings of training batches, given by name in one go."""

from __future__ import annotations

from typing import Any

from fixres.data.loader import Draw, ReadPolicy

_OF_DRAW = ("seed", "stage_index", "first_step", "shard")


def drawn(**settings: Any) -> dict[str, Any]:
    """Return the arguments of `train_batches` that settings of `Draw` and `ReadPolicy`, and `bad`, stand for."""
    draw = {"seed": 0, "stage_index": 0, **{key: settings.pop(key) for key in _OF_DRAW if key in settings}}
    return {"draw": Draw(**draw), "bad": settings.pop("bad", None), "policy": ReadPolicy(**settings)}

"""Whether two runs are one: equal weights and equal events, their times left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from fixres.io.tensors import changed_tensors
from fixres.runtime.run_folder import read_events


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def untimed(event: Mapping[str, Any]) -> dict[str, Any]:
    times = ("seconds", "images_per_second", "solver_seconds", "data_wait_ratio", "fps")
    cut = {key: value for key, value in event.items() if key not in times}
    for name in ("results", "raw_results", "rows"):
        if name in cut:
            cut[name] = [untimed(result) for result in cut[name]]
    return cut


def assert_same_run(one: Path, two: Path) -> None:
    first, second = weights(one), weights(two)
    assert not changed_tensors(first, second)
    told = ("begin", "start", "plan", "speed")
    events = [[untimed(e) for e in read_events(folder) if e["event"] not in told] for folder in (one, two)]
    assert events[0] == events[1]

"""What a run left for TensorBoard, read back."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def read_back(folder: Path) -> EventAccumulator:
    """Return everything that TensorBoard has of a run folder."""
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found

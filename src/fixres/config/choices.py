"""Fixed words and plain numbers that keys of the recipe, flags and arguments share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Device = Literal["auto", "cpu", "cuda", "npu", "xpu", "mps"]
BackendName = Literal["torch", "openvino", "onnxruntime"]
"""What computes a network."""
SplitName = Literal["train", "holdout", "val", "test", "all"]
OnBadImage = Literal["error", "skip"]
"""What an unreadable picture does."""
Decode = Literal["fast", "full"]
"""How training JPEGs are decoded: no larger than the random crop needs, or as in testing."""
Tta = Literal["none", "flip", "five", "ten"]
"""Crops of a picture whose probabilities are averaged in testing."""
Count = Annotated[int, Field(ge=0)]
"""A number of things; there may be none."""

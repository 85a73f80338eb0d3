"""What a soup is asked for, by `fixres average`, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from fixres.checkpoints.feeding_request import FedAs
from fixres.config.choices import Count


@dataclass(frozen=True, kw_only=True)
class AverageRequest(FedAs):
    """What to average, and what to measure it on."""

    sources: tuple[str, ...]
    """Two or more run folders, model folders, or weights files with --model, of one architecture."""
    out: Path
    """New model folder."""
    greedy: bool = False
    """Best network first; add another only where the soup is no worse on the selecting split."""
    recalibrate: bool = False
    """Recompute BatchNorm statistics over the training split, in place of averaging them."""
    data: str | None = None
    """Data URI to select and report on; the first checkpoint's own when left out."""
    model: str | None = None
    """Architecture of bare weights files."""
    weights: str = "fixed"
    """raw or ema of training checkpoints; before_fix of folders."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Pictures per batch."""
    workers: Count | None = None
    """Loader processes; left out: one per core, at most 8."""

"""What an import is asked for, by `fixres import`, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fixres.checkpoints.feeding_request import Feeding
from fixres.config.stage import Positive


@dataclass(frozen=True, kw_only=True)
class ImportRequest(Feeding):
    """What to import, and what the file does not say. None means: as the file, or else the network, has it."""

    source: str
    """Weights file, model folder, or timm: hf-hub: fixres: url: package: and a name."""
    out: Path
    """New model folder."""
    model: str | None = None
    """Architecture of a bare weights file, by timm name or alias: `fixres models`."""
    weights: str = "fixed"
    """raw or ema of a training checkpoint (left out: raw, or ema when there is nothing else); FILE for timm:NAME."""
    new_head: Positive | None = None
    """Replace the classifier by a random one with this many classes."""
    classes: str | None = None
    """Names of the outputs: a text file with one per line, a JSON file by index, or the word imagenet."""
    optimizer: bool = False
    """Keep the optimizer's state by parameter name, for `fixres train --optim.state DIR`."""
    trust: bool = False
    """Run the code inside a pickle. Only for a file whose author you trust: it can do anything you can."""
    train_size: Positive | None = None
    """Size in pixels the weights were trained at; left out, the model's."""
    grid_size: Positive | None = None
    """Size in pixels the position grid of a transformer's file is for, where that is not the model's own."""
    size: Positive | None = None
    """Size in pixels to test at; left out, that of the weights or of the model."""
    license: str = ""
    """Licence of the weights, written into the folder's README."""
    seed: int = 0
    """Seed of a new head."""

"""The command `import`: any checkpoint to a model folder, strictly and safely."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fixres.cli.parse import Positional, parse_flags

Unit = Annotated[float, Field(ge=0, le=1)]
PositiveUnit = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class ImportFlags:
    """Flags of `fixres import`."""

    source: Annotated[str, Positional("SOURCE")]
    """Weights file, model folder, or timm: hf-hub: fixres: url: package: and a name."""
    out: Path
    """New model folder."""
    model: str | None = None
    """Architecture of a bare weights file, by timm name or alias: `fixres models`."""
    weights: str = "fixed"
    """raw or ema of a training checkpoint (left out: raw, or ema when there is nothing else); FILE for timm:NAME."""
    new_head: Annotated[int, Field(ge=1)] | None = None
    """Replace the classifier by a random one with this many classes."""
    classes: str | None = None
    """Names of the outputs: a text file with one per line, a JSON file by index, or the word imagenet."""
    optimizer: bool = False
    """Keep the optimizer's state by parameter name, for `fixres train --optim.state DIR`."""
    trust: bool = False
    """Run the code inside a pickle. Only for a file whose author you trust: it can do anything you can."""
    train_size: Annotated[int, Field(ge=1)] | None = None
    """Size in pixels the weights were trained at; left out, the model's."""
    grid_size: Annotated[int, Field(ge=1)] | None = None
    """Size in pixels the position grid of a transformer's file is for, where that is not the model's own."""
    size: Annotated[int, Field(ge=1)] | None = None
    """Size in pixels to test at. This and the next five, left out: as the model's published weights are fed."""
    crop_ratio: PositiveUnit | None = None
    """size / resize_size."""
    resize: Literal["shorter", "height", "squash", "pad"] | None = None
    """height: as the released FixRes weights were measured."""
    interpolation: Literal["bilinear", "bicubic"] | None = None
    """Interpolation of the resize."""
    mean: tuple[Unit, Unit, Unit] | None = None
    """Per-channel mean of the input."""
    std: tuple[PositiveUnit, PositiveUnit, PositiveUnit] | None = None
    """Per-channel standard deviation of the input."""
    license: str = ""
    """Licence of the weights, written into the folder's README."""
    seed: int = 0
    """Seed of a new head."""
    quiet: bool = False
    """Print results only."""


def import_(words: Sequence[str]) -> int:
    """`fixres import FILE --model NAME --out DIR [--weights raw|ema] [--new-head N] [--trust] ...`."""
    flags = parse_flags(words, ImportFlags, "fixres import", "Any checkpoint to a model folder, strictly and safely.")
    from fixres.checkpoints.convert import ImportRequest, import_weights
    from fixres.cli.console import Console

    console = Console(flags.quiet)
    names = ("size", "crop_ratio", "resize", "interpolation", "mean", "std")
    request = ImportRequest(
        source=flags.source,
        out=flags.out,
        model=flags.model,
        weights=flags.weights,
        new_head=flags.new_head,
        trust=flags.trust,
        classes=flags.classes,
        optimizer=flags.optimizer,
        seed=flags.seed,
        license=flags.license,
        feeding={name: getattr(flags, name) for name in names},
        train_size=flags.train_size,
        grid_size=flags.grid_size,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            product, notes = import_weights(request)
        finally:
            for warning in caught:
                if issubclass(warning.category, UserWarning):
                    console.warn(str(warning.message))
    for note in notes:
        console.say(note)
    console.say(f"network: {product.architecture}, {len(product.classes):,} classes, {product.weights} weights")
    console.preprocessing(product.preprocess, str(flags.out))
    p = product.preprocess
    console.say(f"mean {', '.join(map(str, p.mean))}; std {', '.join(map(str, p.std))}")
    sys.stdout.write(f"{flags.out}\n")
    return 0

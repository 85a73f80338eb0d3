"""The command `average`: one network with the mean of several's weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from fixres.cli.parse import Positional, parse_flags


@dataclass(frozen=True)
class AverageFlags:
    """Flags of `fixres average`."""

    sources: Annotated[tuple[str, ...], Positional("CKPT")]
    """Two or more run folders, model folders, or weights files with --model, of one architecture."""
    out: Path
    """New model folder."""
    greedy: bool = False
    """Best network first; add another only where the soup loses nothing on the selecting split."""
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
    workers: Annotated[int, Field(ge=0)] | None = None
    """Loader processes; left out: one per core, at most 8."""
    quiet: bool = False
    """Print results only."""


def average(words: Sequence[str]) -> int:
    """`fixres average CKPT... --out DIR [--greedy] [--recalibrate] [--data URI]`."""
    flags = parse_flags(words, AverageFlags, "fixres average", "One network with the mean of several's weights.")
    from fixres.cli.console import Console
    from fixres.training.model_soup import AverageRequest, average

    console = Console(flags.quiet)
    names = ("sources", "out", "greedy", "recalibrate", "data", "model", "weights", "batch_size", "workers")
    found = average(AverageRequest(**{name: getattr(flags, name) for name in names}), console.say)
    console.preprocessing(found.product.preprocess, flags.sources[0])
    console.say(f"average of {len(found.used)} of {len(flags.sources)}: {', '.join(found.used)}")
    if found.result is None or found.soup_top1 is None:
        console.say("not measured: there are no pictures to measure on; --data URI")
    else:
        low, high = found.result["top1_ci95"]
        console.say(f"selected on {found.select}: {found.soup_top1:.2f} %")
        console.say(
            f"result on {found.report}: {found.result['top1']:.2f} % ({low:.1f} to {high:.1f}) at "
            f"{found.result['size']} px, n = {found.num_images:,}"
        )
    sys.stdout.write(f"{flags.out}\n")
    return 0

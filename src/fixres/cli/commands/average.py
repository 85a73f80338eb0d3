"""The command `average`: one network with the mean of several's weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fixres.cli.parse import Positional, parse_flags
from fixres.training.average_request import AverageRequest


@dataclass(frozen=True, kw_only=True)
class AverageFlags(AverageRequest):
    """Flags of `fixres average`."""

    sources: Annotated[tuple[str, ...], Positional("CKPT")]
    quiet: bool = False
    """Print results only."""


def average(words: Sequence[str]) -> int:
    """`fixres average CKPT... --out DIR [--greedy] [--recalibrate] [--data URI]`."""
    flags = parse_flags(words, AverageFlags, "fixres average", "One network with the mean of several's weights.")
    from fixres.cli.console import Console
    from fixres.training.model_soup import average

    console = Console(flags.quiet)
    found = average(flags, console.say)
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

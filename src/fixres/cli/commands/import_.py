"""The command `import`: any checkpoint to a model folder, strictly and safely."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fixres.checkpoints.import_request import ImportRequest
from fixres.checkpoints.source import require_file
from fixres.cli.console import Console
from fixres.cli.parse import Positional, parse_flags


@dataclass(frozen=True, kw_only=True)
class ImportFlags(ImportRequest):
    """Flags of `fixres import`."""

    source: Annotated[str, Positional("SOURCE")]
    quiet: bool = False
    """Print results only."""


def import_(words: Sequence[str]) -> int:
    """`fixres import FILE --model NAME --out DIR [--weights raw|ema] [--new-head N] [--trust] ...`."""
    flags = parse_flags(words, ImportFlags, "fixres import", "Any checkpoint to a model folder, strictly and safely.")
    require_file(flags.source)
    from fixres.checkpoints.convert import import_weights

    console = Console(flags.quiet)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            product, notes = import_weights(flags)
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

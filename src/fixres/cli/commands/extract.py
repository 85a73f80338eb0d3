"""The command `extract`: embeddings and probabilities of every picture as NumPy files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fixres.cli.commands.common import CheckpointFlags, open_checkpoint
from fixres.cli.parse import parse_flags
from fixres.errors import Stopped, started_rank
from fixres.inference.requests import ExtractRequest


@dataclass(frozen=True, kw_only=True)
class ExtractFlags(CheckpointFlags, ExtractRequest):
    """Flags of `fixres extract`."""

    out: Path
    """Folder for embedding.npy, labels.npy and index.csv, with softmax.npy and outcomes.npy where the head knows the
    classes; the same command goes on in it."""
    quiet: bool = False
    """Print results only."""


def extract(words: Sequence[str]) -> int:
    """`fixres extract CKPT --data URI [--split S] [--size N] --out DIR`."""
    flags = parse_flags(
        words, ExtractFlags, "fixres extract", "Embeddings and probabilities of every picture as NumPy files."
    )
    from fixres.io.files import require_writable_folder

    is_main = started_rank() == 0
    if is_main:
        require_writable_folder(flags.out)
    from fixres.cli.console import Console
    from fixres.inference.extract import extract as extract_product

    console = Console(flags.quiet or not is_main)
    product = open_checkpoint(console, flags, needs_head=False)
    if flags.size is not None:
        product = product.at(flags.size)
    console.preprocessing(product.preprocess, product.source)
    try:
        found = extract_product(product, flags, flags.out, console.bar("extracting"))
    except Stopped:
        console.say("stopped; the same command goes on")
        raise
    finally:
        console.close()
    if is_main:
        if found.num_resumed:
            console.say(f"{found.num_resumed:,} of {found.num_images:,} pictures were there already")
        for note in found.notes:
            console.say(f"note: {note}")
        for name in found.bad_images:
            console.warn(f"left out, cannot be read: {name}")
        made, folder = f"embedding.npy [{found.num_images}, {found.embedding_size}]", shlex.quote(str(flags.out))
        if found.why_no_softmax:
            console.say(f"no softmax.npy: {found.why_no_softmax}; labels are the collection's own")
            advice = f"fixres score {folder} --train FEATURES_OF_TRAIN --linear-probe"
        else:
            made, advice = f"{made}, softmax.npy [{found.num_images}, {found.num_classes}]", f"fixres score {folder}"
        console.say(f"{found.folder}: {made}\n  {advice}")
    return 0

"""The command `extract`: embeddings and probabilities of every picture as NumPy files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fixres.cli.parse import Positional, parse_flags
from fixres.errors import Stopped, started_rank


@dataclass(frozen=True)
class ExtractFlags:
    """Flags of `fixres extract`."""

    checkpoint: Annotated[str, Positional("CHECKPOINT")]
    """Run folder, model folder, weights file with --model, or timm: hf-hub: fixres: url: package: and a name."""
    out: Path
    """Folder for embedding.npy, softmax.npy, labels.npy, outcomes.npy, index.csv; the same command goes on in it."""
    data: str | None = None
    """Data URI; the product's own when left out."""
    split: Literal["train", "holdout", "val", "test", "all"] | None = None
    """Split to extract; the collection's reported one when left out."""
    size: Annotated[int, Field(ge=1)] | None = None
    """Size in pixels; the product's test size when left out."""
    weights: str = "fixed"
    """before_fix: with the tensors a fix moved as they were; raw or ema of a training checkpoint; FILE for timm:."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Pictures per batch; the one the product was measured with when left out."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Loader processes."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What an unreadable picture does; skip leaves its row out."""
    device: Literal["auto", "cpu", "cuda", "npu", "xpu", "mps"] = "auto"
    """Where to compute."""
    model: str | None = None
    """Architecture of a bare weights file."""
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
    from fixres.cli.commands.common import open_product
    from fixres.cli.console import Console
    from fixres.evaluation.measure import Request
    from fixres.inference.extract import extract as extract_product

    console = Console(flags.quiet or not is_main)
    product = open_product(console, flags.checkpoint, flags.weights, flags.model)
    if flags.size is not None:
        product = product.at(flags.size)
    console.preprocessing(product.preprocess, product.source)
    request = Request(
        data=flags.data,
        split=flags.split,
        batch_size=flags.batch_size,
        workers=flags.workers,
        on_bad_image=flags.on_bad_image,
        device=flags.device,
    )

    def progress(done: int, total: int) -> None:
        console({"event": "progress", "what": "extracting", "done": done, "total": total})

    try:
        found = extract_product(product, request, flags.out, progress)
    except Stopped:
        console.say("stopped; the same command goes on")
        raise
    finally:
        console.close()
    if is_main:
        if found.num_resumed:
            console.say(f"{found.num_resumed:,} of {found.num_images:,} pictures were there already")
        for name in found.bad_images:
            console.warn(f"left out, cannot be read: {name}")
        console.say(
            f"{found.folder}: embedding.npy [{found.num_images}, {found.embedding_size}], "
            f"softmax.npy [{found.num_images}, {found.num_classes}]\n  fixres score {shlex.quote(str(flags.out))}"
        )
    return 0

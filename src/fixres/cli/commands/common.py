"""Opening the checkpoint a command was given, with a bar while it is fetched and a line for what was found."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fixres.checkpoints.feeding_request import Feeding
from fixres.checkpoints.source import require_there
from fixres.cli.console import Console
from fixres.cli.parse import Positional
from fixres.errors import Stopped, UserError

if TYPE_CHECKING:
    from fixres.checkpoints.product import Product

_AS_IT_SAYS = Feeding()


@dataclass(frozen=True, kw_only=True)
class CheckpointFlags(Feeding):
    """Which checkpoint a command opens, and how it is fed."""

    checkpoint: Annotated[str, Positional("CHECKPOINT")]
    """Run folder, model folder, weights file with --model, or timm: hf-hub: fixres: url: package: and a name; after it
    #raw, #ema or #before_fix may say which weights."""
    model: str | None = None
    """Architecture of a bare weights file."""
    weights: str = "fixed"
    """before_fix: with the tensors a fix moved as they were; raw or ema of a training checkpoint; FILE for timm:."""

    def __post_init__(self) -> None:
        """Refuse a checkpoint that is not there before anything heavy is loaded."""
        if self.checkpoint:
            require_there(self.checkpoint)


@contextmanager
def interrupted_where_nothing_is_kept() -> Iterator[None]:
    """Turn a stop that elsewhere leaves something to resume into an interruption.

    Raises:
        KeyboardInterrupt: a signal came.
    """
    try:
        yield
    except Stopped:
        raise KeyboardInterrupt from None


def open_checkpoint(console: Console, flags: CheckpointFlags, *, needs_head: bool = True) -> Product:
    """Load the checkpoint a command is given, fed as its flags say.

    Raises:
        UserError: see `fixres.checkpoints.resolve.load`.
    """
    return open_product(console, flags.checkpoint, flags.weights, flags.model, flags, needs_head=needs_head)


def open_product(
    console: Console,
    source: str,
    weights: str = "fixed",
    model: str | None = None,
    feeding: Feeding = _AS_IT_SAYS,
    *,
    needs_head: bool = True,
) -> Product:
    """Load a checkpoint; weights that lie elsewhere are fetched first, with a bar.

    Raises:
        UserError: see `fixres.checkpoints.resolve.load`.
    """
    from fixres.checkpoints.resolve import fetch, load

    if source.startswith(("fixres:", "url:")):
        with closing(console):
            fetch(source, model, download_bar(console, source.rpartition("/")[2]), needs_head=needs_head)
    product = load(source, weights, model, feeding, needs_head=needs_head)
    for note in product.notes:
        (console.warn if note.startswith("warning: ") else console.say)(note.removeprefix("warning: "))
    return product


def download_bar(console: Console, name: str) -> Callable[[int, int | None], None]:
    """Return a function that shows (bytes done, bytes in all or None)."""

    def report(done: int, total: int | None) -> None:
        console.progress(f"MB of {name}", done >> 20, (total or done) >> 20)

    return report


def refuse_folder(path: Path | None) -> None:
    """Refuse a folder where a file is to be written.

    Raises:
        UserError: `path` is a folder.
    """
    if path is not None and path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file")


def write_answer(path: Path | None, answer: Any) -> None:
    """Write an answer as JSON to a file, to stdout for -, nowhere for None."""
    from fixres.io.files import write_text

    if path is None:
        return
    text = json.dumps(answer, indent=2) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
    else:
        write_text(path, text)

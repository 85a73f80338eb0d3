"""The command `predict`."""

from __future__ import annotations

import contextlib
import glob
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from fixres.checkpoints.feeding_request import given_changes
from fixres.cli.commands.common import CheckpointFlags, open_checkpoint
from fixres.cli.parse import Positional, parse_flags
from fixres.cli.prediction_columns import Carried, layout_of
from fixres.errors import EXIT_USER_ERROR, UserError, counted, started_rank, started_world
from fixres.inference.requests import PredictRequest
from fixres.io.files import is_special, require_writable_file, require_writable_folder

if TYPE_CHECKING:
    from fixres.checkpoints.product import Product
    from fixres.cli.console import Console
    from fixres.evaluation.promises import SetRule
    from fixres.inference.predict import Pictures

Format = Literal["table", "json", "jsonl", "csv", "parquet"]
RESUMABLE: tuple[Format, ...] = ("jsonl", "csv")
"""Formats a file of which can be gone on with."""


@dataclass(frozen=True, kw_only=True)
class PredictFlags(CheckpointFlags, PredictRequest):
    """Flags of `fixres predict`."""

    paths: Annotated[tuple[str, ...], Positional("PATHS")]
    """Pictures, folders, patterns, lists (.txt), - for stdin, and tables with a column of pictures (.csv .tsv .jsonl
    .parquet, or csv:FILE?image=COLUMN&root=DIR)."""
    cascade: bool = False
    """Use the two sizes that `eval --cascade SMALL,LARGE --save` kept in the product."""
    format: Format | None = None
    """Form of the output; left out: by the ending of --out, else a table for people."""
    keep: str = ""
    """Columns of the table that is given, A,B, which are carried into the output as they are."""
    columns: str = ""
    """Columns of the output in order, id,label: kept ones, path, size, label (the best class), name1, unsure, set,
    probability1, error, probabilities (one for each class), probability:CLASS; NAME=COLUMN calls one otherwise."""
    out: Path | None = None
    """Write here in place of stdout; it grows as OUT.part."""
    resume: bool = False
    """Go on with OUT.part of a JSONL or CSV file, or with what several processes have left of any file."""
    spreadsheet: bool = False
    """With --format csv: write ' before names that begin with = + - or @, which spreadsheets compute."""
    explain: Path | None = None
    """Folder for a picture of where the network looks, at the train and the test size."""
    quiet: bool = False
    """Print predictions only."""

    @property
    def style(self) -> Format:
        """The form of the output."""
        ending = self.out.suffix.lower().removeprefix(".") if self.out is not None else ""
        by_ending = {name: name for name in get_args(Format) if name != "table"}
        return self.format or by_ending.get(ending, "table")


def predict(words: Sequence[str]) -> int:
    """`fixres predict CKPT PATH... [--top-k 5] [--format table|json|jsonl|csv|parquet] [--out FILE] [--resume]`."""
    flags = parse_flags(
        words, PredictFlags, "fixres predict", "Classify pictures with the product's own preprocessing."
    )
    _check(flags)
    from fixres.cli.console import Console
    from fixres.cli.prediction_job import MANY_FAILURES, Job
    from fixres.cli.prediction_shares import Share
    from fixres.cli.prediction_writers import TextWriter
    from fixres.config.recipe import Runtime as RuntimeSettings
    from fixres.inference.cascade import CascadePredictor
    from fixres.inference.predict import Pictures, Predictor
    from fixres.inference.promised import promises_of
    from fixres.runtime.device import Runtime

    is_main = started_rank() == 0
    console = Console(flags.quiet or not is_main)
    product = open_checkpoint(console, flags)
    layout = layout_of(flags.keep, flags.columns, product.classes, flags.top_k)
    stdin = map(os.fsdecode, sys.stdin.buffer) if "-" in flags.paths else ()
    pictures = Pictures(_expand(flags.paths), stdin, layout.keep)
    for note in pictures.notes:
        console.say(f"note: {note}")
    if flags.size is not None and flags.size != product.preprocess.size:
        if not product.heads and is_main:
            console.warn(f"size {flags.size} differs from the product's test size {product.preprocess.size}")
        product = product.at(flags.size)
    console.preprocessing(product.preprocess, product.source)
    total = pictures.count()
    if total is not None:
        _say_passed_over(console, pictures)
    sets = None if flags.coverage is None else _promised_sets(console, product, flags.coverage)
    threshold = flags.threshold if flags.abstain is None else promises_of(product).abstains_below(flags.abstain)
    runtime = Runtime(RuntimeSettings(device=flags.device))
    runtime.keep_memory()
    make = partial(
        Predictor,
        runtime=runtime,
        top_k=layout.top_k or flags.top_k,
        batch_size=flags.batch_size,
        workers=_workers(flags, total),
        threshold=threshold,
        backend=flags.backend,
    )
    predictor = CascadePredictor(product, make) if flags.cascade else make(product)
    if isinstance(predictor, Predictor):
        predictor.sets = sets
    else:
        small, large = predictor.sizes
        what = "below p =" if predictor.deferral.by == "confidence" else "at an expected gain above"
        console.say(f"{small} px first, {large} px {what} {predictor.threshold:.4f}; {predictor.weights_why}")
    as_text = partial(
        TextWriter,
        style=flags.style,
        top_k=predictor.top_k,
        marks=[name for name, asked in (("set", sets), ("unsure", threshold)) if asked is not None],
        spreadsheet=flags.spreadsheet,
        layout=layout,
    )
    share = Share(runtime.processes.shard, flags.batch_size)
    job = Job(flags, console, predictor, share, Carried(share.of(pictures.rows())), total, as_text, layout)
    with contextlib.closing(console):
        num_failed = job.run()
    if total is None:
        _say_passed_over(console, pictures)
    if job.num_flawed > MANY_FAILURES:
        console.say(f"note: {counted(job.num_flawed, 'picture')} had something wrong and could be decoded")
    if num_failed > MANY_FAILURES:
        console.warn(f"{counted(num_failed, 'picture')} could not be read")
    # The first process knows them all; when another ends before it has spoken, torchrun ends it.
    return EXIT_USER_ERROR if runtime.processes.gather(num_failed)[0] else 0


def _promised_sets(console: Console, product: Product, coverage: float) -> SetRule:
    from fixres.inference.promised import promises_of

    found = promises_of(product)
    sets = found.sets(coverage)
    console.say(
        f"sets hold the right class for at least {100 * coverage:g} % of pictures like those of "
        f"{found.kept['split']}, of which {found.kept['num_certifying']:,} certify it"
    )
    return sets


def _say_passed_over(console: Console, pictures: Pictures) -> None:
    for line in pictures.passed_over.in_words():
        console.say(f"note: {line}")


def _check(flags: PredictFlags) -> None:
    """Refuse what cannot work before anything is loaded."""
    if flags.cascade and flags.size is not None:
        raise UserError("--cascade has two sizes of its own; leave --size out")
    if flags.cascade and (given := given_changes(flags)):
        raise UserError(
            f"--cascade has a threshold for pictures prepared as the product says\n  leave {' and '.join(given)} out"
        )
    promised = [f"--{name} {getattr(flags, name):g}" for name in ("coverage", "abstain") if getattr(flags, name)]
    if promised and flags.cascade:
        raise UserError(f"{promised[0]} is promised of one size\n  leave --cascade out")
    if promised and (given := given_changes(flags)):
        raise UserError(
            f"{promised[0]} is promised of pictures prepared as the product says\n  leave {' and '.join(given)} out"
        )
    if flags.abstain is not None and flags.threshold is not None:
        raise UserError("--abstain is a threshold with a promise; give it or --threshold")
    if flags.backend != "torch" and (flags.cascade or flags.device not in ("auto", "cpu")):
        raise UserError(f"--backend {flags.backend} computes one size on the CPU\n  leave --cascade and --device out")
    if flags.style == "parquet" and flags.out is None:
        raise UserError("Parquet goes to a file\n  add --out FILE.parquet")
    if flags.spreadsheet and flags.style != "csv":
        raise UserError(f"--spreadsheet is about CSV, the format is {flags.style}\n  add --format csv")
    if flags.style == "table" and (flags.keep or flags.columns):
        asked = "--keep" if flags.keep else "--columns"
        raise UserError(
            f"{asked} is about columns, which a table for people has not\n  add --format csv, or --out FILE.csv"
        )
    if (world := started_world()) > 1:
        if flags.out is None or is_special(flags.out):
            raise UserError(f"{world} processes write one file together\n  add --out FILE.csv, or start one process")
        if "-" in flags.paths:
            raise UserError(f"{world} processes share no stdin\n  name a list, FILE.txt, or start one process")
    elif flags.resume and (flags.out is None or flags.style not in RESUMABLE):
        raise UserError("--resume goes on with a file of rows\n  add --format jsonl (or csv) --out FILE")
    if flags.out is not None:
        require_writable_file(flags.out)
    if flags.explain is not None:
        require_writable_folder(flags.explain)


def _workers(flags: PredictFlags, total: int | None) -> int:
    from fixres.runtime.cpus import resolve_workers

    if flags.workers is not None:
        return flags.workers
    # For a few pictures, starting processes takes longer than reading them.
    return 0 if total is not None and total <= 2 * flags.batch_size else resolve_workers("auto")


def _expand(paths: Sequence[str]) -> list[str]:
    found: list[str] = []
    for path in paths:
        matches = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) and not Path(path).exists() else []
        found.extend(matches or [path])
    return found

"""The command `predict`."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from fixres.checkpoints.feeding_request import given_changes
from fixres.cli.commands.common import CheckpointFlags, open_checkpoint
from fixres.cli.parse import Positional, parse_flags
from fixres.cli.prediction_columns import Carried, Layout, layout_of, require_readable
from fixres.errors import EXIT_USER_ERROR, UserError, counted
from fixres.inference.requests import PredictRequest
from fixres.io.files import cannot_write, is_special, require_writable_file, require_writable_folder

if TYPE_CHECKING:
    from fixres.checkpoints.product import Product
    from fixres.cli.console import Console
    from fixres.cli.prediction_writers import TextWriter, Writer
    from fixres.inference.cascade import CascadePredictor
    from fixres.inference.predict import Pictures, Prediction, Predictor
    from fixres.runtime.device import Runtime

Format = Literal["table", "json", "jsonl", "csv", "parquet"]
RESUMABLE: tuple[Format, ...] = ("jsonl", "csv")
"""Formats a file of which can be gone on with."""
_MANY_FAILURES = 20
"""Warnings and notes about single pictures before they are only counted."""


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
    """Go on with OUT.part of a JSONL or CSV file."""
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
    from fixres.cli.prediction_writers import TextWriter
    from fixres.config.recipe import Runtime as RuntimeSettings
    from fixres.inference.cascade import CascadePredictor
    from fixres.inference.predict import Pictures, Predictor
    from fixres.inference.promised import promises_of
    from fixres.runtime.device import Runtime

    console = Console(flags.quiet)
    product = open_checkpoint(console, flags)
    layout = layout_of(flags.keep, flags.columns, product.classes, flags.top_k)
    stdin = map(os.fsdecode, sys.stdin.buffer) if "-" in flags.paths else ()
    pictures = Pictures(_expand(flags.paths), stdin, layout.keep)
    for note in pictures.notes:
        console.say(f"note: {note}")
    if flags.size is not None and flags.size != product.preprocess.size:
        if not product.heads:
            console.warn(f"size {flags.size} differs from the product's test size {product.preprocess.size}")
        product = product.at(flags.size)
    console.preprocessing(product.preprocess, product.source)
    total = pictures.count()
    if total is not None:
        _say_passed_over(console, pictures)
    sets = None if flags.coverage is None else promises_of(product).sets(flags.coverage)
    if flags.coverage is not None:
        kept = promises_of(product).kept
        console.say(
            f"sets hold the right class for at least {100 * flags.coverage:g} % of pictures like those of "
            f"{kept['split']}, of which {kept['num_certifying']:,} certify it"
        )
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
    job = _Job(flags, console, predictor, Carried(pictures.rows()), total, as_text, layout)
    with contextlib.closing(console):
        num_failed = job.run()
    if total is None:
        _say_passed_over(console, pictures)
    if job.num_flawed > _MANY_FAILURES:
        console.say(f"note: {counted(job.num_flawed, 'picture')} had something wrong and could be decoded")
    if num_failed > _MANY_FAILURES:
        console.warn(f"{counted(num_failed, 'picture')} could not be read")
    return EXIT_USER_ERROR if num_failed else 0


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
    if flags.resume and (flags.out is None or flags.style not in RESUMABLE):
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


@dataclass
class _Job:
    """One list of pictures on its way to its output."""

    flags: PredictFlags
    console: Console
    predictor: Predictor | CascadePredictor
    pictures: Carried
    total: int | None
    as_text: Callable[..., TextWriter]
    layout: Layout
    done: int = 0
    num_failed: int = 0
    num_flawed: int = 0

    def run(self) -> int:
        """Predict everything and return how many pictures could not be read."""
        flags, out = self.flags, self.flags.out
        if out is None:
            self._write(self.as_text(sys.stdout))
            return self.num_failed
        try:
            if is_special(out):
                self._pour(out)
            elif flags.style in RESUMABLE:
                self._append(out)
            else:
                self._replace(out)
        except OSError as error:
            raise cannot_write(out, error) from error
        return self.num_failed

    def _pour(self, out: Path) -> None:
        """Write to a device or a pipe, as /dev/stdout is."""
        if self.flags.style == "parquet":
            raise UserError(f"{out} is no ordinary file, which Parquet needs\n  --format jsonl, or the name of a file")
        with out.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            self._write(self.as_text(file))

    def _replace(self, out: Path) -> None:
        """Write a file that is only of use as a whole."""
        from fixres.cli.prediction_writers import ParquetWriter

        part = out.with_name(out.name + ".part")
        try:
            if self.flags.style == "parquet":
                self._write(ParquetWriter(part, self.layout, with_set=self.flags.coverage is not None))
            else:
                with part.open("w", encoding="utf-8", errors="surrogateescape") as file:
                    self._write(self.as_text(file))
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)

    def _append(self, out: Path) -> None:
        """Write a file of rows, or go on with one."""
        from fixres.checkpoints.fingerprint import cache_key
        from fixres.io.resumable_table import Unfinished, no_longer_asked

        flags, product = self.flags, self.predictor.product
        rows = Unfinished(out, "csv" if flags.style == "csv" else "jsonl", flags.spreadsheet, self.layout.error)
        made_by = {
            "size": product.preprocess.size,
            "cascade": flags.cascade,
            "backend": flags.backend,
            "top_k": self.predictor.top_k,
            "threshold": flags.threshold,
            **self._rules(),
            "batch_size": flags.batch_size,
            "format": f"{flags.style} --spreadsheet" if flags.spreadsheet else flags.style,
            "keep": flags.keep or None,
            "columns": flags.columns or None,
            "network": cache_key(product.model, product.preprocess, {}, {}),
        }
        if rows.exists() and not flags.resume:
            raise no_longer_asked(rows)
        if rows.exists():
            rows.require_same(made_by)
            self.done, self.num_failed = rows.keep(self.pictures, flags.batch_size, self._identity)
            self.console.say(f"goes on after {counted(self.done, 'picture')}")
        elif flags.resume and out.exists():
            self.console.say(f"{out} is complete\n  delete it to start over")
            return
        else:
            if flags.resume:
                self.console.say(f"nothing to go on with: there is no {rows.part}")
            rows.begin(made_by)
        try:
            with rows.part.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
                self._write(self.as_text(file, goes_on=file.tell() > 0))
        except KeyboardInterrupt:
            self.console.say(f"stopped; {rows.part} holds what is done: add --resume to go on")
            raise
        rows.finish()

    def _rules(self) -> dict[str, Any]:
        """Return what a product keeps that decides what is written, as far as it is used: it may be certified anew."""
        used = {"promises": self.flags.coverage or self.flags.abstain, "cascade": self.flags.cascade}
        kept = self.predictor.product.details
        asked = {"coverage": self.flags.coverage, "abstain": self.flags.abstain}
        return {name: value for name, value in asked.items() if value is not None} | {
            f"{name}_rule": hashlib.sha256(json.dumps(kept.get(name), sort_keys=True).encode()).hexdigest()[:16]
            for name, is_used in used.items()
            if is_used
        }

    def _write(self, writer: Writer) -> None:
        explain = _explainer(self.flags, self.predictor.product, self.predictor.runtime) if self.flags.explain else None
        # Where rows are gone on with, the batches are as large as they would have been.
        found = self.predictor(self.pictures, self.flags.batch_size if self.done else 0)
        while batch := list(islice(found, self.flags.batch_size)):
            require_readable(batch, self.layout, self.flags.style in RESUMABLE and self.flags.out is not None)
            writer.write(batch, [self.pictures.next_cells() for _ in batch])
            for number, prediction in enumerate(batch, self.done + 1):
                if prediction.flaw:
                    self._note(prediction)
                if prediction.error:
                    self._fail(prediction)
                elif explain is not None:
                    explain(prediction, number)
            self.done += len(batch)
            self.console.progress("predicting", self.done, self.total)
        writer.close()

    def _identity(self, path: str) -> Mapping[str, str]:
        """Return what the row of the picture that was taken last says of it."""
        return self.layout.identity(path, self.pictures.next_cells())

    def _note(self, prediction: Prediction) -> None:
        self.num_flawed += 1
        if self.num_flawed <= _MANY_FAILURES:
            self.console.say(f"note: {prediction.path}: {prediction.flaw}")

    def _fail(self, prediction: Prediction) -> None:
        self.num_failed += 1
        if self.num_failed <= _MANY_FAILURES:
            self.console.warn(f"{prediction.path}: {prediction.error}")
        elif self.num_failed == _MANY_FAILURES + 1:
            self.console.warn("more pictures cannot be read; they are counted")


def _explainer(flags: PredictFlags, product: Product, runtime: Runtime) -> Callable[[Prediction, int], None]:
    """Return what draws where the network looks for the class it names."""
    from fixres.checkpoints.resolve import unfixed
    from fixres.inference.grad_cam import Explainer, sights
    from fixres.io.files import shortened, write_with

    folder = flags.explain
    assert folder is not None
    before = unfixed(product)
    explainer = Explainer(sights(product, None if before is product else before), runtime)

    def draw(prediction: Prediction, number: int) -> None:
        page = explainer(prediction.path, product.classes.index(prediction.top[0][0]))
        # The number makes it unlike any other's.
        name = shortened(f"{number:06}-{Path(prediction.path).stem}", ".png")
        write_with(folder / name, lambda path: page.save(path, "PNG"))

    return draw


def _expand(paths: Sequence[str]) -> list[str]:
    found: list[str] = []
    for path in paths:
        matches = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) and not Path(path).exists() else []
        found.extend(matches or [path])
    return found

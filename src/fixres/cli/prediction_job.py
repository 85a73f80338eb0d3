"""One list of pictures on its way to its output, which one process writes, or several divide."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from fixres.checkpoints.fingerprint import cache_key
from fixres.checkpoints.product import Product
from fixres.cli.commands.predict import RESUMABLE, PredictFlags
from fixres.cli.console import Console
from fixres.cli.prediction_columns import Carried, Layout, require_readable
from fixres.cli.prediction_shares import (
    Batch,
    Share,
    ShareWriter,
    joined,
    remove,
    require_processes,
    share_file,
    share_files,
)
from fixres.cli.prediction_writers import ParquetWriter, TextWriter, Writer
from fixres.errors import UserError, counted
from fixres.inference.cascade import CascadePredictor
from fixres.inference.predict import Prediction, Predictor
from fixres.io.files import cannot_write, is_special, write_whole
from fixres.io.parquet import require_parquet
from fixres.io.resumable_table import Unfinished, no_longer_asked
from fixres.runtime.device import Runtime
from fixres.runtime.distributed import Processes

MANY_FAILURES = 20
"""Warnings and notes about single pictures before they are only counted."""
_ROUND_IMAGES = 256
"""Pictures, about, that each of several processes predicts before it hears of the others."""


@dataclass
class Job:
    """What is predicted, and how it is written."""

    flags: PredictFlags
    console: Console
    predictor: Predictor | CascadePredictor
    share: Share
    pictures: Carried
    total: int | None
    as_text: Callable[..., TextWriter]
    layout: Layout
    done: int = 0
    num_failed: int = 0
    num_flawed: int = 0

    def run(self) -> int:
        """Predict everything and return how many pictures could not be read; of several processes the first knows."""
        flags, out = self.flags, self.flags.out
        if out is None:
            self._write(self.as_text(sys.stdout))
            return self.num_failed
        processes = self.predictor.runtime.processes
        with _writing(out):
            if is_special(out):
                self._pour(out)
                return self.num_failed
            with processes.main_first():
                require_processes(out, processes.shard.world, flags.resume)
            if processes.shard.world > 1:
                self._divide(out, processes)
            elif flags.style in RESUMABLE:
                self._append(out)
            else:
                self._replace(out)
        return self.num_failed

    @contextmanager
    def _writer(self, path: Path) -> Iterator[Writer]:
        if self.flags.style == "parquet":
            yield ParquetWriter(path, self.layout, with_set=self.flags.coverage is not None)
            return
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            yield self.as_text(file)

    def _pour(self, out: Path) -> None:
        """Write to a device or a pipe, as /dev/stdout is."""
        if self.flags.style == "parquet":
            raise UserError(f"{out} is no ordinary file, which Parquet needs\n  --format jsonl, or the name of a file")
        with self._writer(out) as writer:
            self._write(writer)

    def _replace(self, out: Path) -> None:
        """Write a file that is only of use as a whole."""
        part = out.with_name(out.name + ".part")
        try:
            with self._writer(part) as writer:
                self._write(writer)
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)

    def _append(self, out: Path) -> None:
        """Write a file of rows, or go on with one."""
        flags = self.flags
        rows = Unfinished(out, "csv" if flags.style == "csv" else "jsonl", flags.spreadsheet, self.layout.error)
        if rows.exists() and not flags.resume:
            raise no_longer_asked(rows)
        if rows.exists():
            rows.require_same(self._made_by())
            self.done, self.num_failed = rows.keep(self.pictures, flags.batch_size, self._identity)
            self.console.say(f"goes on after {counted(self.done, 'picture')}")
        elif self._is_complete(out, f"there is no {rows.part}"):
            return
        else:
            rows.begin(self._made_by())
        with (
            self._telling_how_to_go_on(f"{rows.part} holds"),
            rows.part.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            self._write(self.as_text(file, goes_on=file.tell() > 0))
        rows.finish()

    def _divide(self, out: Path, processes: Processes) -> None:
        """Predict this process's share, and join all of them where this is the first process."""
        flags, rows, shares = self.flags, share_file(out, self.share.shard), share_files(out, self.share.shard.world)
        is_complete = False
        with processes.main_first():
            if flags.style == "parquet":
                require_parquet()
            if processes.is_main and not any(share.exists() for share in shares):
                is_complete = self._is_complete(out, "no process has left a share")
        if processes.gather(is_complete)[0]:
            return
        with processes.together(), _writing(rows.part):
            if rows.exists():
                rows.require_same(self._made_by())
                self.done, _ = rows.keep(self.pictures, flags.batch_size, self._kept)
            else:
                rows.begin(self._made_by())
        if done := sum(processes.gather(self.done)):
            self.console.say(f"goes on after {counted(done, 'picture')}")
        where = f"{out}.*-of-{len(shares)}.part hold"
        with self._telling_how_to_go_on(where), rows.part.open("a", encoding="utf-8") as file:
            self._write_in_rounds(rows.part, ShareWriter(file), processes)
        self.share.require_one_list(processes)
        with processes.main_first(), _writing(out):
            if processes.is_main:
                write_whole(out, lambda path: self._join(path, shares))
                remove(shares)

    def _is_complete(self, out: Path, why_not: str) -> bool:
        """Return whether there is nothing left to do, and say what `--resume` found where there is nothing begun."""
        if not self.flags.resume:
            return False
        is_complete = out.exists()
        said = f"{out} is complete\n  delete it to start over" if is_complete else f"nothing to go on with: {why_not}"
        self.console.say(said)
        return is_complete

    @contextmanager
    def _telling_how_to_go_on(self, where: str) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            self.console.say(f"stopped; {where} what is done: add --resume to go on")
            raise

    def _made_by(self) -> dict[str, Any]:
        """Return what decides how rows come out, which those that are gone on with must agree on."""
        flags, product = self.flags, self.predictor.product
        return {
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
        for batch, kept in self._batches():
            writer.write(batch, kept)
            self._tell(batch)
            self.console.progress("predicting", self.done, self.total)
        writer.close()

    def _write_in_rounds(self, path: Path, writer: ShareWriter, processes: Processes) -> None:
        """Write this process's share; an error of any process ends all of them after the round they are in."""
        batches, per_round = self._batches(), -(-_ROUND_IMAGES // self.flags.batch_size)
        before, done = -1, 0
        while before < done:
            with processes.together(), _writing(path):
                for batch, kept in islice(batches, per_round):
                    writer.write(batch, kept)
                    processes.note_step(self.done)
            before, done = done, sum(processes.gather(self.done))
            self.console.progress("predicting", done, self.total)

    def _join(self, path: Path, shares: list[Unfinished]) -> None:
        num_joined = 0
        with self._writer(path) as writer:
            for batch, kept in joined(shares, self.flags.batch_size, self.share.num_listed):
                writer.write(batch, kept)
                self._tell(batch)
                num_joined += len(batch)
                self.console.progress("joining", num_joined, self.share.num_listed)
            writer.close()

    def _batches(self) -> Iterator[Batch]:
        """Yield predictions with what is carried along of each, as they come."""
        flags = self.flags
        explain = _explainer(flags, self.predictor.product, self.predictor.runtime) if flags.explain else None
        # Where another batch has gone before, the batches are as large as that one was.
        found = self.predictor(self.pictures, flags.batch_size if self.share.place(self.done) else 0)
        while batch := list(islice(found, flags.batch_size)):
            can_resume = flags.style in RESUMABLE or self.share.shard.world > 1
            require_readable(batch, self.layout, can_resume and flags.out is not None)
            if explain is not None:
                for number, prediction in enumerate(batch, self.share.place(self.done) + 1):
                    if not prediction.error:
                        explain(prediction, number)
            self.done += len(batch)
            yield batch, [self.pictures.next_cells() for _ in batch]

    def _identity(self, path: str) -> Mapping[str, str]:
        """Return what the row of the picture that was taken last says of it."""
        return self.layout.identity(path, self.pictures.next_cells())

    def _kept(self, path: str) -> Mapping[str, Any]:
        """Return what the row of a share says of it."""
        return {"path": path, "kept": dict(self.pictures.next_cells())}

    def _tell(self, batch: list[Prediction]) -> None:
        """Say what was wrong with pictures, the first of many by name."""
        for prediction in batch:
            if prediction.flaw:
                self.num_flawed += 1
                if self.num_flawed <= MANY_FAILURES:
                    self.console.say(f"note: {prediction.path}: {prediction.flaw}")
            if prediction.error:
                self.num_failed += 1
                if self.num_failed <= MANY_FAILURES:
                    self.console.warn(f"{prediction.path}: {prediction.error}")
                elif self.num_failed == MANY_FAILURES + 1:
                    self.console.warn("more pictures cannot be read; they are counted")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into an error for people."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


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

"""One output of several processes: each keeps the predictions of its share beside it, and the first one joins them.

Batch b of the list belongs to process b % world, and is computed as one process would compute it, so that the file is
the same bit for bit. A share is a resumable table of its own, OUT.1-of-2.part, whatever the format of the output.
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import TextIO

from fixres.cli.prediction_columns import Cells
from fixres.errors import UserError, counted
from fixres.inference.predict import Prediction
from fixres.io.resumable_table import Unfinished
from fixres.runtime.distributed import Processes, Shard

Batch = tuple[list[Prediction], list[Cells]]
"""Predictions, and what is carried along of each."""


class Share:
    """The pictures of a list that are this process's."""

    def __init__(self, shard: Shard, batch_size: int) -> None:
        self.shard, self.batch_size = shard, batch_size
        self.num_listed = 0
        """Pictures of the whole list that have come by."""
        self._listed = hashlib.sha256()

    def of(self, rows: Iterable[tuple[str, Cells]]) -> Iterator[tuple[str, Cells]]:
        """Yield this process's batches of a list."""
        rank, world = self.shard
        for row in rows:
            is_own = self.num_listed // self.batch_size % world == rank
            self.num_listed += 1
            self._listed.update(repr(row).encode())
            if is_own:
                yield row

    def place(self, done: int) -> int:
        """Return where the picture after the first `done` of the share stands in the whole list, from 0."""
        batch, rest = divmod(done, self.batch_size)
        return (batch * self.shard.world + self.shard.rank) * self.batch_size + rest

    def require_one_list(self, processes: Processes) -> None:
        """Refuse shares of several lists, when all of them have come to their end.

        Raises:
            UserError: files were added or removed while the processes looked for them.
        """
        listed = processes.gather((self.num_listed, self._listed.hexdigest()))
        if other := next((rank for rank, found in enumerate(listed) if found != listed[0]), 0):
            raise UserError(
                f"the list of pictures changed while it was read: process 0 found {listed[0][0]:,}, process {other} "
                f"{listed[other][0]:,}\n  start again with --resume when nothing is added, removed or renamed any more"
            )


class ShareWriter:
    """Writes predictions to a share, ready to be read after every call."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, predictions: Sequence[Prediction], kept: Sequence[Cells]) -> None:
        """Write some more."""
        rows = zip(predictions, kept, strict=True)
        self._file.writelines(json.dumps({**vars(p), "kept": dict(cells)}) + "\n" for p, cells in rows)
        self._file.flush()


def share_file(out: Path, shard: Shard) -> Unfinished:
    """Return the table that holds the share of one process."""
    return Unfinished(out.with_name(f"{out.name}.{shard.rank + 1}-of-{shard.world}"), "jsonl")


def share_files(out: Path, world: int) -> list[Unfinished]:
    """Return the tables of all processes, in the order of their ranks."""
    return [share_file(out, Shard(rank, world)) for rank in range(world)]


def require_processes(out: Path, world: int, resume: bool) -> None:
    """Refuse to begin where another number of processes has left something to go on with, or several have.

    Raises:
        UserError: naming that number; or they are as many, and are not to `resume`.
    """
    begun = {1: f"{out.name}.part"} if Unfinished(out, "jsonl").exists() else {}
    for path in out.parent.glob(f"{glob.escape(out.name)}.*-of-*.part"):
        if found := re.fullmatch(r"\d+-of-(\d+)\.part", path.name.removeprefix(f"{out.name}.")):
            begun[int(found[1])] = f"{out.name}.*-of-{found[1]}.part*"
    for num in sorted(begun):
        # What one process left is refused, or gone on with, by who writes it.
        if num != world or (world > 1 and not resume):
            raise UserError(
                f"{out} was begun by {counted(num, 'process', 'processes')}"
                + (f", now there are {world}" if num != world else "")
                + f"\n  start {num} with --resume to go on; delete {begun[num]} in {out.parent} to start over"
            )


def joined(shares: Sequence[Unfinished], batch_size: int, num_listed: int) -> Iterator[Batch]:
    """Yield the batches of all shares in the order of the list.

    Raises:
        UserError: not all of them are to be seen from here.
    """
    everywhere = "--out has to be on a disk that every process sees"
    num_joined = 0
    with ExitStack() as stack:
        for share in shares:
            if not share.part.exists():
                raise UserError(f"{share.part} is not there\n  {everywhere}")
        files = [stack.enter_context(share.part.open(encoding="utf-8")) for share in shares]
        for file in cycle(files):
            rows = [json.loads(line) for line in islice(file, batch_size)]
            if not rows:
                break
            num_joined += len(rows)
            kept = [row.pop("kept") for row in rows]
            # JSON has made lists of the tuples, which is all the same to whoever writes them.
            yield [Prediction(**row) for row in rows], kept
    if num_joined < num_listed:
        raise UserError(f"the shares hold {num_joined:,} of {counted(num_listed, 'picture')}\n  {everywhere}")


def remove(shares: Iterable[Unfinished]) -> None:
    """Remove shares that were joined."""
    for share in shares:
        share.part.unlink(missing_ok=True)
        share.sheet.unlink(missing_ok=True)

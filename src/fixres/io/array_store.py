"""NumPy files of full size whose rows are written in any order, by several processes, across interruptions."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from fixres.errors import UserError

_PIECE = 4096
"""Rows copied at a time."""


class Rows:
    """Arrays of N rows in FOLDER/NAME.npy.part, and a byte per batch that says whether its rows are there.

    Rows are written with `pwrite`, not through a memory map: on a full disk that is an error, not a dead process.
    """

    def __init__(
        self, folder: Path, layout: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]], num_batches: int
    ) -> None:
        self.folder, self.layout, self.num_batches = folder, dict(layout), num_batches
        self._files: dict[str, tuple[int, int]] = {}
        self._unnoted: list[int] = []

    def num_bytes(self) -> int:
        """Return the bytes the files take."""
        return sum(int(np.prod(shape)) * kind.itemsize + 128 for shape, kind in self.layout.values()) + self.num_batches

    def part(self, name: str) -> Path:
        """Return the unfinished file of an array."""
        return self.folder / f"{name}.npy.part"

    @property
    def notes(self) -> Path:
        """The file with one byte per batch."""
        return self.folder / "batches.part"

    def create(self, filled: Mapping[str, np.ndarray]) -> None:
        """Make the files and reserve their place on the disk; `filled` are arrays that are known already.

        Raises:
            UserError: the disk is full.
        """
        with _disk(self.folder):
            for name, (shape, kind) in self.layout.items():
                path = self.part(name)
                array = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
                del array
                with path.open("r+b") as file:
                    _reserve(file.fileno(), path.stat().st_size)
                if name in filled:
                    np.lib.format.open_memmap(path, mode="r+")[:] = filled[name]
            self.notes.write_bytes(bytes(self.num_batches))

    def done(self) -> np.ndarray:
        """Return bool `[num_batches]`: whose rows are there; all, when the files are in place already."""
        if not self.notes.exists():
            return np.ones(self.num_batches, dtype=bool)
        return np.frombuffer(self.notes.read_bytes(), dtype=np.uint8).astype(bool)

    def read(self, name: str) -> np.ndarray:
        """Return an array mapped into memory, finished or not."""
        path = self.part(name)
        return load_array(path if path.exists() else path.with_suffix(""))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep the files open; on leaving, however that is, what was written is on the disk and noted."""
        try:
            for name in self.layout:
                path = self.part(name)
                offset = np.lib.format.open_memmap(path, mode="r").offset
                self._files[name] = os.open(path, os.O_WRONLY), offset
            yield
        finally:
            try:
                self.note()
            finally:
                for descriptor, _ in self._files.values():
                    os.close(descriptor)
                self._files.clear()

    def write(self, batch: int, first: int, blocks: Mapping[str, np.ndarray]) -> None:
        """Write the rows of a batch, which begin at row `first`; `note` makes them count.

        Raises:
            UserError: the disk is full.
        """
        with _disk(self.folder):
            for name, block in blocks.items():
                descriptor, offset = self._files[name]
                _write_all(
                    descriptor, np.ascontiguousarray(block).tobytes(), offset + first * (block.nbytes // len(block))
                )
        self._unnoted.append(batch)

    def note(self) -> None:
        """Bring what was written to the disk, then note its batches as done: never the other way round."""
        if not self._unnoted:
            return
        with _disk(self.folder):
            for descriptor, _ in self._files.values():
                os.fsync(descriptor)
            with self.notes.open("r+b") as notes:
                for batch in self._unnoted:
                    _write_all(notes.fileno(), b"\1", batch)
                os.fsync(notes.fileno())
        self._unnoted.clear()

    def finish(self, keep: Callable[[np.ndarray], np.ndarray]) -> None:
        """Give the files their names, in the order of the layout, without the rows that are not to be kept.

        An interrupted call can be repeated: a file that has its name already is left alone, and the array that says
        which rows are kept is the last.

        Args:
            keep: given the last array, returns bool `[N]`.

        Raises:
            UserError: the disk is full.
        """
        *_, last = self.layout
        if not self.part(last).exists():
            return
        kept = keep(self.read(last))
        with _disk(self.folder):
            for name in self.layout:
                if self.part(name).exists():
                    self._finish_one(name, kept)

    def _finish_one(self, name: str, kept: np.ndarray) -> None:
        part = self.part(name)
        final = part.with_suffix("")
        if kept.all():
            part.replace(final)
            return
        shape, kind = self.layout[name]
        shorter = self.folder / f"{name}.npy.kept"
        source = np.load(part, mmap_mode="r")
        target = np.lib.format.open_memmap(shorter, "w+", kind, (int(kept.sum()), *shape[1:]))
        place = 0
        for first in range(0, len(source), _PIECE):
            piece = source[first : first + _PIECE][kept[first : first + _PIECE]]
            target[place : place + len(piece)] = piece
            place += len(piece)
        target.flush()
        del source, target
        shorter.replace(final)
        part.unlink()

    def require_all(self) -> None:
        """Refuse a folder from which an array was taken away.

        Raises:
            UserError: one is not there.
        """
        for name in self.layout:
            if not self.part(name).with_suffix("").exists():
                raise UserError(f"{name}.npy is gone from {self.folder}\n  use another --out, or empty the folder")

    def forget(self) -> None:
        """Remove the notes, when everything else is in place."""
        with suppress(OSError):
            self.notes.unlink(missing_ok=True)


def load_array(path: Path) -> np.ndarray:
    """Return the array of a .npy file, mapped into memory.

    Raises:
        OSError, ValueError: it cannot be read as one.
    """
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _reserve(descriptor: int, num_bytes: int) -> None:
    # A sparse file would let the disk fill up half-way; not every system can reserve.
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, num_bytes)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write in {folder}: {error.strerror or error}\n  make room; the same command goes on"
        ) from error

"""Reading every picture of a collection on several processes, and what is noted about each."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from fixres.data.decode import BadImage, decode_with_flaw, open_header
from fixres.data.inspect.near_duplicates import likeness_hash, thumbnail
from fixres.data.picture_formats import FORMATS as DECODED
from fixres.data.splits import Encoded, Split
from fixres.errors import UserError
from fixres.io.progress import Progress

T = TypeVar("T")

FORMATS = ("no file", *DECODED, "other")
"""What the column `format` of the facts counts through; pictures that are no files have the first."""

TRAITS = ("grey", "CMYK", "16 bit", "transparency", "animation", "turned by EXIF")
"""What the bits of the column `traits` mean, lowest first."""

FACTS = np.dtype(
    [
        ("readable", "?"),
        ("digest", "<u8", (2,)),
        ("num_bytes", "<i8"),
        ("likeness", "<u8"),
        ("flat", "?"),
        ("width", "<i4"),
        ("height", "<i4"),
        ("format", "u1"),
        ("traits", "u1"),
    ]
)
"""One record per picture, 47 bytes; `digest` is the start of the SHA-256 of the file, or of the pixels without one."""

Facts = npt.NDArray[np.void]

_ORIENTATION = 0x0112
_LARGEST_CHUNK = 256


@dataclass(frozen=True)
class Scanned:
    """The facts about every picture, split by split; by row, those that cannot be read and those with wrong bytes."""

    splits: Mapping[str, Split]
    facts: Facts
    bad: dict[int, BadImage]
    flaws: dict[int, str]

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """The row at which every split begins."""
        return np.cumsum([0, *map(len, self.splits.values())])[:-1]

    def by_split(self, rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        """Return sorted rows, those of every split apart."""
        return np.split(rows, np.searchsorted(rows, self.starts[1:]))

    def origin(self, row: int) -> tuple[Split, int]:
        """Return the split of a row, and the place in it."""
        for split in self.splits.values():
            if row < len(split):
                return split, row
            row -= len(split)
        raise IndexError(row)


def scan(splits: Mapping[str, Split], workers: int, progress: Progress | None = None) -> Scanned:
    """Decode every picture of every split once. `progress` is told (pictures done, pictures in all).

    Raises:
        UserError: a process was killed.
    """
    scanned = Scanned(splits, np.zeros(sum(map(len, splits.values())), dtype=FACTS), {}, {})
    first = 0
    for _, _, (facts, bad, flaws) in in_chunks(splits, _examine_chunk, workers, progress):
        scanned.facts[first : first + len(facts)] = facts
        scanned.bad.update({first + row: error for row, error in bad.items()})
        scanned.flaws.update({first + row: flaw for row, flaw in flaws.items()})
        first += len(facts)
    return scanned


def in_chunks(
    splits: Mapping[str, Split],
    work: Callable[[Split, range], T],
    workers: int,
    progress: Progress | None = None,
) -> Iterator[tuple[str, int, T]]:
    """Yield (split, first place, `work(split, places)`) in order, with `work` done on `workers` processes, 0: here.

    `work` is a function of a module, or a partial of one.

    Raises:
        UserError: a process was killed.
    """
    total = sum(map(len, splits.values()))
    size = max(1, min(_LARGEST_CHUNK, total // (20 * max(workers, 1))))
    pieces = [
        (name, start, min(start + size, len(split)))
        for name, split in splits.items()
        for start in range(0, len(split), size)
    ]
    done = 0
    for (name, start, stop), result in zip(pieces, _results(splits, work, pieces, workers), strict=True):
        yield name, start, result
        done += stop - start
        if progress is not None:
            progress(done, total)


_JOB: dict[str, Any] = {}
"""What a reading process works on; set when it starts, so that it is sent once."""


def _results(
    splits: Mapping[str, Split], work: Callable[[Split, range], T], pieces: list[tuple[str, int, int]], workers: int
) -> Iterator[T]:
    if workers == 0 or len(pieces) < 2:
        yield from (work(splits[name], range(start, stop)) for name, start, stop in pieces)
        return
    # Forked processes share the list of paths; elsewhere it is sent to each of them.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    pool = ProcessPoolExecutor(min(workers, len(pieces)), context, _start, (splits, work))
    try:
        yield from pool.map(_run_piece, pieces)
    except BrokenProcessPool:
        raise UserError(
            "a process that reads pictures was killed, most likely for want of memory\n  try again with --workers 1"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start(splits: Mapping[str, Split], work: Callable[[Split, range], Any]) -> None:
    _JOB.update(splits=splits, work=work)
    torch.set_num_threads(1)
    # Ctrl-C reaches every process; the main one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run_piece(piece: tuple[str, int, int]) -> Any:
    name, start, stop = piece
    return _JOB["work"](_JOB["splits"][name], range(start, stop))


def _examine_chunk(split: Split, places: range) -> tuple[Facts, dict[int, BadImage], dict[int, str]]:
    facts = np.zeros(len(places), dtype=FACTS)
    bad: dict[int, BadImage] = {}
    flaws: dict[int, str] = {}
    for row, place in enumerate(places):
        try:
            flaw = _examine(split, place, facts[row])
        except BadImage as error:
            bad[row] = error
        except MemoryError:
            bad[row] = BadImage(split.paths[place], "too large for the memory of this machine")
        else:
            if flaw:
                flaws[row] = flaw
    return facts, bad, flaws


def _examine(split: Split, place: int, row: Any) -> str:
    """Fill the record of one picture and return what is wrong inside it; raises BadImage."""
    path, flaw = split.paths[place], ""
    if isinstance(split.source, Encoded):
        encoded = split.source.read_bytes(path)
        row["digest"], row["num_bytes"] = _digest(encoded), len(encoded)
        row["format"], row["traits"] = _header(encoded)
        image, flaw = decode_with_flaw(encoded, path, split.exif, split.alpha)
    else:
        image = split.read(place)
        pixels = np.asarray(image)
        row["digest"] = _digest(f"{pixels.shape}".encode() + pixels.tobytes())
    row["width"], row["height"] = image.size
    small = thumbnail(image)
    row["likeness"], row["flat"] = likeness_hash(small), np.ptp(small) < 8
    row["readable"] = True
    return flaw


def _digest(data: bytes) -> npt.NDArray[np.uint64]:
    return np.frombuffer(hashlib.sha256(data).digest()[:16], dtype="<u8")


def _header(encoded: bytes) -> tuple[int, int]:
    """Return format and traits as the file's header has them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_header(encoded) as image:
                kind = {"MPO": "JPEG"}.get(image.format or "", image.format)
                found = (
                    image.mode in ("1", "L", "LA") or image.mode.startswith("I"),
                    image.mode == "CMYK",
                    image.mode.startswith("I"),
                    image.has_transparency_data,
                    kind != "JPEG" and getattr(image, "n_frames", 1) > 1,
                    image.getexif().get(_ORIENTATION, 1) not in (0, 1),
                )
    except Exception:  # noqa: BLE001 - decoding says what is wrong with the file
        return 0, 0
    place = FORMATS.index(kind) if kind in FORMATS else len(FORMATS) - 1
    return place, sum(1 << bit for bit, is_so in enumerate(found) if is_so)


def wrong_type(path: str, kind: int) -> str:
    """Return what a file really is when its name says otherwise, for instance `JPEG`, else nothing."""
    says = Image.registered_extensions().get(os.path.splitext(path)[1].lower())  # noqa: PTH122 - a Path per file is slow
    return "" if says not in FORMATS or kind == 0 or FORMATS[kind] == says else FORMATS[kind]

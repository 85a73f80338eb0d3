"""Reading every picture of a collection on several processes, and what is noted about each."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from fixres.data.decode import BadImage, decode_with_flaw, open_header
from fixres.data.inspect.near_duplicates import likeness_hash, thumbnail
from fixres.data.picture_formats import FORMATS as DECODED
from fixres.data.read_in_processes import begin_picture, read_items
from fixres.data.splits import Encoded, Split
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
        UserError: a process was ended, or nothing came for too long.
    """
    scanned = Scanned(splits, np.zeros(sum(map(len, splits.values())), dtype=FACTS), {}, {})
    for row, (_, _, found) in enumerate(each_picture(splits, _examine, workers, progress)):
        if isinstance(found, BadImage):
            scanned.bad[row] = found
            continue
        scanned.facts[row], flaw = found
        if flaw:
            scanned.flaws[row] = flaw
    return scanned


def each_picture(
    splits: Mapping[str, Split],
    look: Callable[[Split, int], T],
    workers: int,
    progress: Progress | None = None,
) -> Iterator[tuple[str, int, T | BadImage]]:
    """Yield (split, place, `look(split, place)`) of every picture in order, looked at on `workers` processes, 0: here.

    What cannot be read has its BadImage there, a picture that keeps a process too long among it. `look` is a function
    of a module, or a partial of one.

    Raises:
        UserError: a process was ended, or nothing came for too long.
    """
    total = sum(map(len, splits.values()))
    size = max(1, min(_LARGEST_CHUNK, total // (20 * max(workers, 1))))
    pieces: list[_Piece] = []
    first = 0
    for name, split in splits.items():
        places = range(len(split))
        pieces += [_Piece(name, places[start : start + size], first + start) for start in places[::size]]
        first += len(split)
    done = 0
    with closing(read_items(_Looks(splits, look), pieces, min(workers, len(pieces)))) as made:
        for piece, results in zip(pieces, made, strict=True):
            for place, found in zip(piece.places, results, strict=True):
                yield piece.split, place, found
            done += len(results)
            if progress is not None:
                progress(done, total)


class _Piece(NamedTuple):
    """Some pictures of a split, of which the first is number `first` of all splits together."""

    split: str
    places: range
    first: int


@dataclass(frozen=True, eq=False)
class _Looks(Generic[T]):
    """Item `piece` is what was found in each of its pictures."""

    splits: Mapping[str, Split]
    look: Callable[[Split, int], T]

    def __getitem__(self, piece: _Piece) -> list[T | BadImage]:
        return [self._found(self.splits[piece.split], *numbered) for numbered in enumerate(piece.places, piece.first)]

    def _found(self, split: Split, number: int, place: int) -> T | BadImage:
        try:
            begin_picture(number, split.paths[place])
            return self.look(split, place)
        except BadImage as error:
            return error
        except MemoryError:
            return BadImage(split.paths[place], "too large for the memory of this machine")


def _examine(split: Split, place: int) -> tuple[Any, str]:
    """Return the record of one picture and what is wrong inside it; raises BadImage."""
    path, flaw, row = split.paths[place], "", np.zeros((), dtype=FACTS)
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
    return row[()], flaw


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

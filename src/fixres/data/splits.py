"""A split of a collection, and splits carved out of another one."""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, overload, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from fixres.data.decode import decode
from fixres.data.sampling import stratified_split
from fixres.errors import UserError, counted
from fixres.io.files import write_text
from fixres.resolution import Alpha, Exif

THIRDS = {"train": 0.6, "val": 0.2, "test": 0.2}
"""How a collection without splits of its own is divided."""

SPLIT_NAMES = {
    "train": "train",
    "holdout": "holdout",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
"""What people write in tables and shard names, and the split that is meant."""


_PIECE = 1 << 17


class Source(Protocol):
    """Reads a picture by its path inside the collection."""

    def read(self, path: str, exif: Exif, alpha: Alpha) -> Image.Image:
        """Return the RGB picture; raises BadImage."""

    def stamp(self, paths: Names) -> str:
        """Return a text that changes when the pictures at `paths` may have, without reading them."""


@runtime_checkable
class Encoded(Source, Protocol):
    """A source of encoded files."""

    def read_bytes(self, path: str) -> bytes:
        """Return the picture's file as it is; raises BadImage."""

    def read(self, path: str, exif: Exif, alpha: Alpha) -> Image.Image:
        """Return the RGB picture; raises BadImage."""
        return decode(self.read_bytes(path), path, exif, alpha)


@runtime_checkable
class OnDisk(Protocol):
    """A source whose pictures lie in files of this machine."""

    def files(self, paths: Names) -> tuple[Path, Names]:
        """Return a folder, and the files below it that hold the pictures at `paths`; none where those are elsewhere."""


class Names(Sequence[str]):
    """An immutable list of strings in one block of memory: a million paths pickle and fork without being touched."""

    __slots__ = ("_blob", "_ends")

    def __init__(self, names: Iterable[str]) -> None:
        # Filled as the names come: a list of ten million strings would be larger than anything else here.
        blob, ends = bytearray(), array("q", [0])
        for name in names:
            blob += name.encode("utf-8", "surrogateescape")
            ends.append(len(blob))
        self._blob: bytes | bytearray = blob
        self._ends = np.frombuffer(ends, dtype=np.int64)

    @classmethod
    def from_blob(cls, blob: bytes | bytearray, ends: npt.NDArray[np.int64]) -> Names:
        """Return names that lie one behind the other in `blob`; name i fills `ends[i]` to `ends[i + 1]`, UTF-8."""
        names = cls.__new__(cls)
        names._blob, names._ends = blob, ends
        return names

    def to_blob(self) -> tuple[bytes | bytearray, npt.NDArray[np.int64]]:
        """Return what `from_blob` takes."""
        return self._blob, self._ends

    def take(self, indices: npt.NDArray[np.int64]) -> Names:
        """Return the names at `indices`."""
        pieces = [slice(first, first + _PIECE) for first in range(0, len(indices), _PIECE)]
        ends = np.zeros(len(indices) + 1, dtype=np.int64)
        for piece in pieces:
            ends[1:][piece] = self._ends[indices[piece] + 1] - self._ends[indices[piece]]
        np.cumsum(ends, out=ends)
        blob = bytearray(int(ends[-1]))
        source, target = np.frombuffer(self._blob, dtype=np.uint8), np.frombuffer(blob, dtype=np.uint8)
        # In pieces: the places of all bytes at once would take eight times the memory of the bytes.
        for piece in pieces:
            starts, own = self._ends[indices[piece]], ends[piece.start : piece.stop + 1]
            shift = np.repeat(starts - own[:-1], np.diff(own))
            target[own[0] : own[-1]] = source[np.arange(own[0], own[-1]) + shift]
        return Names.from_blob(blob, ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Names: ...
    def __getitem__(self, index: int | slice) -> str | Names:
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self)), dtype=np.int64))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self._blob[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Names):
            return NotImplemented
        return self._blob == other._blob and np.array_equal(self._ends, other._ends)

    def __hash__(self) -> int:
        return hash(bytes(self._blob))

    def __repr__(self) -> str:
        return f"Names({len(self)})"


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled pictures in a fixed order. Cheap to pickle; pictures are read on demand."""

    name: str
    classes: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    paths: Names
    source: Source
    exif: Exif = "apply"
    alpha: Alpha = "white"
    subgroups: Names | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int, exif: Exif | None = None, alpha: Alpha | None = None) -> Image.Image:
        """Return picture `index` as RGB. `exif` and `alpha` default to the collection's own policy.

        Raises:
            BadImage: the picture cannot be read.
        """
        return self.source.read(self.paths[index], exif or self.exif, alpha or self.alpha)

    def counts(self) -> npt.NDArray[np.int64]:
        """Return the number of pictures of every class, int64 `[num_classes]`."""
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64, copy=False)

    def file_list_hash(self) -> str:
        """Return the SHA-256, in hexadecimal, of every path with its label, in order."""
        digest = hashlib.sha256()
        for path, label in zip(self.paths, self.labels.tolist(), strict=True):
            digest.update(f"{path}\0{label}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def stamp(self) -> str:
        """Return the SHA-256, in hexadecimal, of the file list and of what the source tells of its files' state."""
        return hashlib.sha256(f"{self.file_list_hash()}\n{self.source.stamp(self.paths)}".encode()).hexdigest()

    def take(self, name: str, indices: npt.NDArray[np.int64]) -> Split:
        """Return the pictures at `indices` as a split of its own."""
        return replace(
            self,
            name=name,
            labels=self.labels[indices],
            paths=self.paths.take(indices),
            subgroups=None if self.subgroups is None else self.subgroups.take(indices),
        )


def carve(split: Split, fractions: Mapping[str, float], seed: int, split_file: Path | None) -> dict[str, Split]:
    """Divide `split` into parts, stratified by class and subgroup; the first part is the remainder.

    When `split_file` exists it decides instead of the seed, after a check that the pictures are the same; otherwise
    it is written, so that the parts survive any change of this code.

    Raises:
        UserError: a part would be empty, or the saved split belongs to other pictures.
    """
    if split_file is not None and split_file.exists():
        parts = _load(split, tuple(fractions), split_file)
    else:
        parts = stratified_split(_strata(split), fractions, seed)
        empty = [name for name, indices in parts.items() if not len(indices)]
        if empty:
            raise UserError(
                f"{counted(len(split), 'picture')} are too few to carve out {' and '.join(empty)}"
                f" ({', '.join(f'{name} {share:.0%}' for name, share in fractions.items())})\n"
                f"  {math.ceil(1 / min(fractions.values()))} of a class are enough; or give train, val and test folders"
            )
        if split_file is not None:
            _save(split, parts, seed, split_file)
    return {name: split.take(name, indices) for name, indices in parts.items()}


def _strata(split: Split) -> npt.NDArray[np.int64]:
    """Return a number per class and subgroup, `[N]`."""
    if split.subgroups is None:
        return split.labels
    places: dict[str, int] = {}
    kinds = np.array([places.setdefault(kind, len(places)) for kind in split.subgroups], dtype=np.int64)
    return split.labels * len(places) + kinds


def _save(split: Split, parts: Mapping[str, npt.NDArray[np.int64]], seed: int, split_file: Path) -> None:
    remainder, *carved = parts
    content = {
        "of": {"num_images": len(split), "file_list_sha256": split.file_list_hash()},
        "split_seed": seed,
        "remainder": remainder,
        "parts": {name: [split.paths[i] for i in parts[name].tolist()] for name in carved},
    }
    write_text(split_file, json.dumps(content, indent=1))


def _load(split: Split, names: tuple[str, ...], split_file: Path) -> dict[str, npt.NDArray[np.int64]]:
    try:
        content: dict[str, Any] = json.loads(split_file.read_text(encoding="utf-8"))
        remainder, parts, made_of = content["remainder"], content["parts"], content["of"]
        saved_names = (remainder, *parts)
        saved = {path: name for name, paths in parts.items() for path in paths}
        saved_hash, saved_num = made_of["file_list_sha256"], made_of["num_images"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{split_file} is not a saved split\n  delete it to carve a new one") from None
    if saved_names != names:
        raise UserError(
            f"{split_file} holds the parts {', '.join(saved_names)}, but this collection is divided into "
            f"{', '.join(names)}\n  use another --out folder, or delete the file to carve a new split"
        )
    if saved_hash != split.file_list_hash():
        raise UserError(
            f"{split_file} was made for other pictures ({saved_num} then, {len(split)} now, names or classes differ)\n"
            "  restore the pictures, or use another --out folder to carve a new split"
        )
    owner = np.array([names.index(saved.get(path, remainder)) for path in split.paths])
    return {name: np.flatnonzero(owner == place).astype(np.int64) for place, name in enumerate(names)}

"""The index of shards: where every picture lies, and its label, in flat arrays on disk.

It is made once by reading the headers of every shard, and again for shards whose size or time (or ETag) changed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import tarfile
import zipfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from fixres.data.picture_formats import EXTENSIONS
from fixres.data.splits import Names
from fixres.errors import UserError
from fixres.io.files import write_with
from fixres.io.folder_walk import is_hidden

INDEX_NAME = "fixres-index.npz"
_VERSION = 1
_MAX_LABEL_BYTES = 4096
_ROWS = ("offsets", "sizes", "labels", "hashes")


@dataclass(frozen=True)
class Shard:
    """One shard: its name below the common folder, its size in bytes, and its time of change or ETag."""

    name: str
    size: int
    version: str


@dataclass(frozen=True, eq=False)
class Index:
    """Pictures of some shards, in the order of the shards and within them.

    `offsets`, `sizes` (bytes), `labels` (places in `texts`) and `hashes` are `[N]`; `counts` is `[num_shards]`.
    """

    shards: tuple[Shard, ...]
    texts: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]
    hashes: npt.NDArray[np.uint64]
    paths: Names
    """`SHARD/MEMBER`."""


@dataclass(frozen=True)
class Fresh:
    """An index that fits its shards, where it was saved (None: nothing had to be), and which shards had changed."""

    index: Index
    saved: Path | None = None
    changed: tuple[tuple[str, int, int], ...] = ()
    """Name, pictures in the index that was there, and pictures now."""


def name_hash(path: str) -> int:
    """Return 64 bits that stand for a path, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def up_to_date_index(
    shards: Sequence[Shard],
    open_shard: Callable[[Shard], IO[bytes]],
    places: Sequence[Path],
    is_gone: Callable[[str], bool],
) -> Fresh:
    """Return the index of `shards`, read from the first of `places` that has it, made where it is missing or stale.

    What had to be made is saved at the first place that can be written.

    Raises:
        UserError: a shard is no plain tar file, is cut, or holds samples that are none, or one of the index `is_gone`.
    """
    known = next(filter(None, map(_load, places)), None)
    old = {shard: number for number, shard in enumerate(known.shards)} if known else {}
    if known is not None and tuple(shards) == known.shards:
        return Fresh(known)
    gone = sorted(shard.name for shard in old if is_gone(shard.name))
    if gone:
        raise UserError(
            f"the index lists {', '.join(gone[:6])}, which {'is' if len(gone) == 1 else 'are'} gone\n"
            f"  bring back what is missing, or delete the index to go without it: {places[0]}"
        )
    has_all = all(shard in old for shard in shards)
    parts = [_part(known, old[shard]) if known and shard in old else scan(shard, open_shard) for shard in shards]
    index = _join(parts)
    _refuse_duplicates(index)
    if has_all:
        # A part of what is indexed already: saving it would forget the others.
        return Fresh(index)
    changed = _changed(known, index)
    for place in places:
        try:
            write_with(place, lambda temporary: _write(index, temporary))
        except UserError:
            continue
        return Fresh(index, place, changed)
    return Fresh(index, None, changed)


def _changed(known: Index | None, index: Index) -> tuple[tuple[str, int, int], ...]:
    """Return the shards that both list, where they differ in size, time or ETag."""
    before = {s.name: (s, num) for s, num in zip(known.shards, known.counts.tolist(), strict=True)} if known else {}
    return tuple(
        (shard.name, before[shard.name][1], num)
        for shard, num in zip(index.shards, index.counts.tolist(), strict=True)
        if shard.name in before and before[shard.name][0] != shard
    )


def scan(shard: Shard, open_shard: Callable[[Shard], IO[bytes]]) -> Index:
    """Return the index of one shard.

    Raises:
        UserError: it is no plain tar file, is cut, or holds samples that are none.
    """
    members: list[str] = []
    offsets, sizes, labels = array("q"), array("q"), array("i")
    texts: dict[str, int] = {}
    with open_shard(shard) as file:
        shown = (member for member in _members(shard, file) if not member.name.rpartition("/")[2].startswith("."))
        for key, sample in itertools.groupby(shown, _key):
            picture, label = _read_sample(shard, sample, file)
            if picture is None and label is None:
                continue
            if picture is None or label is None:
                what = "no picture" if picture is None else "no .cls beside its picture"
                raise UserError(
                    f"the shard {shard.name} has a sample without label or picture: {key} has {what}\n"
                    "  every sample is a picture and a file .cls of the same name, one behind the other"
                )
            members.append(f"{shard.name}/{picture.name}")
            offsets.append(picture.offset_data)
            sizes.append(picture.size)
            labels.append(texts.setdefault(label, len(texts)))
    return Index(
        (shard,),
        tuple(texts),
        np.array([len(members)], dtype=np.int64),
        np.frombuffer(offsets, dtype=np.int64),
        np.frombuffer(sizes, dtype=np.int64),
        np.frombuffer(labels, dtype=np.int32),
        np.fromiter(map(name_hash, members), dtype=np.uint64, count=len(members)),
        Names(members),
    )


def _key(member: tarfile.TarInfo) -> str:
    """Return what the files of a sample share: the path up to the first dot of the name."""
    folder, _, base = member.name.rpartition("/")
    return f"{folder}/" * bool(folder) + base.split(".")[0]


def _read_sample(
    shard: Shard, sample: Iterable[tarfile.TarInfo], file: IO[bytes]
) -> tuple[tarfile.TarInfo | None, str | None]:
    """Return the picture and the label among files that follow each other."""
    picture, label = None, None
    for member in sample:
        suffix = f".{member.name.rsplit('.', 1)[-1].lower()}"
        if suffix in EXTENSIONS and picture is not None:
            raise UserError(
                f"the shard {shard.name} has two pictures in one sample: {picture.name} and {member.name}\n"
                "  keep one, or name them differently before the first dot"
            )
        if suffix in EXTENSIONS:
            picture = member
        elif suffix == ".cls":
            label = _label(shard, member, file)
    return picture, label


def _label(shard: Shard, member: tarfile.TarInfo, file: IO[bytes]) -> str:
    where = f"the label {member.name} in the shard {shard.name}"
    if not 0 < member.size <= _MAX_LABEL_BYTES:
        raise UserError(f"{where} has {member.size} bytes\n  it is a class number or name in a line of text")
    place = file.tell()
    file.seek(member.offset_data)
    content = file.read(member.size)
    file.seek(place)
    try:
        text = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        text = ""
    if not text or "\n" in text or "\0" in text:
        raise UserError(f"{where} is no line of text\n  it is a class number or name in UTF-8")
    return text


def _members(shard: Shard, file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Yield the files of a shard, and make sure that its end is its end."""
    last = "its first member"
    try:
        archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - the caller closes the file
        while (member := archive.next()) is not None:
            if member.offset_data + member.size > shard.size:
                raise _cut(shard, member.name)
            # Otherwise it remembers every member it has seen.
            archive.members = []  # type: ignore[attr-defined]
            last = member.name
            # What macOS adds to an archive, ._NAME for every file, would be a sample of its own.
            if member.isreg() and not is_hidden(member.name.rpartition("/")[2]):
                yield member
        end = archive.offset
    except tarfile.ReadError as error:
        if last == "its first member" and "unexpected end" not in str(error):
            raise UserError(
                f"the shard {shard.name} is no plain tar file ({error})\n  unpack it if it is compressed, or remove it"
            ) from None
        raise _cut(shard, last) from None
    # tarfile takes a damaged header, or none, for the end of the archive.
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise _cut(shard, last)


def _cut(shard: Shard, member: str) -> UserError:
    return UserError(
        f"the shard {shard.name} is cut short or damaged at {member}: it has no end mark\n"
        "  fetch or write it again, or leave it out of the pattern"
    )


def _part(index: Index, number: int) -> Index:
    """Return the index of shard `number` alone."""
    start = int(index.counts[:number].sum())
    here = slice(start, start + int(index.counts[number]))
    rows = {name: getattr(index, name)[here] for name in (*_ROWS, "paths")}
    return replace(index, shards=(index.shards[number],), counts=index.counts[number : number + 1], **rows)


def _join(parts: Sequence[Index]) -> Index:
    """Return the index of all shards in order, the label texts made one list."""
    texts: dict[str, int] = {}
    labels = []
    for part in parts:
        table = np.array([texts.setdefault(text, len(texts)) for text in part.texts], dtype=np.int32)
        labels.append(table[part.labels])
    blobs, ends, length = [], [np.zeros(1, dtype=np.int64)], 0
    for part in parts:
        blob, own_ends = part.paths.to_blob()
        blobs.append(blob)
        ends.append(own_ends[1:] + length)
        length += len(blob)
    same = ("counts", "offsets", "sizes", "hashes")
    return Index(
        tuple(shard for part in parts for shard in part.shards),
        tuple(texts),
        labels=np.concatenate(labels),
        paths=Names.from_blob(b"".join(blobs), np.concatenate(ends)),
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in same},
    )


def _refuse_duplicates(index: Index) -> None:
    order = np.argsort(index.hashes, kind="stable")
    same = np.flatnonzero(index.hashes[order][1:] == index.hashes[order][:-1])
    if len(same):
        raise UserError(
            f"the shards hold {index.paths[int(order[same[0]])]} twice\n  write them again with names that differ"
        )


def _write(index: Index, path: Path) -> None:
    shards = [[shard.name, shard.size, shard.version] for shard in index.shards]
    header = json.dumps({"version": _VERSION, "shards": shards, "labels": index.texts}).encode()
    blob, ends = index.paths.to_blob()
    arrays = {name: getattr(index, name) for name in ("counts", *_ROWS)}
    with path.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            header=np.frombuffer(header, dtype=np.uint8),
            blob=np.frombuffer(blob, dtype=np.uint8),
            ends=ends,
            **arrays,
        )


def _load(path: Path) -> Index | None:
    """Return the saved index; None when there is none, or it is damaged: then it is made again."""
    if not path.is_file() or not os.access(path, os.R_OK):
        return None
    try:
        with np.load(path, allow_pickle=False) as saved:
            header = json.loads(saved["header"].tobytes())
            blob = saved["blob"].tobytes()
            arrays = {name: saved[name] for name in ("counts", *_ROWS, "ends")}
            if header["version"] != _VERSION:
                return None
        shards = tuple(Shard(str(name), int(size), str(version)) for name, size, version in header["shards"])
        paths = Names.from_blob(blob, arrays.pop("ends"))
        index = Index(shards, tuple(header["labels"]), paths=paths, **arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    num = int(index.counts.sum())
    lengths = {len(getattr(index, name)) for name in (*_ROWS, "paths")}
    return index if lengths == {num} and len(index.counts) == len(shards) else None

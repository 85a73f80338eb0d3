"""Reading pictures out of shards at their places, from any process."""

from __future__ import annotations

import os
import tarfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from fixres.data.decode import BadImage
from fixres.data.shards.index import Index, name_hash
from fixres.data.shards.remote import RemoteError, piece
from fixres.data.sources.uri import is_remote
from fixres.data.splits import Encoded, Names

_HEADER = tarfile.BLOCKSIZE
_MAX_OPEN = 64


class Shards(Encoded):
    """Pictures by their path `SHARD/MEMBER`, found by its hash. Pickles and forks without sharing a file position."""

    def __init__(self, root: str, index: Index) -> None:
        self.root = root
        self.shards = index.shards
        order = np.argsort(index.hashes, kind="stable")
        self.hashes = index.hashes[order]
        self.offsets = index.offsets[order]
        self.sizes = index.sizes[order]
        self.numbers = np.repeat(np.arange(len(index.shards), dtype=np.int32), index.counts)[order]
        self._open: OrderedDict[int, int] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __del__(self) -> None:
        for descriptor in getattr(self, "_open", {}).values():
            os.close(descriptor)

    def read_bytes(self, path: str) -> bytes:
        """Return the picture's file as it is in the shard; raises BadImage."""
        wanted = np.uint64(name_hash(path))
        place = int(np.searchsorted(self.hashes, wanted))
        if place == len(self.hashes) or self.hashes[place] != wanted:
            raise BadImage(path, "not in the index of the shards")
        number, start, size = int(self.numbers[place]), int(self.offsets[place]), int(self.sizes[place])
        # The header goes along: it tells whether the index still fits the shard.
        content = self._bytes(path, number, start - _HEADER, size + _HEADER)
        if not _is_header(content[:_HEADER], size):
            raise BadImage(path, "the index does not match its shard; delete fixres-index.npz and open it again")
        return content[_HEADER:]

    def files(self, paths: Names) -> tuple[Path, Names]:
        """Return the folder and all its shards, whichever hold the pictures; none of a server's."""
        return Path(self.root), Names(() if is_remote(self.root) else [shard.name for shard in self.shards])

    def stamp(self, paths: Names) -> str:
        """Return where the shards lie, and the size and the time of change or ETag of each."""
        states = "".join(f"{shard.name} {shard.size} {shard.version}\n" for shard in self.shards)
        return f"{self.root}\n{states}"

    def _bytes(self, path: str, number: int, start: int, length: int) -> bytes:
        shard = self.shards[number]
        if is_remote(self.root):
            try:
                return piece(self.root + shard.name, start, length, shard.version)
            except RemoteError as error:
                raise BadImage(path, f"its shard cannot be read ({error})") from None
        try:
            descriptor = self._descriptor(number)
            pieces: list[bytes] = []
            while length:
                found = os.pread(descriptor, length, start)
                if not found:
                    raise BadImage(path, f"its shard {shard.name} is cut short")
                pieces.append(found)
                start, length = start + len(found), length - len(found)
        except OSError as error:
            raise BadImage(path, f"its shard cannot be read ({error.strerror})") from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _descriptor(self, number: int) -> int:
        if number not in self._open:
            if len(self._open) >= _MAX_OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[number] = os.open(Path(self.root) / self.shards[number].name, os.O_RDONLY | os.O_CLOEXEC)
        self._open.move_to_end(number)
        return self._open[number]


def _is_header(block: bytes, size: int) -> bool:
    """Return whether `block` is the header of a member of `size` bytes."""
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").size == size
    except tarfile.HeaderError:
        return False

"""What the file system tells of many files, and short names for their contents."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fixres.io.progress import Progress

HASH_BYTES = 16
_PIECE = 4096
_ASKING = 16


def file_states(root: Path, names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return size in bytes and time of change in nanoseconds of every file below `root`, int64 `[N, 2]`.

    A file that cannot be asked has size -1, and the number of its error in place of the time.
    """
    return _of_all(lambda name: _state(_path(root, name)), names, np.dtype((np.int64, 2)))


def file_hashes(root: Path, names: Sequence[str], progress: Progress | None = None) -> npt.NDArray[np.uint8]:
    """Return BLAKE2b of the content of every file below `root`, uint8 `[N, HASH_BYTES]`; zeros where there is none."""
    return _of_all(lambda name: _hash(_path(root, name)), names, np.dtype((np.uint8, HASH_BYTES)), progress)


def _of_all(
    ask: Callable[[str], Any], names: Sequence[str], dtype: np.dtype[Any], progress: Progress | None = None
) -> npt.NDArray[Any]:
    """Return what `ask` says of every name, one row each.

    Several are asked at once: a network's disk answers each of a million questions late.
    """
    answers = np.zeros(len(names), dtype=dtype)

    def fill(first: int) -> int:
        piece = slice(first, min(first + size, len(names)))
        answers[piece] = [ask(name) for name in names[piece]]
        return piece.stop

    size = min(_PIECE, max(1, len(names) // _ASKING))
    with ThreadPoolExecutor(_ASKING) as pool:
        for done in pool.map(fill, range(0, len(names), size)):
            if progress is not None:
                progress(done, len(names))
    return answers


def _path(root: Path, name: str) -> str:
    return os.path.join(root, name)  # noqa: PTH118 - a Path per file is slow


def _state(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path per file is slow
    except OSError as error:
        return -1, error.errno or 0
    return found.st_size, found.st_mtime_ns


def _hash(path: str) -> list[int]:
    # A pipe would be waited for, a device has no end.
    with suppress(OSError):
        if Path(path).is_file():
            with Path(path).open("rb") as file:
                return list(hashlib.file_digest(file, _new_hash).digest())
    return [0] * HASH_BYTES


def _new_hash() -> Any:
    return hashlib.blake2b(digest_size=HASH_BYTES)

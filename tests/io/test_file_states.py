"""What the file system tells of many files, and what stands for their contents."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from fixres.io.file_states import HASH_BYTES, file_hashes, file_states


def test_sizes_and_times_of_many_files_in_their_order(tmp_path: Path) -> None:
    names = [f"{number:05}" for number in range(5000)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(b"x" * (number % 7))
        os.utime(tmp_path / name, ns=(0, 10**18 + number))
    found = file_states(tmp_path, names)
    assert found.dtype == np.int64
    assert found[:, 0].tolist() == [number % 7 for number in range(5000)]
    assert found[:, 1].tolist() == [10**18 + number for number in range(5000)]
    assert file_states(tmp_path, []).shape == (0, 2)


def test_a_file_that_is_not_there_has_no_size_and_no_hash(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert file_states(tmp_path, ["gone"])[0, 0] == -1
    assert not file_hashes(tmp_path, ["gone", "pipe"]).any()


def test_equal_contents_have_equal_hashes_and_absolute_names_are_read_where_they_lie(tmp_path: Path) -> None:
    for name, content in (("a", b"one"), ("b", b"two"), ("c", b"one")):
        (tmp_path / name).write_bytes(content)
    told: list[tuple[int, int]] = []
    found = file_hashes(
        tmp_path / "elsewhere", [str(tmp_path / name) for name in "abc"], lambda done, total: told.append((done, total))
    )
    assert found[0].tobytes() == found[2].tobytes() == hashlib.blake2b(b"one", digest_size=HASH_BYTES).digest()
    assert found[1].tobytes() != found[0].tobytes()
    assert told[-1] == (3, 3)

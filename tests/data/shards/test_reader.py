"""Pictures out of shards: never wrong ones, and for several processes at a time."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fixres.data.decode import BadImage
from fixres.data.splits import Split
from tests.support.opening import opened
from tests.support.tar_shards import samples, shard, three, values


def test_a_shard_that_changes_after_it_was_indexed_is_never_read_wrongly(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", samples(range(30)))
    status = path.stat()
    split = opened(f"wds:{tmp_path}").split("train")
    last = max(range(len(split)), key=lambda k: split.paths[k])
    shard(path, [("extra.txt", "x" * 600), *samples(range(30))])
    with path.open("r+b") as file:
        file.truncate(status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = opened(f"wds:{tmp_path}").split("train")
    with pytest.raises(BadImage, match="the index does not match its shard"):
        again.read(0)
    with path.open("r+b") as file:
        file.truncate(2000)
    with pytest.raises(BadImage, match="cut short"):
        again.read(last)
    path.unlink()
    elsewhere = pickle.loads(pickle.dumps(again))
    with pytest.raises(BadImage, match=r"0\.tar/.*: its shard cannot be read \(No such file"):
        elsewhere.read(0)


def _read_in_process(split: Split, places: Sequence[int], queue: Any) -> None:
    queue.put([split.read(k).getpixel((0, 0))[0] for k in places])  # type: ignore[index]


def test_processes_share_no_file_position(tmp_path: Path) -> None:
    split = opened(f"wds:{three(tmp_path)}").split("train")
    assert values(split) == list(range(20))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    orders = [random.Random(seed).choices(range(20), k=200) for seed in range(3)]
    workers = [context.Process(target=_read_in_process, args=(split, order, queue)) for order in orders]
    for worker in workers:
        worker.start()
    answers = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(answers) == sorted(orders)

"""Loader processes: order, failures, slow pictures, full shared memory, and signals while nothing comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from fixres.data.decode import BadImage
from fixres.data.read_in_processes import (
    ReadingStuckError,
    Waiting,
    _packed,
    _unpacked,
    begin_picture,
    read_items,
)
from fixres.errors import Stopped, UserError
from fixres.runtime import worker_process
from fixres.runtime.signals import StopSignals
from tests.support.processes import all_end_within


class Item(NamedTuple):
    """What a worker sends."""

    views: tuple[Tensor, ...]
    number: int


class Items:
    """Item k is a channels-last picture of k; `act` may do something on the way."""

    def __init__(self, act: Any = None) -> None:
        self.act = act

    def __getitem__(self, key: int) -> Item:
        if self.act is not None:
            self.act(key)
        return Item((torch.full((2, 5, 4, 3), key % 256, dtype=torch.uint8).permute(0, 3, 1, 2),), key)


@pytest.mark.parametrize("workers", [0, 1, 3, 9])
def test_items_come_in_order_whoever_makes_them(workers: int) -> None:
    found = list(read_items(Items(lambda key: time.sleep(0.01 * (key % 3 == 0))), range(25), workers))
    assert [item.number for item in found] == list(range(25))
    assert all(item.views[0].is_contiguous(memory_format=torch.channels_last) for item in found)


def test_keys_are_taken_a_few_ahead_only() -> None:
    taken = []
    keys = (taken.append(key) or key for key in range(100))
    items = read_items(Items(), keys, 2)
    for _ in range(3):
        next(items)
    items.close()
    assert len(taken) <= 3 + 2 * 2


def _fail(key: int) -> None:
    if key == 4:
        raise KeyError("of the work")


@pytest.mark.parametrize("workers", [0, 2])
def test_what_the_work_raises_is_raised_in_its_place(workers: int) -> None:
    items = read_items(Items(_fail), range(9), workers)
    assert [next(items).number for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(KeyError, match="of the work"):
        next(items)


def _die(key: int) -> None:
    if key == 4:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_an_error_for_people() -> None:
    start = time.monotonic()
    with pytest.raises(ReadingStuckError, match=r"ended by SIGKILL.*memory(?s:.*)fewer workers"):
        list(read_items(Items(_die), range(9), 2))
    assert time.monotonic() - start < 10


def _stop_self(key: int) -> None:
    if key == 4:
        os.kill(os.getpid(), signal.SIGSTOP)


def test_a_process_that_is_stopped_is_named_after_the_longest_wait() -> None:
    start = time.monotonic()
    with pytest.raises(ReadingStuckError, match=r"process \d+ is stopped(?s:.*)FIXRES_WAIT_SECONDS"):
        list(read_items(Items(_stop_self), range(9), 2, Waiting(wait_seconds=2)))
    # It is gone as well: a stopped process does not hear an order to end, only a kill.
    assert time.monotonic() - start < 15


class ManySlow:
    """Batches of three pictures, of which each takes nearly as long as is waited for."""

    def __getitem__(self, key: int) -> int:
        for number in range(3):
            begin_picture(3 * key + number, "slow.jpg")
            time.sleep(1)
        return key


def test_a_process_that_goes_on_to_the_next_picture_is_not_stuck() -> None:
    assert list(read_items(ManySlow(), range(1), 1, Waiting(wait_seconds=1.5))) == [0]


def test_a_signal_is_heard_while_nothing_comes() -> None:
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    start = time.monotonic()
    with StopSignals(), pytest.raises(Stopped):
        list(read_items(Items(_stop_self), range(9), 2))
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan"])
def test_a_time_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIXRES_WAIT_SECONDS", text)
    with pytest.raises(UserError, match="FIXRES_WAIT_SECONDS=300"):
        list(read_items(Items(), range(2), 1))


class Slow:
    """Batches of two pictures, of which one takes for ever to decode."""

    def __getitem__(self, key: int) -> tuple[int, list[str]]:
        bad = []
        for number in (2 * key, 2 * key + 1):
            try:
                begin_picture(number, f"{number}.jpg")
                while number == 5:
                    pass
            except BadImage as error:
                bad.append(str(error))
        return key, bad


def test_a_picture_that_takes_too_long_is_left_out_and_its_batch_made_by_another() -> None:
    found = list(read_items(Slow(), range(6), 2, Waiting(decode_seconds=1)))
    assert [key for key, _ in found] == list(range(6))
    assert [bad for _, bad in found] == [
        [],
        [],
        ["5.jpg: decoding takes longer than FIXRES_DECODE_SECONDS allows"],
        [],
        [],
        [],
    ]


def test_batches_need_no_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers have 64 MB of it; torch's own loader waits for ever where a batch does not fit."""
    for call in ("_share_fd_cpu_", "_share_filename_cpu_"):
        monkeypatch.setattr(torch.UntypedStorage, call, _full)
    found = list(read_items(Items(), range(12), 2))
    for number, item in enumerate(found):
        assert (item.views[0] == number).all()
        assert item.views[0].is_contiguous(memory_format=torch.channels_last)


def _full(*_: Any) -> None:
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


@pytest.mark.parametrize("has_memory", [True, False])
def test_items_of_any_size_come_whole(has_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "_HAS_MEMORY", has_memory)
    found = list(read_items(Large(), range(5), 2))
    for key, (large, empty, text) in enumerate(found):
        assert large.shape == (key, 1 << 20)
        assert (large == key).all()
        assert empty.shape == (0, 3)
        assert text == "x" * key
        large += 1  # it is memory of one's own


class Large:
    """Item k is k megabytes, nothing, and a text."""

    def __getitem__(self, key: int) -> tuple[Tensor, Tensor, str]:
        return torch.full((key, 1 << 20), key, dtype=torch.uint8), torch.zeros(0, 3), "x" * key


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 1, 1), (1, 1, 4, 5)])
def test_a_tensor_survives_the_way_through_a_pipe_with_its_layout(shape: tuple[int, ...]) -> None:
    tensor = torch.arange(max(1, torch.Size(shape).numel())).reshape(-1)[: torch.Size(shape).numel()].reshape(shape)
    for made in (tensor, tensor.permute(tuple(reversed(range(tensor.dim()))))):
        back = _unpacked(_packed((made, "text")))
        assert torch.equal(back[0], made)
        assert back[0].shape == made.shape
        assert back[1] == "text"


def test_workers_end_with_a_parent_that_is_killed_whatever_they_do(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, pathlib, sys, time\n"
        "from fixres.data.read_in_processes import read_items\n"
        "class Items:\n"
        "    def __getitem__(self, key):\n"
        "        while key >= 20:\n"
        "            pass\n"
        "        return os.getpid()\n"
        "if __name__ == '__main__':\n"
        "    items = read_items(Items(), range(1000), 2)\n"
        "    pids = {next(items) for _ in range(20)}\n"
        "    print(*pids, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    assert pids
    assert all_end_within(10, pids)

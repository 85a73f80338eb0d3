"""Pictures looked at by several processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from fixres.config.recipe import Data
from fixres.data.decode import BadImage
from fixres.data.inspect import scan
from fixres.data.inspect.check import check
from fixres.data.splits import Split
from fixres.errors import UserError
from tests.support.scenes import paths, train_split

SLOW = "cat/07.jpg"


def _die(split: Split, place: int) -> None:
    os._exit(9)


def test_a_killed_process_is_said(sound: Path) -> None:
    with pytest.raises(UserError, match="ended with code 9"):
        list(scan.each_picture({"train": train_split(sound)}, _die, 2))


def _stop_self(split: Split, place: int) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def test_a_stopped_process_is_named_after_the_longest_wait(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIXRES_WAIT_SECONDS", "2")
    with pytest.raises(UserError, match=r"process \d+ is stopped"):
        list(scan.each_picture({"train": train_split(sound)}, _stop_self, 1))


def _place(split: Split, place: int) -> tuple[str, int]:
    if place == 3:
        raise MemoryError
    return split.name, place


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_come_in_order_and_one_too_large_for_the_memory_is_no_end(sound: Path, workers: int) -> None:
    split = train_split(sound)
    progress: list[tuple[int, int | None]] = []
    found = list(
        scan.each_picture({"a": split, "b": split}, _place, workers, lambda done, total: progress.append((done, total)))
    )
    assert [(name, place) for name, place, _ in found] == [(name, place) for name in "ab" for place in range(24)]
    assert [place for _, place, answer in found if isinstance(answer, BadImage)] == [3, 3]
    assert progress[-1] == (48, 48)


def test_a_picture_that_decodes_for_ever_is_reported_and_the_rest_goes_on(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = scan.decode_with_flaw

    def decode_slowly(data: bytes, path: str, *how: Any) -> Any:
        while path.endswith(f"train/{SLOW}"):
            pass
        return decode(data, path, *how)

    monkeypatch.setattr(scan, "decode_with_flaw", decode_slowly)
    monkeypatch.setenv("FIXRES_DECODE_SECONDS", "1")
    report = check(Data(uri=f"folder:{sound}"), 2)
    assert [path[0][-len(SLOW) :] for path in paths(report, "too slow")] == [SLOW]
    assert list(report.of("error")) == ["too slow"]

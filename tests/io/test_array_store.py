"""Arrays whose rows are written in any order and across interruptions: in the end the files are always the same."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres.errors import UserError
from fixres.io.array_store import Rows, load_array
from tests.support.several import run_processes

NUM_ROWS, BATCH = 23, 5
NUM_BATCHES = 5
KIND = np.dtype([("number", "<i4"), ("loss", "<f8")])
GENERATOR = np.random.default_rng(0)
ARRAYS: dict[str, np.ndarray] = {
    "embedding": GENERATOR.normal(size=(NUM_ROWS, 4)).astype(np.float16),
    "outcomes": np.array(list(zip(range(NUM_ROWS), GENERATOR.random(NUM_ROWS), strict=True)), dtype=KIND),
}
KEPT = np.arange(NUM_ROWS) % 7 != 3


def rows_in(folder: Path) -> Rows:
    return Rows(folder, {name: (array.shape, array.dtype) for name, array in ARRAYS.items()}, NUM_BATCHES)


def write(rows: Rows, batch: int) -> None:
    places = slice(batch * BATCH, (batch + 1) * BATCH)
    rows.write(batch, batch * BATCH, {name: array[places] for name, array in ARRAYS.items()})


def write_all(rows: Rows) -> None:
    with rows.writing():
        for batch in np.flatnonzero(~rows.done()).tolist():
            write(rows, batch)


def finish(folder: Path, kept: np.ndarray) -> dict[str, np.ndarray]:
    """Give the files their names, without the rows that are not kept, and return what they hold."""
    rows = rows_in(folder)
    rows.finish(lambda outcomes: kept[outcomes["number"]])
    rows.forget()
    assert sorted(path.name for path in folder.iterdir()) == ["embedding.npy", "outcomes.npy"]
    return {name: np.load(folder / f"{name}.npy") for name in ARRAYS}


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(NUM_BATCHES)), st.lists(st.integers(1, NUM_BATCHES), max_size=3), st.booleans())
def test_any_order_with_any_interruptions_gives_the_same_files(order: list[int], stops: list[int], whole: bool) -> None:
    kept = np.ones(NUM_ROWS, dtype=bool) if whole else KEPT
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows_in(folder).create({})
        for first, last in zip([0, *sorted(stops)], [*sorted(stops), NUM_BATCHES], strict=True):
            rows = rows_in(folder)
            with rows.writing():
                for batch in order[first:last]:
                    write(rows, batch)
            assert set(np.flatnonzero(rows_in(folder).done()).tolist()) == set(order[:last])
        for array, found in zip(ARRAYS.values(), finish(folder, kept).values(), strict=True):
            assert found.tobytes() == array[kept].tobytes()
            assert (found.dtype, found.shape[1:]) == (array.dtype, array.shape[1:])


def test_rows_of_a_process_that_was_killed_do_not_count_before_they_are_noted(tmp_path: Path) -> None:
    def killed(*noted: int) -> None:
        rows = rows_in(tmp_path)
        with rows.writing():
            for batch in noted:
                write(rows, batch)
            rows.note()
            write(rows, 3)
            os._exit(9)

    rows_in(tmp_path).create({})
    run_processes(1, killed, 4, 1)
    assert np.flatnonzero(rows_in(tmp_path).done()).tolist() == [1, 4]
    write_all(rows_in(tmp_path))
    assert finish(tmp_path, KEPT)["embedding"].tobytes() == ARRAYS["embedding"][KEPT].tobytes()


def test_an_error_on_the_way_notes_what_was_written(tmp_path: Path) -> None:
    def failing() -> None:
        rows = rows_in(tmp_path)
        with rows.writing():
            write(rows, 2)
            raise ZeroDivisionError

    rows_in(tmp_path).create({})
    with pytest.raises(ZeroDivisionError):
        failing()
    assert np.flatnonzero(rows_in(tmp_path).done()).tolist() == [2]


def test_a_full_disk_is_said_and_what_was_noted_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite

    def short(descriptor: int, data: Any, offset: int) -> int:
        # A disk may take a part of what it is given.
        return pwrite(descriptor, data[:7], offset)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    rows = rows_in(tmp_path)
    rows.create({})
    with rows.writing():
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", short)
            write(rows, 0)
            rows.note()
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            with pytest.raises(UserError, match=r"No space left on device\n  make room; the same command goes on"):
                write(rows, 1)
    assert np.flatnonzero(rows_in(tmp_path).done()).tolist() == [0]
    write_all(rows_in(tmp_path))
    for name, found in finish(tmp_path, KEPT).items():
        assert found.tobytes() == ARRAYS[name][KEPT].tobytes()


def test_the_place_is_taken_at_once_and_known_arrays_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_in(tmp_path)
    rows.create({"embedding": ARRAYS["embedding"]})
    assert rows.num_bytes() == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert np.array_equal(rows.read("embedding"), ARRAYS["embedding"])
    assert not rows.read("outcomes")["loss"].any()
    (tmp_path / "full").mkdir()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match=r"cannot write in .*full: No space left"):
        rows_in(tmp_path / "full").create({})


class Killed(BaseException):
    """The process ends here."""


def killed_after(left: list[int], call: Callable[..., Any]) -> Callable[..., Any]:
    """Return `call` in a process that is killed once it was used `left[0]` times."""

    def counted(*args: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return call(*args)

    return counted


@pytest.mark.parametrize("whole", [True, False])
def test_naming_the_files_can_be_interrupted_anywhere_and_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    kept = np.ones(NUM_ROWS, dtype=bool) if whole else KEPT
    for stop in range(4):
        folder, left = tmp_path / str(stop), [stop]
        folder.mkdir()
        rows_in(folder).create(ARRAYS)
        with monkeypatch.context() as patch:
            for call in (Path.replace, Path.unlink):
                patch.setattr(Path, call.__name__, killed_after(left, call))
            # Two files are renamed; one with fewer rows takes a second call.
            if stop < (2 if whole else 4):
                with pytest.raises(Killed):
                    rows_in(folder).finish(lambda _: kept)
        found = finish(folder, kept)
        assert {name: array.tobytes() for name, array in found.items()} == {
            name: array[kept].tobytes() for name, array in ARRAYS.items()
        }
        again = rows_in(folder)
        assert again.done().all()
        again.finish(lambda _: pytest.fail("finished twice"))


def test_an_array_that_was_taken_away_is_missed(tmp_path: Path) -> None:
    rows_in(tmp_path).create(ARRAYS)
    finish(tmp_path, KEPT)
    rows_in(tmp_path).require_all()
    (tmp_path / "embedding.npy").unlink()
    with pytest.raises(UserError, match=r"embedding\.npy is gone from"):
        rows_in(tmp_path).require_all()


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="Python objects"):
        load_array(tmp_path / "objects.npy")


def test_a_system_that_cannot_reserve_room_goes_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown, raising=False)
    rows_in(tmp_path).create(ARRAYS)
    assert np.array_equal(finish(tmp_path, KEPT)["embedding"], ARRAYS["embedding"][KEPT])

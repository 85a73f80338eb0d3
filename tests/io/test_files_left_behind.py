"""What a written file is like for others, and what writers that were killed leave."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
import torch

from fixres.errors import Notice, UserError
from fixres.io import files
from fixres.io.files import remove_leftovers, temporary_beside, write_json, write_text, write_with
from fixres.io.safe_load import read_checkpoint
from fixres.io.tensors import write_weights


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_that_the_umask_gives(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_weights(tmp_path / "model.safetensors", {"w": torch.zeros(2)})
        write_text(tmp_path / "a.txt", "a")
        write_json(tmp_path / "a.json", {})
        write_with(tmp_path / "a.pt", lambda path: torch.save({}, path))
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o666 & ~umask}


def test_names_as_long_as_names_may_be_are_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127, "\udce9" * 250):
        write_text(tmp_path / name, "text")
        assert (tmp_path / name).read_text() == "text"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_system_that_cannot_flush_folders_costs_a_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(descriptor)

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.warns(Notice, match="cannot flush folders"):
        write_text(tmp_path / "a.txt", "text")
    assert (tmp_path / "a.txt").read_text() == "text"


def test_a_disk_that_fills_up_while_flushing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(UserError, match="No space left"):
        write_text(tmp_path / "a.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_writers_go_and_nothing_else(tmp_path: Path) -> None:
    left = [temporary_beside(tmp_path / "last.pt"), tmp_path / ".last.pt.4711.part"]
    others = [tmp_path / name for name in ("last.pt", "a.part", ".hidden.part", ".a.b.c.part", "x.0123abcd.part")]
    for path in left + others:
        path.write_text("")
    assert remove_leftovers(tmp_path) == 2
    assert sorted(tmp_path.iterdir()) == sorted(others)
    assert remove_leftovers(tmp_path / "missing") == 0


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_weights(tmp_path / "w.safetensors", {"w": torch.zeros(2)})

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "w.safetensors"))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError) as caught:
        read_checkpoint(tmp_path / "w.safetensors")
    assert "permission denied" in str(caught.value)
    assert "truncated" not in str(caught.value)

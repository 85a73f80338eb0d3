"""The walk of folders: its order, the links it follows, and what it leaves alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fixres.errors import UserError
from fixres.io.folder_walk import walk


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_hidden_files_are_told_and_hidden_folders_left_alone(tmp_path: Path) -> None:
    touch(tmp_path, "a/1", "a/.2", ".git/3", "@eaDir/4", "a/Thumbs.db", "a-b")
    os.mkfifo(tmp_path / "pipe")
    found = {path: (hidden, is_file) for path, hidden, is_file in walk(tmp_path)}
    assert list(found) == [".git/", "@eaDir/", "a-b", "a/.2", "a/1", "a/Thumbs.db", "pipe"]
    assert [path for path, (hidden, _) in found.items() if hidden] == [".git/", "@eaDir/", "a/.2", "a/Thumbs.db"]
    assert found["a/1"] == (False, True)
    assert found["pipe"] == (False, False)
    assert [one.path for one in walk(tmp_path, is_deep=False)] == [".git/", "@eaDir/", "a-b", "pipe"]


def test_folders_that_link_to_each_other_are_walked_once(tmp_path: Path) -> None:
    for k in range(12):
        touch(tmp_path, f"all/{k:02}/file")
        for other in range(12):
            (tmp_path / "all" / f"{k:02}" / f"to{other:02}").symlink_to(tmp_path / "all" / f"{other:02}")
    (tmp_path / "all" / "self").symlink_to(tmp_path / "all" / "self")
    found = [one.path for one in walk(tmp_path / "all")]
    assert len(found) == 13
    assert "self" in found
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "z").symlink_to(tmp_path / "all" / "00")
    (tmp_path / "in" / "a").symlink_to(tmp_path / "in")
    assert next(iter(walk(tmp_path / "in"))).path == "z/file"


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    scan = os.scandir

    def refuse(folder: str) -> Any:
        # Root may read everything.
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="closed cannot be read"):
        list(walk(tmp_path))

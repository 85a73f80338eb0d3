"""Files written whole or not at all, by one process at a time."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from fixres.errors import UserError
from fixres.io.files import (
    disk,
    files,
    read_json,
    require_room,
    require_writable_file,
    require_writable_folder,
    reserved,
    write_json,
    write_text,
    write_with,
)
from fixres.io.safe_load import read_checkpoint
from tests.support.several import run_processes


def full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_failing_save_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "last.pt"
    write_text(path, "old")
    writer: Any = lambda temporary: temporary.write_text("new")  # noqa: E731
    if failing == "write":

        def writer(temporary: Path) -> None:
            temporary.write_text("ne")
            full_disk()

    elif failing == "fsync":
        monkeypatch.setattr(os, "fsync", full_disk)
    else:
        monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        write_with(path, writer)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_json_file_is_written_whole_or_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "run" / "status.json"
    write_json(path, {"state": "running", "name": "caf\udce9"})
    assert path.read_text().endswith("}\n")
    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if failing == "fsync" else (Path, "replace")), full_disk)
        with pytest.raises(OSError, match="No space left on device"):
            write_json(path, {"state": "done"})
    assert read_json(path) == {"state": "running", "name": "caf\udce9"}
    assert [p.name for p in path.parent.iterdir()] == ["status.json"]


def test_a_json_file_that_is_not_there_is_none_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert read_json(tmp_path / "none.json") is None
    for content in (b"", b'{"state": ', b"\xff\xfe"):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.json cannot be read .*\n  delete it"):
            read_json(tmp_path / "bad.json")


def test_torchs_own_error_on_a_full_disk_is_told_and_other_errors_are_not_touched(tmp_path: Path) -> None:
    def failing(reason: str) -> Any:
        raise RuntimeError(reason)

    with pytest.raises(UserError, match=r"cannot write .*w\.pt: the disk is full"):
        write_with(tmp_path / "w.pt", lambda _: failing("[enforce fail at inline_container.cc:603] unexpected pos"))
    with pytest.raises(RuntimeError, match="shapes"):
        write_with(tmp_path / "w.pt", lambda _: failing("shapes do not fit"))
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_are_refused_beforehand_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    require_writable_folder(tmp_path / "new" / "run")
    require_writable_file(tmp_path / "new" / "page.html")
    with pytest.raises(UserError, match="is a file; give the name of a folder"):
        require_writable_folder(tmp_path / "file")
    with pytest.raises(UserError, match="is a folder; give the name of a file"):
        require_writable_file(tmp_path / "new")
    for refuse in (require_writable_folder, require_writable_file):
        with pytest.raises(UserError, match=r"cannot write .*/file/a/b.*\n  name another place with --out"):
            refuse(tmp_path / "file" / "a" / "b")
    assert sorted(path.name for path in files(tmp_path)) == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_what_does_not_fit_is_refused_with_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2_500_000))
    require_room(tmp_path, 2_500_000, "the arrays")
    with pytest.raises(UserError, match=r"the arrays need 3\.0 GB, the disk of .* has 2\.5 MB free"):
        require_room(tmp_path, 3_000_000_000, "the arrays")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full\n  what is done is kept"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "is full\n  what is done is kept"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/other/a.jpg"),
            r"^/other/a\.jpg cannot be .*\(Permission",
        ),
        (OSError(errno.EIO, "Input/output error"), r"out\.part cannot be written or read \(Input"),
    ],
)
def test_what_a_disk_refuses_has_words(tmp_path: Path, error: OSError, said: str) -> None:
    with pytest.raises(UserError, match=said), disk(tmp_path / "out.part"):
        raise error


def enter(out: Path) -> str:
    with reserved(out):
        return "made"


def test_only_one_process_makes_a_thing_and_the_next_may_when_it_is_done(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with reserved(out):
        (refused,) = run_processes(1, enter, out)
    assert isinstance(refused, UserError)
    assert f"another process is preparing {out}" in str(refused)
    assert list(out.parent.iterdir()) == []
    assert run_processes(1, enter, out) == ["made"]


def test_a_killed_process_locks_nobody_out_and_what_is_begun_keeps_its_lock(tmp_path: Path) -> None:
    def die(out: Path) -> None:
        with reserved(out):
            out.with_name("out.part").mkdir()
            os._exit(9)

    assert run_processes(1, die, tmp_path / "out") == [None]
    assert enter(tmp_path / "out") == "made"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.part", "out.part.lock"]


def test_a_folder_that_is_a_file_is_a_clean_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write"):
        write_text(tmp_path / "file" / "out.json", "{}")


SAVER = """
import sys, torch
from pathlib import Path
from fixres.io.files import write_with
path = Path(sys.argv[1])
i = 0
while True:
    i += 1
    state = {"i": i, "w": torch.full((200_000,), float(i))}
    write_with(path, lambda p: torch.save(state, p))
    if i == 1:
        print("saving", flush=True)
"""


def test_killed_at_random_instants_the_checkpoint_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    chance = random.Random(0)
    process = subprocess.Popen([sys.executable, "-c", SAVER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(20):
        time.sleep(chance.uniform(0, 0.01))
        os.kill(process.pid, signal.SIGSTOP)
        state = read_checkpoint(path)
        assert torch.equal(state["w"], torch.full((200_000,), float(state["i"])))
        os.kill(process.pid, signal.SIGCONT)
    process.kill()
    process.wait()
    state = read_checkpoint(path)
    assert torch.equal(state["w"], torch.full((200_000,), float(state["i"])))


def test_a_link_stays_a_link_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    target, link = tmp_path / "kept" / "page.html", tmp_path / "page.html"
    link.symlink_to(target)
    for text in ("first", "second"):
        write_text(link, text)
        assert link.is_symlink()
        assert target.read_text() == text
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["page.html"]


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    require_writable_file(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "all of it")
    reader.join(30)
    assert read == ["all of it"]
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]

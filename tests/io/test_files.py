"""Files written whole or not at all, by one process at a time."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from fixres.errors import UserError
from fixres.io.files import write_text, write_with
from fixres.io.tensors import read_checkpoint


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

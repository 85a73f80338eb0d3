from __future__ import annotations

import errno
import io
import os
import pickle
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
from fixres.io.tensors import changed_tensors, read_checkpoint, read_weights, write_weights


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch pwned",)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    torch.save({"weight": Evil()}, path)
    raw = tmp_path / "raw.pt"
    raw.write_bytes(pickle.dumps(Evil()))
    for file in (path, raw):
        with pytest.raises(UserError):
            read_checkpoint(file)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 7, 200])
def test_a_truncated_file_is_one_message(tmp_path: Path, suffix: str, keep: int) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".pt":
        torch.save({"a": torch.zeros(100)}, path)
    else:
        write_weights(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="truncated"):
        read_weights(path)


def test_a_nested_file_is_not_taken_for_weights(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"not a flat dictionary of tensors \(it holds: state_dict, epoch\)"):
        read_weights(tmp_path / "w.pt")


def test_equal_weights_are_equal_bytes_whatever_their_layout(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 5, 5)
    write_weights(tmp_path / "a.safetensors", {"w": weight, "b": torch.ones(2)})
    write_weights(tmp_path / "b.safetensors", {"w": weight.to(memory_format=torch.channels_last), "b": torch.ones(2)})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert not changed_tensors(read_weights(tmp_path / "a.safetensors"), {"w": weight, "b": torch.ones(2)})


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


def test_loading_needs_no_more_than_weights_only(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2), "b": [1, "x", None]}, buffer)
    (tmp_path / "ok.pt").write_bytes(buffer.getvalue())
    assert read_checkpoint(tmp_path / "ok.pt")["b"] == [1, "x", None]

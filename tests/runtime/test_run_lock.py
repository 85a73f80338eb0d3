"""One writer for a run folder: on one machine by the kernel's lock, between machines by signs of life."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fixres.errors import Notice, UserError
from fixres.runtime import run_lock
from fixres.runtime.run_lock import HOLDER_FILE, LOCK_FILE, Holder, RunLock, is_abandoned, this_process

_HOLD = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "from fixres.runtime.run_lock import RunLock\n"
    "with RunLock(Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)


def _other_machine(folder: Path, age: float, job: str = "") -> Holder:
    """Leave what a run on another machine leaves, with its last sign of life `age` seconds ago."""
    holder = replace(this_process(), host="node7", machine="another boot", pid=1, job=job)
    folder.mkdir(exist_ok=True)
    (folder / HOLDER_FILE).write_text(json.dumps(asdict(holder)))
    os.utime(folder / HOLDER_FILE, (time.time() - age,) * 2)
    return holder


def test_a_folder_is_left_as_it_was(tmp_path: Path) -> None:
    with RunLock(tmp_path / "run"):
        assert {path.name for path in (tmp_path / "run").iterdir()} == {LOCK_FILE, HOLDER_FILE}
    assert list((tmp_path / "run").iterdir()) == []


def test_two_runs_of_one_process_are_kept_apart(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(UserError, match="this very process"):
        RunLock(tmp_path).acquire()
    with RunLock(tmp_path):
        pass


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        for take_over in (False, True):
            with pytest.raises(UserError, match=rf"process {first.pid} on .*sign of life \d s ago"):
                RunLock(tmp_path, take_over=take_over).acquire()
        first.send_signal(signal.SIGSTOP)
        with pytest.raises(UserError, match="another run"):
            RunLock(tmp_path).acquire()
        assert not is_abandoned(tmp_path)
        first.kill()
        first.wait()
    assert is_abandoned(tmp_path)
    # At once, though the dead one left its file a moment ago.
    with RunLock(tmp_path) as lock:
        lock.require_held()


def test_a_run_on_another_machine_counts_as_dead_after_five_minutes(tmp_path: Path) -> None:
    _other_machine(tmp_path, age=250)
    with pytest.raises(UserError, match=r"node7(?s:.*)5 minutes(?s:.*)--take-over"):
        RunLock(tmp_path).acquire()
    _other_machine(tmp_path, age=310)
    with RunLock(tmp_path):
        pass


def test_what_was_abandoned_can_be_asked_by_anyone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_abandoned(tmp_path)
    with RunLock(tmp_path):
        assert not is_abandoned(tmp_path)
        with subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stderr=subprocess.PIPE, text=True) as other:
            # The question has not cost this process its lock.
            assert other.wait() == 1
            assert other.stderr is not None
            assert "is being written by another run" in other.stderr.read()
    assert not is_abandoned(tmp_path)
    for job in ("", "77"):
        monkeypatch.setenv("SLURM_JOB_ID", "77")
        _other_machine(tmp_path, age=250, job=job)
        assert not is_abandoned(tmp_path)
        _other_machine(tmp_path, age=310, job=job)
        assert is_abandoned(tmp_path)


def test_taking_over_does_not_wait(tmp_path: Path) -> None:
    _other_machine(tmp_path, age=1)
    with RunLock(tmp_path, take_over=True) as lock:
        lock.require_held()


def test_a_job_that_slurm_starts_again_does_not_wait_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _other_machine(tmp_path, age=1, job="77")
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    with pytest.raises(UserError, match="job 77"):
        RunLock(tmp_path).acquire()
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    # A second writer of the same start of the job is one too many.
    with pytest.raises(UserError, match="job 77"):
        RunLock(tmp_path).acquire()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with RunLock(tmp_path):
        pass


def test_a_run_that_was_taken_over_writes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "HEARTBEAT_SECONDS", 0.05)
    with RunLock(tmp_path) as lock:
        lock.require_held()
        other = _other_machine(tmp_path, age=0)
        time.sleep(1)
        with pytest.raises(UserError, match=r"taken .* over"):
            lock.require_held()
    # What the new holder needs is still there.
    assert json.loads((tmp_path / HOLDER_FILE).read_text())["token"] == other.token


def test_signs_of_life_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "HEARTBEAT_SECONDS", 0.05)
    with RunLock(tmp_path):
        os.utime(tmp_path / HOLDER_FILE, (0, 0))
        until = time.monotonic() + 10
        while (tmp_path / HOLDER_FILE).stat().st_mtime == 0 and time.monotonic() < until:
            time.sleep(0.01)
        assert time.time() - (tmp_path / HOLDER_FILE).stat().st_mtime < 5


def test_without_locks_of_the_file_system_signs_of_life_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    _other_machine(tmp_path, age=20)
    with pytest.warns(Notice, match="no locks"), pytest.raises(UserError, match="node7"):
        RunLock(tmp_path).acquire()
    _other_machine(tmp_path, age=400)
    with pytest.warns(Notice, match="no locks"), RunLock(tmp_path) as lock:
        lock.require_held()


def test_a_damaged_file_of_the_holder_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / HOLDER_FILE).write_text("{")
    with pytest.raises(UserError, match="an unknown machine"):
        RunLock(tmp_path).acquire()
    os.utime(tmp_path / HOLDER_FILE, (0, 0))
    with RunLock(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        RunLock(tmp_path / "file" / "run").acquire()

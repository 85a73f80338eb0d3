"""The record of a run: every event once and in order; a resumed run counts on from its checkpoint."""

from __future__ import annotations

import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres.errors import Notice, UserError
from fixres.runtime.run_folder import MuteLog, RunLog, environment, read_events, tell_end_of_dead
from fixres.runtime.run_lock import HOLDER_FILE, RunLock


def log_of(folder: Path, *listeners: Any) -> RunLog:
    return RunLog(folder, "none", tuple(listeners))


def step(log: RunLog, index: int, number: int, **fields: Any) -> None:
    log.event("train", stage=("train", "fix")[index], stage_index=index, step=number, **fields)


def status(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "status.json").read_text())
    return content


def test_a_finished_run_tells_everything_in_its_order(trained_run: Path) -> None:
    events = [event["event"] for event in read_events(trained_run)]
    order = [events.index(name) for name in ("begin", "start", "plan", "train", "eval", "kept", "done")]
    assert order == sorted(order)
    assert events[-1] == "done"
    assert all(events.count(name) == 1 for name in ("begin", "start", "done"))
    steps = [event["total_step"] for event in read_events(trained_run) if event["event"] == "train"]
    assert steps == sorted(set(steps))
    assert status(trained_run) == {"state": "done", "exit_code": 0, "step": steps[-1]}


def test_an_event_is_a_line_and_listeners_are_told_what_is_written(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    log = log_of(tmp_path / "new" / "run", told.append)
    log.event("note", text="line\nbreak, caf\u00e9")
    log.event("plan", stage="train", stage_index=0, total_steps=8)
    step(log, 0, 3, loss=0.5)
    log.progress(done=1, total=2)
    lines = (tmp_path / "new" / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == read_events(log.folder) == told[:3]
    assert told[2]["total_step"] == 3
    assert told[3:] == [{"event": "progress", "done": 1, "total": 2}]
    assert log.size() == (log.folder / "metrics.jsonl").stat().st_size


def _abandon(folder: Path) -> None:
    """Leave what a run on another machine leaves that gave its last sign of life long ago."""
    (folder / HOLDER_FILE).write_text("{}")
    os.utime(folder / HOLDER_FILE, (0, 0))


@pytest.mark.parametrize("state", ["running", "done"])
def test_others_tell_the_end_of_a_main_process_that_is_gone(tmp_path: Path, state: str) -> None:
    log = log_of(tmp_path)
    log.status(state)
    step(log, 0, 7, loss=0.5)
    before = status(tmp_path)
    tell_end_of_dead(tmp_path)
    with RunLock(tmp_path):
        tell_end_of_dead(tmp_path)
    assert status(tmp_path) == before
    _abandon(tmp_path)
    tell_end_of_dead(tmp_path)
    assert status(tmp_path) == ({"state": "failed", "exit_code": 2, "step": 7} if state == "running" else before)
    assert not (tmp_path / HOLDER_FILE).exists()


def test_steps_of_a_later_stage_come_after_those_of_the_stages_before(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    for index, total in ((0, 20), (1, 5), (2, 7)):
        log.event("plan", stage_index=index, total_steps=total)
    assert [log.total_step(index, 4) for index in range(4)] == [4, 24, 29, 36]
    step(log, 1, 4)
    # The best step lies behind: it is told, and the run goes on from where it is.
    log.event("kept", stage_index=0, step=10)
    log.status("running")
    assert [event.get("total_step") for event in read_events(tmp_path)[3:]] == [24, 10]
    assert status(tmp_path) == {"state": "running", "exit_code": None, "step": 24}
    log.status("stopped", 75)
    assert status(tmp_path) == {"state": "stopped", "exit_code": 75, "step": 24}


def test_a_resumed_run_drops_what_came_after_its_checkpoint_and_counts_on(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    log.event("plan", stage_index=0, total_steps=20)
    log.event("plan", stage_index=1, total_steps=5)
    step(log, 1, 2)
    size = log.size()
    step(log, 1, 3)
    log.event("note", text="later")
    again = log_of(tmp_path)
    again.truncate(size)
    again.status("running")
    assert (again.size(), status(tmp_path)["step"]) == (size, 22)
    step(again, 1, 3)
    assert [event.get("total_step") for event in read_events(tmp_path)] == [None, None, 22, 23]


def test_there_may_be_less_than_the_checkpoint_says_or_nothing(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    log.truncate(100)
    assert (log.size(), list(tmp_path.iterdir())) == (0, [])
    step(log, 0, 1)
    log.truncate(10_000)
    assert len(read_events(tmp_path)) == 1
    log.truncate(0)
    assert read_events(tmp_path) == []


@settings(max_examples=50)
@given(st.floats(0, 1))
def test_a_last_line_that_was_cut_short_is_left_out(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    folder = tmp_path_factory.mktemp("run")
    log = log_of(folder)
    ends = []
    for number in range(4):
        step(log, 0, number, text="\u00e9")
        ends.append(log.size())
    cut = round(share * log.size())
    os.truncate(log.metrics_file, cut)
    # A line is whole before its line break is there.
    assert [event["step"] for event in read_events(folder)] == [k for k, end in enumerate(ends) if end - 1 <= cut]


def test_a_folder_without_a_record_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run folder: it has no metrics\.jsonl"):
        read_events(tmp_path)


def test_a_place_that_cannot_be_written_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"cannot write .*run: .*\n  make room, or name another place with --out"):
        log_of(tmp_path / "file" / "run")
    log = log_of(tmp_path / "run")
    log.metrics_file.mkdir()
    with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl: Is a directory"):
        log.event("note", text="a")


def test_processes_beside_the_main_one_write_nothing(tmp_path: Path) -> None:
    step(log_of(tmp_path), 0, 1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    mute = MuteLog(tmp_path)
    step(mute, 0, 7)
    mute.status("running")
    mute.truncate(0)
    mute.close()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_environment_is_that_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/fixres", "train", "--train.size", "32"])
    found = environment()
    assert found["command"] == "fixres train --train.size 32"
    assert found["versions"]["torch"] == metadata.version("torch")
    assert (found["num_cores"], found["threads"]) == (os.cpu_count(), torch.get_num_threads())
    assert json.loads(json.dumps(found)) == found


def test_a_damaged_line_costs_that_line_and_is_said(tmp_path: Path) -> None:
    lines = ['{"event": "begin"}', '{"event": "tr', "\udcff\udcfe", "[1]", '{"event": "done"}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
    with pytest.warns(Notice, match=r"metrics\.jsonl: lines 2, 3, 4 cannot be read"):
        assert [event["event"] for event in read_events(tmp_path)] == ["begin", "done"]

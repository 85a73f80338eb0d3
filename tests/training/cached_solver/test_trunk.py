"""Kills and signals cost no finished chunk, and change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from fixres.errors import Stopped
from fixres.io.tensors import changed_tensors, copy_state
from fixres.training.cached_solver import solve
from fixres.training.cached_solver import trunk as trunk_module
from fixres.training.cached_solver.solve import Problem
from tests.support.solver_problems import problem, warm

pytestmark = pytest.mark.usefixtures("few_decays")


class Killed(BaseException):
    """Stands for a kill: nothing in the program catches it."""


def solved_state(cache: Path) -> dict[str, Tensor]:
    model = warm()
    solve.solve(problem(model, cache))
    return copy_state(model)


def count_batches(patch: pytest.MonkeyPatch, run: Callable[[], object], stop_after: int | None = None) -> list[int]:
    """Return the batches that are read by `run`, which is killed after some."""
    seen: list[int] = []
    read = trunk_module.evaluation_batches

    def counted(split: Any, *rest: Any, **kwargs: Any) -> Any:
        for batch in read(split, *rest, **kwargs):
            if len(seen) == stop_after:
                raise Killed
            seen.append(len(batch[1]))
            yield batch

    patch.setattr(trunk_module, "evaluation_batches", counted)
    if stop_after is None:
        run()
    else:
        with pytest.raises(Killed):
            run()
    return seen


def test_a_kill_at_any_batch_costs_no_finished_chunk_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        total = len(count_batches(patch, lambda: solved_state(tmp_path / "whole")))
    whole = solved_state(tmp_path / "whole")
    for k in range(1, total, 3):
        with monkeypatch.context() as patch:
            stopped = count_batches(patch, lambda k=k: solved_state(tmp_path / str(k)), stop_after=k)
        with monkeypatch.context() as patch:
            again = count_batches(patch, lambda k=k: solved_state(tmp_path / str(k)))
        # Read once more: the batch that faster paths are checked with, twice, and a chunk of two that was cut short.
        assert len(stopped) + len(again) <= total + 2 + 1
        assert not changed_tensors(whole, solved_state(tmp_path / str(k)))


def test_a_signal_stops_between_batches_and_a_rerun_finds_the_same(tmp_path: Path) -> None:
    whole = solved_state(tmp_path / "whole")
    model = warm()
    task = problem(model, tmp_path / "stopped")
    calls: list[int] = []

    def progress(what: str, done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == 3:
            task.runtime.stop.received = "SIGTERM"

    stopped = Problem(**{**vars(task), "progress": progress})
    with pytest.raises(Stopped):
        solve.solve(stopped)
    assert not changed_tensors(whole, solved_state(tmp_path / "stopped"))

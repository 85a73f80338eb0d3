"""A run that version 0.1.0 left behind is gone on with, and ends as if it had never stopped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fixres.config.loading import load
from fixres.io.tensors import read_weights
from fixres.runtime.run_folder import read_events
from fixres.training.run import run_recipe
from tests.support.golden_runs import FINISHED, STOPPED, repeats_bits
from tests.support.shared_runs import stamps

PACE = ("images_per_second", "fps", "seconds", "solver_seconds", "data_wait_ratio")
"""What the same steps need not repeat."""
LATER = ("differences", "control", "new_head", "num_epochs", "why", "text")
"""What a log of 0.1.0 does not say, or says in other words."""


def learned(folder: Path) -> list[Any]:
    """Return the events of a run, without speeds and without where it began."""
    found: list[Any] = []
    for event in map(without_pace, read_events(folder)):
        is_said_again = event["event"] == "plan" and event in found
        if event["event"] not in ("begin", "start", "speed") and not is_said_again:
            found.append(event)
    return found


def without_pace(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_pace(inner) for key, inner in value.items() if key not in (*PACE, *LATER)}
    return [without_pace(inner) for inner in value] if isinstance(value, list) else value


def require_equal_to_1e_9(found: Any, wanted: Any) -> None:
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            require_equal_to_1e_9(found[key], value)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for own, other in zip(found, wanted, strict=True):
            require_equal_to_1e_9(own, other)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=0, abs=1e-9)
    else:
        assert found == wanted


def test_a_stopped_run_goes_on_and_ends_like_the_one_that_was_not(tmp_path: Path) -> None:
    shutil.copytree(STOPPED, tmp_path / "run")
    outcome = run_recipe(load(tmp_path / "run" / "recipe.yaml"), tmp_path / "run", resume=True)
    assert (outcome.size, outcome.split, outcome.num_images) == (48, "test", 16)
    assert '"state": "done"' in (tmp_path / "run" / "status.json").read_text()
    starts = [event["text"] for event in read_events(tmp_path / "run") if event["event"] == "begin"]
    assert starts == ["start: from the beginning", "start: from the checkpoint at step 6 of stage 1"]
    for name in ("model.safetensors", "before_fix.safetensors"):
        wanted = read_weights(FINISHED / "model" / name)
        found = read_weights(tmp_path / "run" / "model" / name)
        assert found.keys() == wanted.keys()
        for key, tensor in wanted.items():
            # On one thread and the processor of then every sum is taken in the same order, and nothing may differ.
            if repeats_bits():
                assert torch.equal(found[key], tensor), key
            else:
                torch.testing.assert_close(found[key], tensor, rtol=1e-5, atol=1e-5)
    # A run that 0.1.0 began goes by its rule to the end, the fix that begins now too.
    kept = {event["stage"]: event["why"] for event in read_events(tmp_path / "run") if event["event"] == "kept"}
    assert kept == {"train": "best top-1 on val", "fix": "best top-1 on val"}
    # The weights that ship are those of the first epoch, which was best; every later step is in the log.
    whole, own = learned(FINISHED), learned(tmp_path / "run")
    assert [(event["event"], event.get("step")) for event in own] == [(e["event"], e.get("step")) for e in whole]
    if repeats_bits():
        # 0.1.0 summed losses of an evaluation in another order.
        require_equal_to_1e_9(own, whole)
    losses = [[event["loss"] for event in events if event["event"] == "train"] for events in (own, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    shutil.copytree(FINISHED, tmp_path / "run")
    before = stamps(tmp_path / "run")
    outcome = run_recipe(load(tmp_path / "run" / "recipe.yaml"), tmp_path / "run", resume=True)
    assert stamps(tmp_path / "run") == before
    logged = next(event for event in read_events(FINISHED) if event["event"] == "comparison")
    assert (list(outcome.rows), outcome.split, outcome.num_images) == (logged["rows"], "test", 16)
    assert outcome.paired is not None
    assert outcome.paired.difference == logged["paired"]["difference"]

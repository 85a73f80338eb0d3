"""What a run reports and leaves behind: the product, and what a fix changed."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from fixres.io.safe_load import read_checkpoint
from fixres.io.tensors import changed_tensors
from fixres.runtime.run_folder import read_events
from tests.support.same_run import weights


def test_a_fix_moves_only_the_plan_and_keeps_what_was_before(fixed_run: Path) -> None:
    before = read_checkpoint(fixed_run / "checkpoints" / "start-1.pt")["weights"]
    after = weights(fixed_run)
    moved = load_file(fixed_run / "model" / "before_fix.safetensors")
    plan = next(e for e in read_events(fixed_run) if e["event"] == "fix")["plan"]
    assert changed_tensors(before, after) == set(plan["tensors"]) == set(moved)
    assert all(torch.equal(before[name], tensor) for name, tensor in moved.items())

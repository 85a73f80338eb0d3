"""A whole run: its stages in order, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path

from fixres.config.loading import validate
from fixres.io.tensors import changed_tensors, read_checkpoint
from fixres.runtime.run_folder import read_events
from fixres.training.run import run_recipe
from tests.support.same_run import weights


def test_stages_run_in_order_each_from_what_the_last_would_ship(tmp_path: Path) -> None:
    recipe = validate(
        {
            "data": {"uri": "synthetic:classes=3,images=48,size=48", "workers": 0},
            "model": {"name": "test_resnet"},
            "output": {"tracker": "none"},
            "stages": [
                {"size": 32, "epochs": 1, "batch_size": 24},
                {"size": 48, "epochs": 1, "batch_size": 24},
                {"size": 64, "epochs": 1, "batch_size": 24, "moves": "head"},
            ],
        }
    )
    run_recipe(recipe, tmp_path / "r")
    done = [(e["stage"], e["size"]) for e in read_events(tmp_path / "r") if e["event"] == "stage_done"]
    assert done == [("train", 32), ("train2", 48), ("fix", 64)]
    before = read_checkpoint(tmp_path / "r" / "checkpoints" / "start-2.pt")
    assert before["train_size"] == 48
    assert changed_tensors(before["weights"], weights(tmp_path / "r")) == {"fc.weight", "fc.bias"}

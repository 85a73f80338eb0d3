"""What a run reports and leaves behind: the product, and what a fix changed."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from fixres.config.recipe import Recipe
from fixres.experiments.seeds import summarise
from fixres.io.safe_load import read_checkpoint
from fixres.io.tensors import changed_tensors
from fixres.reporting.per_image import read_answers
from fixres.reporting.run_record import read_run
from fixres.runtime.run_folder import read_events
from fixres.training.run import run_recipe
from tests.support.class_folders import fill
from tests.support.same_run import weights


def test_a_fix_moves_only_the_plan_and_keeps_what_was_before(fixed_run: Path) -> None:
    before = read_checkpoint(fixed_run / "checkpoints" / "start-1.pt")["weights"]
    after = weights(fixed_run)
    moved = load_file(fixed_run / "model" / "before_fix.safetensors")
    plan = next(e for e in read_events(fixed_run) if e["event"] == "fix")["plan"]
    assert changed_tensors(before, after) == set(plan["tensors"]) == set(moved)
    assert all(torch.equal(before[name], tensor) for name, tensor in moved.items())


def test_class_names_are_no_formulas_in_the_table_for_people_and_themselves_for_us(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    names = ["-1abc", '=HYPERLINK("http:evil","x")', "@SUM(1)"]
    fill(tmp_path / "photos", {f"{split}/{name}": 8 for split in ("train", "val") for name in names})
    data = {"uri": f"folder:{tmp_path / 'photos'}"}
    fix = {"size": 48, "epochs": 1, "batch_size": 8, "solver": "sgd"}
    runs = [tmp_path / f"run-{seed}" for seed in (0, 1)]
    for seed, run in enumerate(runs):
        run_recipe(make_recipe(data=data, train={"epochs": 1, "batch_size": 8}, fix=fix, seed=seed), run)
    with (runs[0] / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == {f"'{name}" for name in names}
    answers = read_answers(read_run(runs[0]))
    assert answers is not None
    assert answers.classes == tuple(names)
    # A run of an earlier version has the names as they are; both are of the same pictures.
    text = (runs[1] / "comparison.csv").read_text()
    (runs[1] / "comparison.csv").write_text(text.replace("'-", "-").replace("'@", "@").replace("'=", "="))
    found = summarise(runs)
    assert found.top1 is not None
    assert found.top1.num_images == 24

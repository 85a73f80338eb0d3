"""The paper's grid: every cell once, killed and resumed without doing a finished cell again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fixres.cli.main import main
from fixres.config.loading import load
from fixres.config.recipe import Recipe
from fixres.errors import Stopped, UserError
from fixres.experiments import grid as grid_module
from fixres.experiments.grid import Cell, Grid, cells_of, run_grid
from fixres.models.build import build_model
from fixres.models.sizes import gmacs

pytestmark = pytest.mark.usefixtures("few_decays")

Make = Callable[..., Recipe]


DATA = {"uri": "synthetic:classes=3,images=24,size=48", "workers": 0}


def small(make_recipe: Make, **changes: Any) -> Grid:
    recipe = make_recipe(data=DATA, train={"epochs": 1, "batch_size": 8}, fix={"epochs": 1, "batch_size": 8})
    wanted: dict[str, Any] = {"train_sizes": (32,), "test_sizes": (32, 64), "seeds": (0,)}
    wanted["arms"] = ("none", "stats", "all", "direct")
    return Grid(recipe, **{**wanted, **changes})


def without_times(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in cell.items() if k not in ("seconds", "train_seconds")} for cell in cells]


def test_a_killed_grid_goes_on_and_finds_the_same(
    tmp_path: Path, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = small(make_recipe)
    whole = run_grid(grid, tmp_path / "whole")
    assert len(whole) == len(cells_of(grid)) == 8
    assert {c["train_size"] for c in whole if c["arm"] == "direct"} == {32, 64}
    assert [c["solver"] for c in whole if c["test_size"] == 64] == ["", "cached", "sgd", ""]

    measured: list[str] = []
    real = grid_module._Bench.measure

    def killed_at(limit: int) -> None:
        def measure(self: Any, cell: Cell, epochs: int | None) -> dict[str, Any]:
            if len(measured) == limit:
                raise Stopped
            measured.append(cell.name)
            return real(self, cell, epochs)

        monkeypatch.setattr(grid_module._Bench, "measure", measure)

    killed_at(5)
    with pytest.raises(Stopped):
        run_grid(grid, tmp_path / "killed")
    killed_at(100)
    resumed = run_grid(grid, tmp_path / "killed", resume=True)
    assert len(measured) == len(set(measured)) == 8
    assert without_times(resumed) == without_times(whole)
    assert not (tmp_path / "killed" / "work").exists()
    with pytest.raises(UserError, match="already holds a study\n  go on with --resume"):
        run_grid(grid, tmp_path / "killed")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"test_sizes": (32, 0)}, "size 0"),
        ({"arms": ("none", "stats")}, "--arms none"),
        ({"arms": ("head+stats",)}, "--arms none,direct"),
    ],
)
def test_what_does_not_suit_the_network_is_said_before_anything_runs(
    tmp_path: Path, make_recipe: Make, changes: dict[str, Any], said: str
) -> None:
    grid = small(make_recipe, **changes)
    grid = replace(grid, recipe=make_recipe(data=DATA, model={"name": "test_vit"}))
    with pytest.raises(UserError, match=said):
        run_grid(
            replace(grid, train_sizes=(160,), test_sizes=grid.test_sizes if 0 in grid.test_sizes else (160,)),
            tmp_path / "g",
        )
    assert not (tmp_path / "g").exists()


def test_arms_left_out_are_those_that_do_not_suit_the_network(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["--data.uri", DATA["uri"], "--seeds", "1", "--train-sizes", "160", "--test-sizes", "160,192", "--dry-run"]
    out = ["--out", str(tmp_path / "g")]
    assert main(["study", "--model.name", "test_vit", *words, *out]) == 0
    told = capsys.readouterr().err
    assert "left out: moves stats does not suit 'test_vit'" in told
    assert "10 cells from 2 trainings" in told
    assert main(["study", "--model.name", "test_resnet", *words, *out]) == 0
    told = capsys.readouterr().err
    assert "left out" not in told
    assert "14 cells from 2 trainings" in told


@pytest.mark.system
def test_every_arm_can_be_measured(tmp_path: Path, make_recipe: Make) -> None:
    cells = run_grid(small(make_recipe, arms=grid_module.all_arms(), test_sizes=(64,)), tmp_path / "g")
    assert [c["solver"] for c in cells] == ["", "cached", "cached", "cached", "sgd", "sgd", ""]
    assert len({json.dumps(c["losses"]) for c in cells}) == len(cells)


def test_an_arm_starts_from_the_training_and_moves_its_own_tensors_only(tmp_path: Path, make_recipe: Make) -> None:
    grid = small(make_recipe, arms=("none", "head"), test_sizes=(64,))
    cells = run_grid(grid, tmp_path / "g")
    none, head = cells
    assert head["training_gmacs"] > none["training_gmacs"] > 0
    assert head["train_seconds"] == none["train_seconds"] > 0
    assert none["seconds"] == 0 < head["seconds"]
    network = build_model("test_resnet", 3)
    torch.testing.assert_close(none["gmacs"], gmacs(network, 64))


def test_cells_of_another_recipe_are_refused(tmp_path: Path, make_recipe: Make) -> None:
    grid = small(make_recipe, arms=("none",))
    run_grid(grid, tmp_path / "g")
    other = grid.recipe.model_copy(update={"optim": grid.recipe.optim.model_copy(update={"momentum": 0.5})})
    changed = small(make_recipe, arms=("none",))
    with pytest.raises(UserError, match="cells of another recipe"):
        run_grid(Grid(other, changed.train_sizes, changed.test_sizes, ("none",), (0,)), tmp_path / "g", resume=True)


@pytest.mark.parametrize(
    ("name", "key"), [("elpv-direct", "38c50f91eef0d269"), ("elpv-small-only", "c90e3a8dbace117f")]
)
def test_cells_of_the_first_version_are_those_of_today(name: str, key: str) -> None:
    assert grid_module._key(load(name)) == key


FLAGS = ("--model.name", "test_resnet", "--train.epochs", "1", "--train.batch_size", "8", "--data.workers", "0")

FLAGS = (*FLAGS, "--data.uri", DATA["uri"], "--output.tracker", "none", "--runtime.threads", "1")


def test_the_command_writes_tables_and_a_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["study", *FLAGS, "--train-sizes", "32", "--test-sizes", "32,64", "--arms", "none,head,direct"]
    words += ["--arm-epochs", "direct=2", "--seeds", "1", "--out", str(tmp_path / "g")]
    assert main([*words, "--dry-run"]) == 0
    assert "6 cells from 2 trainings" in capsys.readouterr().err
    assert not (tmp_path / "g").exists()
    assert main(words) == 0
    text = capsys.readouterr().err
    assert "cell 6 of 6" in text
    assert "+- " not in text
    content = json.loads((tmp_path / "g" / "grid.json").read_text())
    assert len(content["cells"]) == 6
    assert content["arm_epochs"] == {"direct": 2}
    assert "correct" not in content["cells"][0]
    assert (tmp_path / "g" / "direct-64" / "seed-0").is_dir()
    assert "| 32 px | head |" in (tmp_path / "g" / "grid.md").read_text()
    svg = (tmp_path / "g" / "grid.svg").read_text()
    assert "32 px, head" in svg
    assert "xmlns" in svg
    assert main(words) == 2
    assert main([*words, "--resume"]) == 0


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("--train-sizes", "32", "--seeds", "1"), "a grid needs sizes"),
        (("--train-sizes", "32", "--test-sizes", "32"), "--seeds 0,1,2"),
        (("--train-sizes", "32", "--test-sizes", "32", "--seeds", "1", "--arms", "none,heads"), "no arm 'heads'"),
        (("--train-sizes", "32", "--test-sizes", "32", "--seeds", "1", "--arm-epochs", "head=2"), "have epochs"),
        (("--train-sizes", "32", "--test-sizes", "32", "--seeds", "1", "--arm-epochs", "all"), "ARM=EPOCHS"),
    ],
)
def test_what_is_no_grid_is_refused(words: tuple[str, ...], answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", *FLAGS, *words]) == 2
    assert answer in capsys.readouterr().err

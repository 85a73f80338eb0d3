"""`fixres tables` fills the published tables from runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixres.cli.main import main
from fixres.config.loading import load, to_yaml
from fixres.config.recipe import Recipe
from fixres.experiments import filled_tables
from fixres.experiments.published_tables import TABLES, Figure, Row, Table
from fixres.runtime.run_folder import read_events
from fixres.training.run import run_recipe
from tests.support.class_folders import fill


@pytest.fixture
def shipped(make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Return a recipe that takes the place of the shipped ones, a row of the only published table."""
    recipe = make_recipe(fix={"size": 48, "epochs": 1, "batch_size": 16, "solver": "sgd"})
    rows = (
        Row("before", "lab/row", (Figure(32, 50.0),), of="before"),
        Row("fixed", "lab/row", (Figure(0, 77.0, 93.4),)),
        Row("never run", "lab/other", (Figure(224, None),)),
    )
    monkeypatch.setattr(filled_tables, "TABLES", (Table("Lab: one", "a paper", rows, is_error=True),))
    monkeypatch.setattr(filled_tables, "shipped_settings", lambda: {"lab/row": filled_tables._settings(recipe)})
    original = filled_tables.load
    monkeypatch.setattr(filled_tables, "load", lambda name: recipe if name == "lab/row" else original(name))
    return recipe


def cells(text: str, label: str) -> list[str]:
    return next(
        [c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith(f"| {label} ")
    )


def test_runs_fill_the_rows_of_their_recipe(
    shipped: Recipe, fixed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [fixed_run, tmp_path / "seed-1"]
    run_recipe(shipped.model_copy(update={"seed": 1}), runs[1])
    other = tmp_path / "other"
    shutil.copytree(fixed_run, other)
    changed = {"train": shipped.train.model_copy(update={"weight_decay": 0.01})}
    (other / "recipe.yaml").write_text(to_yaml(shipped.model_copy(update=changed)))
    assert main(["tables", str(runs[0])]) == 0
    one = capsys.readouterr().out
    rows = [next(e for e in read_events(run) if e["event"] == "comparison")["rows"] for run in runs]
    errors = [100 - found[-1]["top1"] for found in rows]
    assert cells(one, "fixed")[3:5] == ["23.00", f"{errors[0]:.2f}"]
    low, high = rows[0][-1]["top1_ci95"]
    assert cells(one, "fixed")[5:7] == [f"{100 - high:.2f} to {100 - low:.2f}", "1 seed, 16 pictures"]
    assert cells(one, "before")[4] == f"{100 - rows[0][0]['top1']:.2f}"
    assert cells(one, "never run")[3:] == ["-"] * 6
    assert main(["tables", *map(str, runs), str(other)]) == 0
    two = capsys.readouterr().out
    assert cells(two, "fixed")[4].startswith(f"{sum(errors) / 2:.2f} ± ")
    assert cells(two, "fixed")[6] == "2 seeds, 16 pictures"
    assert f"- {other}: no shipped recipe has these settings; nearest is lab/row, different in" in two
    assert main(["tables", str(runs[0]), str(runs[0])]) == 2
    assert "a seed comes twice" in capsys.readouterr().err


def test_without_runs_the_tables_are_the_published_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables"]) == 0
    text = capsys.readouterr().out
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        *(table.title for table in TABLES),
        "Ascend: ResNet-50",
    ]
    header = "| Name | Acc@1 | FPS | Epochs | AMP_Type | Torch_Version |"
    assert header in text


def test_a_pair_of_runs_fills_the_ports_row() -> None:
    result: dict[str, Any] = {"top1": 72.94, "top5": 90.0, "size": 384}

    def ran(kind: str, before: dict[int, Any], fps: float) -> filled_tables.Ran:
        folder, recipe = Path(kind), f"ascend/{kind}-full-8p"
        return filled_tables.Ran(
            folder, recipe, 0, 50_000, {384: result}, before, {}, 384, 224, fps, 60.0, "fp16", "2.12.0"
        )

    fix = ran("finetune", {384: {"top1": 72.1}}, 3515.2)
    text = filled_tables._ascend({fix.recipe: [fix]})
    assert cells(text, "8p-NPU, ours") == [
        *("8p-NPU, ours", "72.9(72.1 before finetune)", "-/3515", "-/60", "fp16", "2.12.0")
    ]  # fmt: skip
    assert cells(text, "1p-NPU, ours")[1:] == ["-"] * 5


def test_recipes_that_differ_in_their_pictures_are_told_apart() -> None:
    names = ["simple/cub-resnet18", "simple/cars-resnet18"]
    start = [{"event": "start", "classes": [str(i) for i in range(196)]}]
    assert filled_tables._by_pictures(names, "folder:/data/cub-200-2011", start) == names[0]
    assert filled_tables._by_pictures(names, "folder:/data/mine", start) == names[1]
    assert filled_tables._by_pictures(names, "folder:/data/mine", []) == ""


def test_a_run_from_when_the_length_of_an_epoch_was_a_number_keeps_its_row() -> None:
    before = load("fixres/resnet50-224", {"train.epoch_samples": 2_562_560})
    assert filled_tables._settings(before) == filled_tables._settings(load("fixres/resnet50-224"))


def test_tables_of_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_a_run_with_an_average_fills_the_row_of_its_raw_weights(
    make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without pictures held out of train, the epochs are measured on the test pictures, as the project does.
    for split, num in (("train", 16), ("test", 8)):
        fill(tmp_path / "photos" / split, {"apple": num, "pear": num})
    recipe = make_recipe(
        data={"uri": f"folder:{tmp_path / 'photos'}", "holdout": 0},
        ema={"enabled": True},
        train={"size": 32, "epochs": 3, "batch_size": 16},
        evaluation={"keep": "best", "every_epochs": 1, "sizes": []},
    )
    rows = tuple(
        Row(label, name, (Figure(32, 90.0),), of)
        for label, name, of in (("raw", "lab/row-raw", "raw"), ("EMA", "lab/row", "shipped"))
    )
    monkeypatch.setattr(filled_tables, "TABLES", (Table("Lab: two", "a page", rows),))
    settings = {"lab/row": recipe, "lab/row-raw": recipe.model_copy(update={"seed": 0, "ema": make_recipe().ema})}
    shipped = {name: filled_tables._settings(one) for name, one in settings.items()}
    monkeypatch.setattr(filled_tables, "shipped_settings", lambda: shipped)
    original = filled_tables.load
    monkeypatch.setattr(filled_tables, "load", lambda name: settings.get(name) or original(name))
    run_recipe(recipe, tmp_path / "run")
    text = filled_tables.filled_tables([tmp_path / "run"])
    epochs = [e for e in read_events(tmp_path / "run") if e["event"] == "eval"]
    assert cells(text, "raw")[4] == f"{max(e['raw_results'][0]['top1'] for e in epochs):.2f}"
    assert cells(text, "EMA")[4] == f"{max(e['results'][0]['top1'] for e in epochs):.2f}"


def test_a_cell_of_the_grid_belongs_to_the_fix_at_its_own_size() -> None:
    row = Row("trained at 224 px", "lab/fix384", (Figure(384, 79.0), Figure(448, 78.4)), "each")
    after = {384: {"top1": 78.9}, 448: {"top1": 77.5}}
    ran = filled_tables.Ran(Path("run"), "lab/fix384", 0, 50_000, after, {}, {}, 384, 224)
    assert [filled_tables._result(ran, row, figure) for figure in row.figures] == [{"top1": 78.9}, None]
